"""What happened in one world, as far as anybody must know it to judge afterwards."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from wsproxy.answering import OverHttps
from wsproxy.simulator.errors import ApiError

_CANARY = re.compile(rb'"canary": ?"([^"]+)"')
_PARENT = b'"previous_response_id":"'

if TYPE_CHECKING:
    from tests.simulation.client import Sink
    from tests.simulation.oracle import Expected
    from tests.simulation.plan import Plan
    from tests.simulation.runs import Run


@dataclass(slots=True, eq=False)
class Call:
    """One downstream request and what came of it."""

    number: int
    agent: int
    owner: str
    canary: str
    body: dict[str, Any]
    expectations: list[Expected]  # the right answers: one, but where a lane knows more than HTTP
    sink: Sink
    started_at: float
    ended_at: float = 0.0
    left_at: float | None = None
    over_https: OverHttps | None = None
    was_answered_over_https: bool = False
    connections: set[int] = field(default_factory=set)  # that its frames were given to
    runs: list[Run] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"<Call {self.number} {self.canary} of agent {self.agent}: {self.sink!r}>"

    @property
    def is_streaming(self) -> bool:
        """Whether the client asked for events."""
        return self.body.get("stream") is True


class Ledger:
    """Calls, runs, strikes that hit, violations; and a journal in words where it is wanted."""

    def __init__(
        self, plan: Plan, clock: Callable[[], float], *, is_journal_kept: bool = False
    ) -> None:
        self.knobs = plan.knobs
        self.is_forgetful = plan.upstream.forgets == "foreign"
        self._clock = clock
        self._is_journal_kept = is_journal_kept
        self.journal: list[str] = []
        self.violations: list[str] = []
        self.counts: Counter[str] = Counter()
        self.calls: list[Call] = []
        self.of_canary: defaultdict[str, list[Call]] = defaultdict(list)
        self.runs: list[Run] = []
        self.hits: defaultdict[int, list[str]] = defaultdict(list)  # connection → what struck it
        self.said: defaultdict[str, list[ApiError]] = defaultdict(list)  # canary → refusals
        self.said_to_all: defaultdict[int, list[ApiError]] = defaultdict(list)  # connection → them
        self.made_with: dict[tuple[str, str], str] = {}  # response → the members that must stay
        self.is_context_lost = False  # a turn was told so: no delta may be sent any more
        self.https_runs: Counter[str] = Counter()
        self.running = 0  # calls that have no end yet
        self.drain_at: float | None = None
        self.drain_deadline = float("inf")

    def note(self, what: str, *about: object) -> None:
        """A line of the journal."""
        if self._is_journal_kept:
            said = " ".join(map(str, about))
            self.journal.append(f"{self._clock() - 1000:10.4f}  {what} {said}")

    def violate(self, invariant: str, about: str) -> None:
        """Something was seen that must never be."""
        self.violations.append(f"{invariant}: {about}")
        self.note("VIOLATION", invariant, about)

    def given(self, connection: int, payload: bytes) -> None:
        """The driver has given a frame to a link, whether or not it ever arrives."""
        found = _CANARY.search(payload)
        for call in self.of_canary.get(found[1].decode(), ()) if found else ():
            call.connections.add(connection)
            is_delta = _PARENT in payload and call.body.get("previous_response_id") is None
            if is_delta and self.is_context_lost:
                self.violate("delta", f"{call}: another delta to an upstream that forgets")

    def hit(self, connection: int, what: str) -> None:
        """From now on turns of this connection may fail."""
        self.hits[connection].append(what)
        self.counts[f"strike {what}"] += 1
        self.note("strike", what, f"on connection {connection}")
