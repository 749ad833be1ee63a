"""Does upstream look up `previous_response_id`? Asked once a key, off every turn's path (§3)."""

from __future__ import annotations

from wsproxy.core.commands import Note, SendChainProbe
from wsproxy.core.events import ProbeAnswered
from wsproxy.core.ids import ConnectionId, PoolKey, SessionName
from wsproxy.core.multiplex.alarms import Kind
from wsproxy.core.multiplex.board import Board
from wsproxy.core.multiplex.connection import Connection


class ChainProbes:
    """Each probe has a connection of its own, which no turn ever sees."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def ask(self, key: PoolKey, now: float) -> None:
        """Dial for a probe, if one is due and it takes nothing from the turns."""
        board = self._board
        if not board.beliefs.is_chain_probe_due(key, now) or board.drain_deadline is not None:
            return
        is_full = len(board.pool.connections) >= board.options.pool.max_total
        if is_full or now < board.pace.dial_from(key, now):
            return
        if any(connection.is_open for connection in board.pool.of_key(key)):
            board.beliefs.chains_asked(key, now)
            board.open(key, SessionName(b""), now, is_chain_probe=True)

    def opened(self, connection: Connection, now: float) -> None:
        """Ask."""
        self._board.say(SendChainProbe(connection.id, connection.key))
        wait_s = self._board.options.chain_probe_wait_s
        self._board.alarms.set(now + wait_s, Kind.CHAIN_PROBE, connection.id)

    def answered(self, event: ProbeAnswered, now: float) -> None:
        """Only a refusal in the manner of `previous_response_not_found` proves anything."""
        connection = self._board.pool.get(event.connection)
        if connection is None:
            return
        self._board.abort(connection)
        chains = self._board.beliefs.chains_probed(connection.key, event.looks_up_ids, now)
        self._board.say(Note(f"chains.{chains.name.lower()}", connection=connection.id))

    def overdue(self, id_: ConnectionId, now: float) -> None:
        """Nothing came in time: that proves nothing."""
        self.answered(ProbeAnswered(id_, None), now)

    def untold(self, key: PoolKey, now: float) -> None:
        """The probe's connection was refused or lost."""
        self._board.beliefs.chains_probed(key, None, now)
