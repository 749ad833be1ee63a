"""What is looked at now and then: age, idleness, successors, old conversations."""

from __future__ import annotations

from typing import Final

from wsproxy.core.multiplex.alarms import Kind
from wsproxy.core.multiplex.board import Board
from wsproxy.core.multiplex.connection import Connection
from wsproxy.core.multiplex.judging import Judging

#: Connections and conversations are looked at this often; every age limit is minutes.
UPKEEP_S: Final = 5.0
#: A successor is dialled so long before it is needed: two slow handshakes (contract §3).
AHEAD_S: Final = 30.0


class Upkeep:
    """Keeps the pool young and small."""

    def __init__(self, board: Board, judging: Judging) -> None:
        self._board = board
        self._judging = judging
        self._next_at = 0.0

    def soon(self) -> None:
        """Look after this event: the clock has jumped."""
        self._next_at = 0.0

    def look(self, now: float) -> None:
        """Do it, if it is time."""
        if now < self._next_at:
            return
        self._next_at = now + UPKEEP_S
        board = self._board
        for connection in list(board.pool.connections):
            if self._is_outlived(connection, now):
                self._judging.outlived(connection, now)
            elif connection.is_open and now >= connection.retire_at:
                board.retire(connection, detail="age")
        for connection in board.pool.expired(now):
            board.close(connection)
        self._replace(now)
        board.history.expire(now)

    def set_alarm(self) -> None:
        """Look again in time, as long as there is something to look at."""
        if self._board.pool.connections and not self._board.alarms.is_set(Kind.UPKEEP):
            self._board.alarms.set(self._next_at, Kind.UPKEEP)

    def _is_outlived(self, connection: Connection, now: float) -> bool:
        return now >= connection.opened_at + self._board.options.connection.max_life_s

    def _replace(self, now: float) -> None:
        """Dial the successors of connections that will soon be too old, for the same sessions."""
        board = self._board
        if board.drain_deadline is not None:
            return
        for connection in board.pool.ageing(now, AHEAD_S, self._due_at):
            key = connection.key
            doubt = board.beliefs.doubt(key)
            is_doubted = doubt is not None and now < doubt.until
            is_too_soon = is_doubted or now < board.pace.dial_from(key, now)
            if is_too_soon or not board.pool.has_room_for(key):
                continue
            latest = next(reversed(connection.sessions))
            successor = board.open(key, latest, now)
            for session in connection.sessions:
                successor.preferred_by(session)
            connection.successor = successor.id

    def _due_at(self, connection: Connection) -> float:
        longest = self._board.beliefs.longest_turn_s
        return connection.due_at(max(longest(connection.key, s) for s in connection.sessions))
