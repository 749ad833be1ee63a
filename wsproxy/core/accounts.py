"""What turns cost, and when: read off the core's two doors while they run, for the trace.

Only assignments happen here, one a step of a turn and none an event of its answer. Times are
seconds of the clock that the core is told, None until it happens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from wsproxy.core.api.request import Request
from wsproxy.core.commands import (
    AbortConnection,
    BreakTurn,
    CloseConnection,
    Command,
    Finish,
    Note,
    OpenConnection,
    RefuseTurn,
    RelayError,
    SendOverHttps,
    SendTurn,
)
from wsproxy.core.conversation.plan import Route, Why
from wsproxy.core.events import (
    ClientLeft,
    ConnectionLost,
    ConnectionOpened,
    DialFailed,
    Event,
    TurnArrived,
)
from wsproxy.core.ids import ConnectionId, LaneName, PoolKey, SessionName, TurnId
from wsproxy.core.multiplex.relay import Stream
from wsproxy.core.multiplex.turn import Turn

_NO_KEY: Final = PoolKey(b"")
_NO_SESSION: Final = SessionName(b"")
_NO_LANE: Final = LaneName("")
#: Codes of `ports.RestError` that come before a byte of the request has left.
NOT_SENT: Final = frozenset({"upstream_unreachable", "upstream_tls", "proxy_overloaded"})


@dataclass(slots=True, eq=False)
class TurnAccount:
    """One turn. `http_bytes` is the size of the request that the client sent, head and body.

    `turn` and `stream` are the core's own views of it; `settle` takes what it needs from them
    and lets go of them. `request`, `headers` and `outputs` are for whoever traces bodies.
    """

    id: TurnId
    received: float
    http_bytes: int
    headers: Sequence[tuple[bytes, bytes]] = field(default=(), repr=False)
    request: Request | None = field(default=None, repr=False)
    turn: Turn | None = None
    stream: Stream | None = field(default=None, repr=False)

    key: PoolKey = _NO_KEY
    session: SessionName = _NO_SESSION
    hint: str = ""
    model: bytes = b""
    item_count: int = 0
    is_streaming: bool = False

    route: Route = Route.NONE
    why: Why | None = None
    connection: ConnectionId | None = None
    lane: LaneName = _NO_LANE
    delta_from: int = 0
    conversation: int | None = None
    sends: int = 0
    frame_bytes: int = 0
    is_compressed: bool = False
    faults: Sequence[str] = ()

    matched: float | None = None
    placed: float | None = None
    sent: float | None = None
    first_event: float | None = None
    first_output: float | None = None
    done: float | None = None

    outcome: str = ""
    status: int | None = None
    code: str = ""
    event_count: int = 0
    down_bytes: int = 0
    terminal: bytes = field(default=b"", repr=False)
    outputs: Sequence[bytes] = field(default=(), repr=False)

    def asked_by(self, key: PoolKey, hint: tuple[str, SessionName] | None) -> None:
        """Whose it is, whichever way it goes: two keys never share a trace (contract §3)."""
        self.key = key
        if hint is not None:
            self.hint, self.session = hint

    def asked(self, event: TurnArrived, request: Request) -> None:
        """The request could be taken apart."""
        self.asked_by(event.key, event.hint)
        self.request = request
        self.model = request.value("model") or b""
        self.item_count = len(event.transcript)
        self.is_streaming = event.is_streaming

    def over_https(self, why: Why) -> None:
        """It goes, or went, that way."""
        self.route, self.why, self.delta_from = Route.HTTP, why, 0

    def heard_over_https(self, size: int, now: float) -> None:
        """A part of an answer came that way: its body is not taken apart."""
        if self.first_event is None:
            self.first_event = now
        self.down_bytes += size

    def ended(self, outcome: str, status: int | None = None, code: str = "") -> None:
        """It has its answer. The first word counts: a client may leave after it."""
        if not self.outcome:
            self.outcome, self.status, self.code = outcome, status, code

    def sent_bytes(self) -> tuple[int, int]:
        """What plain HTTP would have sent up, and what was sent; zeros if nothing was."""
        if self.route is Route.HTTP:
            size = 0 if self.code in NOT_SENT else self.http_bytes
            return size, size
        return (self.http_bytes, self.frame_bytes) if self.frame_bytes else (0, 0)

    def settle(self, now: float) -> None:
        """It is over: take what the core knows of it."""
        self.done = now
        turn, stream = self.turn, self.stream
        if turn is not None:
            self.session, self.sent = turn.session, self.sent or turn.sent_at
            self.conversation, self.faults = turn.conversation, tuple(turn.faults)
        if stream is not None and self.route is not Route.HTTP:
            self.event_count, self.down_bytes = stream.event_count, stream.upstream_bytes
            self.first_event, self.first_output = stream.first_event_at, stream.first_output_at
            self.outputs = [item for _, item in stream.done]
        self.turn = self.stream = None


@dataclass(frozen=True, slots=True)
class ConnectionChange:
    """A connection was `opened`, `refused`, `retired`, `lost` or `closed`.

    `took_s` is the handshake's time for the first two, else the connection's age.
    """

    connection: ConnectionId
    key: PoolKey
    change: str
    took_s: float
    is_compressed: bool = False
    fault: str = ""
    status: int | None = None


class Tracer(Protocol):
    """Who is told of turns and connections. Its methods return at once and never raise."""

    def turn_ended(self, account: TurnAccount) -> None:
        """A turn is over. The account may be kept, and its large parts let go of."""

    def connection_changed(self, change: ConnectionChange) -> None:
        """A connection has come, gone, or takes no more turns."""


class Doors(Protocol):
    """Who watches the core's doors, to run it again. Its methods return at once, never raise."""

    def heard(self, connection: ConnectionId, now: float) -> None:
        """Bytes came in; called once a read."""

    def handled(self, event: Event, now: float, commands: Sequence[Command]) -> None:
        """The core took this event at this time of its clock, and gave these commands."""


