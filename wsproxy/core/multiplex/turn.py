"""One downstream request and its one answer.

ADMITTED ──sent──▶ SENT ──first event──▶ STARTED ──terminal──▶ FINISHED
    ▲───────────────┴ retried, at most once after a refusal
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from wsproxy.core.conversation.history import Reading
from wsproxy.core.conversation.plan import Continuation, Route, Why
from wsproxy.core.conversation.transcript import Transcript
from wsproxy.core.ids import ConnectionId, Digest, LaneName, PoolKey, SessionName, TurnId
from wsproxy.core.multiplex.connection import DEFAULT_LANE
from wsproxy.core.multiplex.pool import Need, Use
from wsproxy.core.multiplex.recovery import Fault, Phase
from wsproxy.core.multiplex.relay import Stream

#: A turn that could not be written on this many connections goes over HTTPS.
MAX_ATTEMPTS: Final = 3


@dataclass(slots=True, eq=False)
class Turn:
    """What the core knows of a turn; the body itself stays in the shell."""

    id: TurnId
    key: PoolKey
    session: SessionName
    transcript: Transcript
    fields: Mapping[str, Digest]
    reading: Reading
    continuation: Continuation
    is_streaming: bool
    own_parent: bytes | None
    frame_bytes: int
    queued_at: float

    phase: Phase = Phase.ADMITTED
    connection: ConnectionId | None = None
    lane: LaneName = DEFAULT_LANE
    route: Route = Route.NONE
    why: Why | None = None
    parent: str | None = None  # the id that we added; None on a full send
    is_by_id: bool = False  # that parent was not warm there: upstream must have stored it
    delta_from: int = 0
    attempts: int = 0
    was_refused: bool = False  # it has had its one retry
    waits_for_discovery: bool = True
    need: Need | None = None  # what it waits for in our queue
    need_since: float = 0.0
    waits_on: ConnectionId | None = None
    sent_at: float | None = None
    stream: Stream | None = None
    conversation: int | None = None  # which one it extends or began, for the trace
    faults: list[str] = field(default_factory=list)
    cut_by: tuple[Fault, str] | None = None  # while it is asked what had left when we cut

    def __repr__(self) -> str:
        where = f" on {self.connection}/{self.lane or 'default'}" if self.connection else ""
        return f"<Turn {self.id} {self.phase.name.lower()} {self.route.value}{where}>"

    @property
    def waiting_since(self) -> float | None:
        """Since when it has been in our queue; None where it runs upstream."""
        return self.queued_at if self.connection is None else None

    @property
    def is_ours(self) -> bool:
        """Whether we turned it into a delta or fork, so that a refusal may be our doing."""
        return self.parent is not None

    @property
    def is_spent(self) -> bool:
        """Whether it has been handed to as many connections as it may."""
        return self.attempts >= MAX_ATTEMPTS

    def needs(self, need: Need, on: ConnectionId | None, now: float) -> None:
        """It waits in our queue; the clock starts anew when it waits for something else."""
        if need is not self.need:
            self.need, self.need_since = need, now
        self.waits_on = on

    def placed(self, use: Use, stream: Stream) -> None:
        """It is about to be sent there."""
        candidate = use.candidate
        self.connection, self.lane, self.route = use.connection.id, use.lane, use.route
        self.parent = candidate.checkpoint.response_id if candidate else None
        self.delta_from = candidate.delta_from if candidate else 0
        self.is_by_id, self.stream = use.is_by_id, stream
        self.attempts += 1
        self.need = self.waits_on = None
        self.why = self.continuation.why_full if use.route is Route.FULL else None

    def taken_back(self, now: float) -> None:
        """It did not run there and may be sent again."""
        self.phase, self.queued_at = Phase.ADMITTED, now
        self.connection, self.parent, self.sent_at, self.stream = None, None, None, None
        self.cut_by = None
