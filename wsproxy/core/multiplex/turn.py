"""One downstream request and its one answer.

    ADMITTED ──sent──▶ SENT ──first event──▶ STARTED ──terminal──▶ FINISHED
        ▲───────────────┴ retried, at most once after a refusal
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from wsproxy.core.conversation.history import Reading
from wsproxy.core.conversation.plan import Continuation, Route, Why
from wsproxy.core.conversation.transcript import Transcript
from wsproxy.core.ids import ConnectionId, Digest, LaneName, PoolKey, SessionName, TurnId
from wsproxy.core.multiplex.connection import DEFAULT_LANE
from wsproxy.core.multiplex.recovery import Phase
from wsproxy.core.multiplex.relay import Stream

#: A turn that could not be written on this many connections goes over HTTPS.
MAX_ATTEMPTS = 3


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
    admitted_at: float

    phase: Phase = Phase.ADMITTED
    connection: ConnectionId | None = None
    lane: LaneName = DEFAULT_LANE
    route: Route = Route.NONE
    why: Why | None = None
    parent: str | None = None  # the id that we added; None on a full send
    delta_from: int = 0
    attempts: int = 0
    was_refused: bool = False  # it has had its one retry
    avoids_lanes: bool = False
    waits_for_discovery: bool = True
    waiting_since: float | None = None
    sent_at: float | None = None
    stream: Stream | None = None
    faults: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        where = f" on {self.connection}/{self.lane or 'default'}" if self.connection else ""
        return f"<Turn {self.id} {self.phase.name.lower()} {self.route.value}{where}>"

    @property
    def is_ours(self) -> bool:
        """Whether we turned it into a delta or fork, so that a refusal may be our doing."""
        return self.parent is not None

    def placed(
        self,
        connection: ConnectionId,
        lane: LaneName,
        route: Route,
        *,
        parent: str | None,
        delta_from: int,
    ) -> None:
        """It is about to be sent there."""
        self.connection, self.lane, self.route = connection, lane, route
        self.parent, self.delta_from = parent, delta_from
        self.attempts += 1
        self.waiting_since = None
        self.why = self.continuation.why_full if route is Route.FULL else None

    def taken_back(self) -> None:
        """It did not run there and may be sent again."""
        self.phase = Phase.ADMITTED
        self.connection, self.parent, self.sent_at, self.stream = None, None, None, None
