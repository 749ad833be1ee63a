"""What the shells tell the core: one of its two doors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wsproxy.core.api.events import Received
from wsproxy.core.api.items import Item
from wsproxy.core.conversation.transcript import Transcript
from wsproxy.core.ids import ConnectionId, Digest, PoolKey, SessionName, TurnId
from wsproxy.core.multiplex.recovery import Fault


@dataclass(frozen=True, slots=True)
class TurnArrived:
    """A request fit for the WebSocket has been read to its end.

    `hint` is the source and keyed name of its session header, else of its `prompt_cache_key`.
    `own_parent` is the `previous_response_id` the client sent (raw, null included).
    """

    turn: TurnId
    key: PoolKey
    hint: tuple[str, SessionName] | None
    transcript: Transcript
    fields: Mapping[str, Digest]
    is_streaming: bool
    own_parent: bytes | None
    frame_bytes: int


@dataclass(frozen=True, slots=True)
class ConnectionOpened:
    """The upgrade was accepted. `jitter_s` is a random share of the age limit."""

    connection: ConnectionId
    jitter_s: float


@dataclass(frozen=True, slots=True)
class DialFailed:
    """No connection came of it; `retry_after_s` as upstream asked, if it did. `jitter` is a random
    number from 0 to 1: the core has none of its own."""

    connection: ConnectionId
    fault: Fault
    status: int | None
    retry_after_s: float | None
    detail: str
    jitter: float = 0.0


@dataclass(frozen=True, slots=True)
class FrameSent:
    """The last byte of the turn's frame has left our buffers."""

    turn: TurnId
    connection: ConnectionId


@dataclass(frozen=True, slots=True)
class PongReceived:
    """The road is proven."""

    connection: ConnectionId


@dataclass(frozen=True, slots=True)
class TurnStarted:
    """The first event of a turn. `has_echo`: it carried its lane's `stream_id`."""

    connection: ConnectionId
    turn: TurnId
    received: Received
    has_echo: bool


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """A terminal event. `outputs` are the items of a completed response in order, each in the
    versions seen; None if one is missing or cannot be known again."""

    connection: ConnectionId
    turn: TurnId
    received: Received
    is_first: bool
    has_echo: bool
    response_id: str | None
    outputs: Sequence[Sequence[Item]] | None
    tokens: tuple[int, int] | None = None  # read, and written visibly, where upstream said so


@dataclass(frozen=True, slots=True)
class ErrorReceived:
    """An `error` frame. `turn` is None if it names none: it is the connection's."""

    connection: ConnectionId
    turn: TurnId | None
    received: Received
    is_first: bool
    has_echo: bool


@dataclass(frozen=True, slots=True)
class ContextLost:
    """The tripwire: upstream says it continued from another response than the one we named."""

    connection: ConnectionId
    turn: TurnId


@dataclass(frozen=True, slots=True)
class MessageRefused:
    """A message that cannot be accepted or attributed (F18, F21, F22)."""

    connection: ConnectionId
    fault: Fault
    detail: str


@dataclass(frozen=True, slots=True)
class ConnectionLost:
    """It is over. `unsent`: turns whose frame had not wholly left; `jitter` as in `DialFailed`."""

    connection: ConnectionId
    fault: Fault
    detail: str
    unsent: Sequence[TurnId]
    jitter: float = 0.0


@dataclass(frozen=True, slots=True)
class ConnectionAborted:
    """It was dropped, as the core said; follows each `AbortConnection`, before any other event.

    `unsent`: turns of whose frame not a byte has left, nor ever will.
    """

    connection: ConnectionId
    unsent: Sequence[TurnId]


@dataclass(frozen=True, slots=True)
class ClientLeft:
    """The agent closed its connection before the answer's end, or is to be cut (F39, F47)."""

    turn: TurnId
    fault: Fault = Fault.CLIENT_LEFT


@dataclass(frozen=True, slots=True)
class ProbeAnswered:
    """What the chain probe brought on the connection of its own; None: nothing in time."""

    connection: ConnectionId
    looks_up_ids: bool | None


@dataclass(frozen=True, slots=True)
class Tick:
    """A deadline may have passed."""


@dataclass(frozen=True, slots=True)
class DrainBegun:
    """Nothing new is accepted; `deadline` is when what still runs is cut."""

    deadline: float


@dataclass(frozen=True, slots=True)
class LoadChanged:
    """The event loop stalls, or all buffers together are full (F47); or no longer."""

    is_overloaded: bool


@dataclass(frozen=True, slots=True)
class Slept:
    """Wall clock and monotonic clock disagree by `for_s`: the machine slept meanwhile, and no
    connection is trusted."""

    for_s: float = 0.0


Event = (
    TurnArrived
    | ConnectionOpened
    | DialFailed
    | FrameSent
    | PongReceived
    | TurnStarted
    | TurnEnded
    | ErrorReceived
    | ContextLost
    | MessageRefused
    | ConnectionLost
    | ConnectionAborted
    | ClientLeft
    | ProbeAnswered
    | Tick
    | DrainBegun
    | LoadChanged
    | Slept
)
