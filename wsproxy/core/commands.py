"""What the core asks of the driver: the other of its two doors."""

from __future__ import annotations

from dataclasses import dataclass

from wsproxy.core.api.errors import UpstreamError
from wsproxy.core.api.events import Received
from wsproxy.core.conversation.plan import Route, Why
from wsproxy.core.ids import ConnectionId, LaneName, PoolKey, TurnId
from wsproxy.core.multiplex.relay import Stream


@dataclass(frozen=True, slots=True)
class OpenConnection:
    """Dial, as the identity of this pool key."""

    connection: ConnectionId
    key: PoolKey


@dataclass(frozen=True, slots=True)
class CloseConnection:
    """Close in the regular way."""

    connection: ConnectionId
    code: int = 1000
    reason: str = ""


@dataclass(frozen=True, slots=True)
class AbortConnection:
    """Drop at once; nothing more is heard of it."""

    connection: ConnectionId


@dataclass(frozen=True, slots=True)
class SendTurn:
    """Send the turn's `response.create`; its events gather in `stream` from now on."""

    turn: TurnId
    connection: ConnectionId
    lane: LaneName
    parent: str | None
    delta_from: int
    route: Route
    why: Why | None
    stream: Stream


@dataclass(frozen=True, slots=True)
class SendChainProbe:
    """Ask whether unknown ids are refused (contract §3), in the name of this key."""

    connection: ConnectionId
    key: PoolKey


@dataclass(frozen=True, slots=True)
class SendPing:
    """Ping; the pong comes back as an event."""

    connection: ConnectionId


@dataclass(frozen=True, slots=True)
class SendOverHttps:
    """The same request over HTTPS, its answer relayed verbatim."""

    turn: TurnId
    why: Why


@dataclass(frozen=True, slots=True)
class Answer:
    """Write the head of a streamed answer; what its stream has gathered follows."""

    turn: TurnId


@dataclass(frozen=True, slots=True)
class Finish:
    """The answer is whole: end the stream, or write the one document of `received`."""

    turn: TurnId
    received: Received


@dataclass(frozen=True, slots=True)
class RelayError:
    """Upstream's own verdict: an HTTP status, or the flat event once the stream has begun."""

    turn: TurnId
    error: UpstreamError


@dataclass(frozen=True, slots=True)
class RefuseTurn:
    """An HTTP error of ours. `is_outcome_unknown`: upstream may have run it."""

    turn: TurnId
    status: int
    code: str
    message: str
    is_outcome_unknown: bool = False
    retry_after_s: float | None = None
    should_retry: bool | None = None


@dataclass(frozen=True, slots=True)
class BreakTurn:
    """Flat error event and TCP abort; 502 if nothing had been written."""

    turn: TurnId
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Note:
    """A fact for the log; `is_warning`: somebody may want to do something about it."""

    event: str
    turn: TurnId | None = None
    connection: ConnectionId | None = None
    fault: str | None = None
    detail: str = ""
    is_warning: bool = False


Command = (
    OpenConnection
    | CloseConnection
    | AbortConnection
    | SendTurn
    | SendChainProbe
    | SendPing
    | SendOverHttps
    | Answer
    | Finish
    | RelayError
    | RefuseTurn
    | BreakTurn
    | Note
)
