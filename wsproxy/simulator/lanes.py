"""The lanes of one connection: who may start, who waits, what each remembers.

Rules of this file (guide, "lanes"; protocol.md §2.4, §4, §5)
------------------
1. A lane is FIFO: at most one of its responses runs.
2. At most `max_in_flight` responses run over all lanes; the rest wait in the order they came.
3. At most `max_lanes` distinct names in the life of a connection; the default lane is no name.
4. A lane remembers its latest completed response only.
5. A same-lane continuation that is refused or fails evicts the parent it named; a fork does not.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from wsproxy.simulator.errors import ApiError, named_error

DEFAULT_LANE = ""
Work = TypeVar("Work")
Kept = TypeVar("Kept")


@dataclass(slots=True)
class Lane(Generic[Work, Kept]):
    """One `stream_id`."""

    name: str
    queue: deque[Work] = field(default_factory=deque)
    is_running: bool = False
    latest_id: str | None = None
    latest: Kept | None = None


class Lanes(Generic[Work, Kept]):
    """All lanes of a connection."""

    def __init__(self, max_in_flight: int, max_names: int) -> None:
        self._max_in_flight = max_in_flight
        self._max_names = max_names
        self._lanes: dict[str, Lane[Work, Kept]] = {DEFAULT_LANE: Lane(DEFAULT_LANE)}
        self._waiting: deque[Lane[Work, Kept]] = deque()
        self._in_flight = 0

    @property
    def in_flight(self) -> int:
        """Responses that run now."""
        return self._in_flight

    def name(self, name: str) -> None:
        """Note a lane's name. Raises `ApiError` for the first name too many."""
        if name in self._lanes:
            return
        if len(self._lanes) - 1 >= self._max_names:
            raise _stream_limit()
        self._lanes[name] = Lane(name)

    def push(self, name: str, work: Work) -> list[tuple[str, Work]]:
        """Queue work on a named lane; returns what is to be started now."""
        lane = self._lanes[name]
        lane.queue.append(work)
        self._waiting.append(lane)
        return self._startable()

    def finish(self, name: str) -> list[tuple[str, Work]]:
        """The lane's running response has ended; returns what is to be started now."""
        self._lanes[name].is_running = False
        self._in_flight -= 1
        return self._startable()

    def _startable(self) -> list[tuple[str, Work]]:
        started: list[tuple[str, Work]] = []
        passed: deque[Lane[Work, Kept]] = deque()
        while self._waiting and self._in_flight < self._max_in_flight:
            lane = self._waiting.popleft()
            if lane.is_running:
                passed.append(lane)
                continue
            lane.is_running = True
            self._in_flight += 1
            started.append((lane.name, lane.queue.popleft()))
        self._waiting.extendleft(reversed(passed))
        return started

    # -- memory --------------------------------------------------------------------------------

    def find(self, response_id: str) -> Kept | None:
        """The response of that id if it is the latest of any lane."""
        for lane in self._lanes.values():
            if lane.latest_id == response_id:
                return lane.latest
        return None

    def remember(self, name: str, response_id: str, kept: Kept) -> None:
        """A response completed on that lane."""
        lane = self._lanes[name]
        lane.latest_id, lane.latest = response_id, kept

    def forget(self, name: str) -> None:
        """A response on that lane ended without completing."""
        lane = self._lanes[name]
        lane.latest_id = lane.latest = None

    def evict(self, name: str, parent_id: str | None) -> None:
        """A continuation of `parent_id` on that lane was refused."""
        if parent_id is not None and self._lanes[name].latest_id == parent_id:
            self.forget(name)


def _stream_limit() -> ApiError:
    error = named_error("websocket_stream_limit_reached")
    error.param = "stream_id"
    return error