@dataclass(slots=True)
class _Dialled:
    key: PoolKey
    at: float
    is_compressed: bool = False


class Accounts:
    """The accounts of all running turns and connections; shows them to `tracers` at their end."""

    def __init__(self, turns: Mapping[TurnId, Turn], tracers: Sequence[Tracer] = ()) -> None:
        """`turns`: the core's own table."""
        self._turns = turns
        self._tracers = tracers
        self._running: dict[TurnId, TurnAccount] = {}
        self._connections: dict[ConnectionId, _Dialled] = {}

    # ── Told by the driver ───────────────────────────────────────────────────────────────────

    def begin(self, account: TurnAccount) -> None:
        """A request has been read to its end."""
        self._running[account.id] = account

    def framed(self, turn: TurnId, frame_bytes: int, now: float) -> None:
        """Its frame is handed to a connection."""
        account = self._running[turn]
        account.placed = now
        account.frame_bytes += frame_bytes

    def compressed(self, connection: ConnectionId) -> None:
        """permessage-deflate was agreed upon."""
        if connection in self._connections:
            self._connections[connection].is_compressed = True

    def leave(self, turn: TurnId) -> TurnAccount:
        """The driver is through with it."""
        return self._running.pop(turn)

    def end(self, account: TurnAccount, now: float) -> None:
        """The turn is over."""
        account.settle(now)
        for tracer in self._tracers:
            tracer.turn_ended(account)

    # ── Read off the doors ───────────────────────────────────────────────────────────────────

    def handled(self, event: Event, commands: Sequence[Command], now: float) -> None:
        """The core has answered an event; its commands are about to be performed."""
        match event:
            case TurnArrived() if event.turn in self._running:
                account = self._running[event.turn]
                account.matched, account.turn = now, self._turns.get(event.turn)
            case ClientLeft() if event.turn in self._running:
                self._running[event.turn].ended("client_left", None, event.fault.value)
            case ConnectionOpened():
                self._changed(event.connection, "opened", now)
            case DialFailed():
                self._gone(event.connection, "refused", now, event.fault.value, event.status)
            case ConnectionLost():
                self._gone(event.connection, "lost", now, event.fault.value)
            case _:
                pass
        for command in commands:
            self._ordered(command, now)

    def _ordered(self, command: Command, now: float) -> None:
        match command:
            case OpenConnection(connection, key):
                self._connections[connection] = _Dialled(key, now)
            case CloseConnection(connection) | AbortConnection(connection):
                self._gone(connection, "closed", now)
            case Note("connection.retired", connection=connection_, fault=fault):
                self._changed(connection_, "retired", now, fault or "")
            case SendTurn() if command.turn in self._running:
                self._sent(self._running[command.turn], command)
            case Finish() | RelayError() | RefuseTurn() | BreakTurn() | SendOverHttps():
                if command.turn in self._running:
                    _answered(self._running[command.turn], command)
            case _:
                pass

    def _sent(self, account: TurnAccount, command: SendTurn) -> None:
        account.route, account.why = command.route, command.why
        account.connection, account.lane = command.connection, command.lane
        account.delta_from, account.stream = command.delta_from, command.stream
        account.sends += 1
        dialled = self._connections.get(command.connection)
        account.is_compressed = dialled is not None and dialled.is_compressed

    def _gone(
        self,
        connection: ConnectionId,
        change: str,
        now: float,
        fault: str = "",
        status: int | None = None,
    ) -> None:
        self._changed(connection, change, now, fault, status)
        self._connections.pop(connection, None)

    def _changed(
        self,
        connection: ConnectionId | None,
        change: str,
        now: float,
        fault: str = "",
        status: int | None = None,
    ) -> None:
        dialled = self._connections.get(connection) if connection is not None else None
        if connection is None or dialled is None:
            return
        told = ConnectionChange(
            connection, dialled.key, change, now - dialled.at, dialled.is_compressed, fault, status
        )
        for tracer in self._tracers:
            tracer.connection_changed(told)


def _answered(
    account: TurnAccount, command: Finish | RelayError | RefuseTurn | BreakTurn | SendOverHttps
) -> None:
    match command:
        case Finish():
            account.terminal = command.received.payload
            account.ended(command.received.type.rpartition(".")[2], 200)
        case RelayError():
            account.ended("error", command.error.status, command.error.code or "")
        case RefuseTurn():
            account.route, account.why = Route.NONE, Why(command.code)
            account.ended("refused", command.status, command.code)
        case BreakTurn():
            account.ended("broken", None, command.code)
        case SendOverHttps():
            account.over_https(command.why)
