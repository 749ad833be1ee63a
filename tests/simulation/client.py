"""The agent's side of one turn: a sink that checks how it is used, and clients that leave."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from wsproxy.ports import Headers


class SinkMisusedError(AssertionError):
    """The driver broke the contract of `ports.Sink`."""


class Sink:
    """A `ports.Sink` that keeps what it was given; `takes_per_s` bytes leave it, 0: all at once."""

    def __init__(self, clock: Callable[[], float], takes_per_s: float) -> None:
        self._clock = clock
        self._takes_per_s = takes_per_s
        self._taken_at = clock()
        self._buffered = 0.0
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.written = bytearray()
        self.writes = 0
        self.ending = ""  # finished | responded | aborted
        self.is_dropped = False
        self.on_write: Callable[[int], None] = lambda _count: None
        self.on_drop: Callable[[], object] = lambda: None

    def __repr__(self) -> str:
        return f"{self.status} {self.ending or 'open'} {len(self.written)} B {self.route}"

    @property
    def is_slow(self) -> bool:
        """Whether it leaves bytes in our buffers."""
        return self._takes_per_s > 0

    @property
    def route(self) -> str:
        """`x-wsproxy-route` as told."""
        return self.headers.get(b"x-wsproxy-route", b"").decode()

    @property
    def is_started(self) -> bool:
        """See `ports.Sink`."""
        return self.status != 0

    def start(self, status: int, headers: Headers) -> None:
        """See `ports.Sink`."""
        self._demand(not self.is_started, "a second head")
        self._head(status, headers)

    def write(self, data: bytes) -> int:
        """See `ports.Sink`."""
        self._demand(self.is_started and not self.ending, "a write outside of the answer")
        self.written += data
        self.writes += 1
        self._buffered = self.buffered_bytes() + len(data)
        self.on_write(self.writes)
        return int(self._buffered)

    def finish(self, data: bytes) -> None:
        """See `ports.Sink`."""
        if data:
            self.write(data)
        self._demand(self.is_started and not self.ending, "an end without an answer")
        self.ending = "finished"

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """See `ports.Sink`."""
        self._demand(not self.is_started, "a whole answer after the head")
        self._head(status, headers)
        self.written += body
        self.ending = "responded"

    def abort(self) -> None:
        """See `ports.Sink`."""
        self._demand(not self.ending, "cut after the end")
        self.ending = "aborted"

    def drop(self) -> None:
        """See `ports.Sink`: whoever served the client learns it as if the client had left."""
        self.is_dropped = True
        asyncio.get_running_loop().call_soon(self.on_drop)

    def buffered_bytes(self) -> int:
        """See `ports.Sink`."""
        if not self._takes_per_s:
            return 0
        now = self._clock()
        taken = (now - self._taken_at) * self._takes_per_s
        self._taken_at = now
        self._buffered = max(0.0, self._buffered - taken)
        return int(self._buffered)

    def taken_bytes(self) -> int:
        """See `ports.Sink`."""
        return len(self.written) - self.buffered_bytes()

    def _head(self, status: int, headers: Headers) -> None:
        self.status = status
        self.headers = {name.lower(): value for name, value in headers}

    def _demand(self, is_right: bool, what: str) -> None:
        if not is_right:
            raise SinkMisusedError(f"{what}: {self!r}")


def leaver(task: asyncio.Task[object], after_writes: int) -> Callable[[int], None]:
    """Has the client leave once so many writes have reached it."""

    def look(count: int) -> None:
        if count == after_writes:
            asyncio.get_running_loop().call_soon(task.cancel)

    return look
