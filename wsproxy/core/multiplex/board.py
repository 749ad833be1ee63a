"""What runs where: all turns and connections, and the moves that keep them consistent.

Rules of this file
------------------
1. A turn leaves `turns` in `forget`, a connection leaves the pool in `gone`, a lane is given back
   in `settle`: nowhere else.
2. A move says what it does (`say`); the caller of the core performs the commands in order.
3. A connection that nobody waits for and that takes nothing new is closed here, at once.
4. A move that may serve a waiting turn is noted (`has_moved`).
"""

from __future__ import annotations

from wsproxy.core.commands import (
    AbortConnection,
    CloseConnection,
    Command,
    Note,
    OpenConnection,
    SendOverHttps,
)
from wsproxy.core.conversation.history import Checkpoint, History
from wsproxy.core.conversation.plan import Why
from wsproxy.core.ids import ConnectionId, PoolKey, SessionName, TurnId
from wsproxy.core.multiplex.alarms import Alarms, Kind
from wsproxy.core.multiplex.beliefs import Beliefs
from wsproxy.core.multiplex.connection import Connection, State
from wsproxy.core.multiplex.dial_pace import DialPace
from wsproxy.core.multiplex.options import Options
from wsproxy.core.multiplex.pool import Pool
from wsproxy.core.multiplex.recovery import Fault
from wsproxy.core.multiplex.relay import Relay, Stream
from wsproxy.core.multiplex.turn import Turn


class Board:
    """The core's whole mutable state."""

    def __init__(self, options: Options, history: History) -> None:
        self.options = options
        self.history = history
        self.pool = Pool(options.pool)
        self.pace = DialPace()
        self.alarms = Alarms()
        self.beliefs = Beliefs(
            lanes=options.lanes,
            chains=options.chains,
            no_websocket_key_s=options.no_websocket_key_s,
            no_websocket_url_s=options.no_websocket_url_s,
        )
        self.turns: dict[TurnId, Turn] = {}
        self.waiting: dict[TurnId, None] = {}  # oldest first
        self.relays: dict[ConnectionId, Relay] = {}
        self.drain_deadline: float | None = None
        self.is_overloaded = False
        self.has_moved = False
        self._numbered = 0
        self._said: list[Command] = []

    def __repr__(self) -> str:
        turns = list(self.turns.values())
        return f"<Board {turns!r} waiting={len(self.waiting)} {self.pool!r}>"

    def say(self, command: Command) -> None:
        """Have this done."""
        self._said.append(command)

    def take_said(self) -> list[Command]:
        """What is to be done, in order."""
        said, self._said = self._said, []
        return said

    def take_moved(self) -> bool:
        """Whether anything opened, closed or came free since this was last asked."""
        has_moved, self.has_moved = self.has_moved, False
        return has_moved

    # ── Looking ──────────────────────────────────────────────────────────────────────────────

    def of(self, turn: Turn) -> Connection | None:
        """The connection that a turn was handed to, if it is there."""
        return self.pool.get(turn.connection) if turn.connection is not None else None

    def on(self, connection: Connection) -> list[Turn]:
        """Turns on a connection that somebody waits for."""
        return [turn for turn in self.turns.values() if turn.connection == connection.id]

    def find(self, turn: TurnId) -> tuple[Connection, Stream] | None:
        """Where a turn runs, also one that nobody waits for any more."""
        for connection in self.pool.connections:
            stream = self.relays[connection.id].find(turn)
            if stream is not None:
                return connection, stream
        return None

    # ── Connections ──────────────────────────────────────────────────────────────────────────

    def open(
        self, key: PoolKey, session: SessionName, now: float, *, is_chain_probe: bool = False
    ) -> Connection:
        """Dial."""
        self.has_moved = True
        self._numbered += 1
        connection = Connection(
            ConnectionId(self._numbered),
            key,
            session,
            now,
            limits=self.options.connection,
            belief=self.beliefs.of(key).lanes,
            is_chain_probe=is_chain_probe,
        )
        self.pool.add(connection)
        self.relays[connection.id] = Relay(connection.id, self.options.turn)
        self.pace.dialled(key, now)
        self.say(OpenConnection(connection.id, key))
        return connection

    def close(self, connection: Connection) -> None:
        """Close in the regular way; nothing runs on it."""
        assert connection.is_idle, repr(connection)
        self.say(CloseConnection(connection.id))
        self.gone(connection)

    def abort(self, connection: Connection) -> None:
        """Drop at once: the only cancel that upstream knows."""
        self.say(AbortConnection(connection.id))
        self.gone(connection)

    def gone(self, connection: Connection) -> None:
        """It is over, and so is everything upstream remembered on it."""
        self.has_moved = True
        connection.closed()
        self.pool.remove(connection)
        del self.relays[connection.id]
        for kind in (Kind.PING, Kind.PROBE, Kind.CHAIN_PROBE):
            self.alarms.cancel(kind, connection.id)
        for turn in connection.running():
            self.alarms.cancel(Kind.EVENTS, turn)

    def retire(self, connection: Connection, fault: Fault | None = None, detail: str = "") -> None:
        """No new turns; closed when empty."""
        if not connection.is_open:
            return
        self.has_moved = True
        connection.retire()
        what = fault.value if fault is not None else None
        self.say(Note("connection.retired", None, connection.id, what, detail))
        self._tidy(connection)

    def _tidy(self, connection: Connection) -> None:
        if connection.state is not State.RETIRED:
            return
        if connection.is_idle:
            self.close(connection)
        elif not connection.is_live:
            self.abort(connection)

    # ── Turns ────────────────────────────────────────────────────────────────────────────────

    def settle(
        self,
        id_: ConnectionId,
        turn: TurnId,
        checkpoint: Checkpoint | None,
        now: float,
        response_id: str | None = None,
    ) -> None:
        """Give a lane back: warm with the checkpoint, or cold."""
        self.alarms.cancel(Kind.EVENTS, turn)
        connection = self.pool.get(id_)
        if connection is None:
            return
        self.has_moved = True
        self.relays[id_].remove(turn)
        connection.settle(turn, checkpoint, response_id, now)
        self._tidy(connection)

    def forget(self, turn: Turn) -> None:
        """The turn has its answer; if upstream still works on it, its lane drains and goes cold."""
        del self.turns[turn.id]
        self.waiting.pop(turn.id, None)
        self.alarms.cancel(Kind.WAIT, turn.id)
        connection = self.of(turn)
        if connection is not None and connection.abandon(turn.id):
            assert turn.stream is not None
            turn.stream.is_discarding = True
            self._tidy(connection)

    def take_back(self, turn: Turn, now: float) -> None:
        """The turn did not run: off its lane, and back into our queue."""
        id_ = turn.connection
        turn.taken_back(now)
        self.waiting[turn.id] = None
        self.has_moved = True
        if id_ is not None:
            self.settle(id_, turn.id, None, now)

    def over_https(self, turn: Turn, reason: str) -> None:
        """The same request over HTTPS; it did not run and will not."""
        assert self.of(turn) is None, repr(turn)
        self.say(SendOverHttps(turn.id, Why(reason)))
        self.forget(turn)
