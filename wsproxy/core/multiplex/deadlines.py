"""What must happen by when: events of a running turn, pongs, the proof of a road.

A model that thinks for ten minutes is left alone: the late pong of a connection in use is only
noted (F05), dead paths are the kernel's to tell (F04) wherever it can.
"""

from __future__ import annotations

from wsproxy.core.commands import Note, SendPing
from wsproxy.core.ids import ConnectionId, TurnId
from wsproxy.core.multiplex.alarms import Kind
from wsproxy.core.multiplex.board import Board
from wsproxy.core.multiplex.connection import Connection
from wsproxy.core.multiplex.judging import Judging
from wsproxy.core.multiplex.recovery import Fault, Phase
from wsproxy.core.multiplex.relay import Stream


class Deadlines:
    """Sets the alarms of turns and roads, and answers them."""

    def __init__(self, board: Board, judging: Judging) -> None:
        self._board = board
        self._judging = judging

    # ── Turns ────────────────────────────────────────────────────────────────────────────────

    def watch(self, turn: TurnId, stream: Stream) -> None:
        """Look at a running turn when its next deadline may have passed; 0 means none."""
        limit_s = self._limit_s(stream)
        if limit_s:
            self._board.alarms.set(stream.heard_at + limit_s, Kind.EVENTS, turn)
        else:
            self._board.alarms.cancel(Kind.EVENTS, turn)

    def _limit_s(self, stream: Stream) -> float:
        options = self._board.options
        return options.event_idle_timeout_s if stream.is_started else options.first_event_timeout_s

    def events_due(self, id_: TurnId, now: float) -> None:
        """No first event, or silence between events, for too long (F06, F07)."""
        found = self._board.find(id_)
        if found is None:
            return
        connection, stream = found
        if now < stream.heard_at + self._limit_s(stream):
            self.watch(id_, stream)  # events need not ring: they only move this forward
            return
        turn = self._board.turns.get(id_)
        if turn is not None and turn.phase is Phase.ADMITTED:
            self._judging.cut(connection, Fault.PATH_DEAD, "upstream takes no bytes", now)
            return
        fault = Fault.IDLE_TIMEOUT if stream.is_started else Fault.FIRST_EVENT_TIMEOUT
        if turn is not None:
            self._judging.late(turn, fault, "upstream was silent", now)
        self._board.retire(connection, fault)

    # ── Roads ────────────────────────────────────────────────────────────────────────────────

    def watch_road(self, connection: Connection, now: float) -> None:
        """Set the next keepalive; a frame sent meanwhile tells as much as a ping."""
        options = self._board.options
        interval_s = options.ping_idle_s if connection.is_idle else options.ping_busy_s
        self._board.alarms.set(now + interval_s, Kind.PING, connection.id)

    def ping_due(self, id_: ConnectionId, now: float) -> None:
        """Keep the road known to whoever is in between, and give the kernel bytes to miss."""
        connection = self._board.pool.get(id_)
        if connection is None:
            return
        if connection.is_dead(now, self._board.options.dead_after_silence_s):
            self._judging.cut(connection, Fault.PATH_DEAD, "nothing was heard", now)
            return
        is_sending = any(t.phase is Phase.ADMITTED for t in self._board.on(connection))
        if not is_sending:  # behind a large frame a ping would be late by no fault of the path
            if connection.pinged_at is not None:
                self._board.say(Note("pong.late", None, id_, Fault.PONG_MISSING.value))
            connection.pinged(now)
            self._board.say(SendPing(id_))
        self.watch_road(connection, now)

    def ponged(self, id_: ConnectionId, now: float) -> None:
        """The road is proven."""
        connection = self._board.pool.get(id_)
        if connection is not None:
            connection.ponged(now)
            self._board.alarms.cancel(Kind.PROBE, id_)

    def probe_due(self, id_: ConnectionId) -> None:
        """The road was not proven in time: turns go elsewhere (F05)."""
        connection = self._board.pool.get(id_)
        if connection is None or connection.probing_since is None:
            return
        if connection.is_idle:
            self._board.abort(connection)
        else:
            self._board.retire(connection, Fault.PONG_MISSING)
