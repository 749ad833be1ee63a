"""Connections come and go: opened, refused, lost."""

from __future__ import annotations

from wsproxy.core.commands import Note
from wsproxy.core.events import ConnectionLost, ConnectionOpened, DialFailed
from wsproxy.core.multiplex import recovery
from wsproxy.core.multiplex.board import Board
from wsproxy.core.multiplex.chain_probes import ChainProbes
from wsproxy.core.multiplex.connection import State
from wsproxy.core.multiplex.deadlines import Deadlines
from wsproxy.core.multiplex.judging import Judging
from wsproxy.core.multiplex.placing import Placing
from wsproxy.core.multiplex.recovery import Fault, Phase, verdict


class Dialling:
    """What becomes of a dial, and of the turns that wait for it."""

    def __init__(
        self,
        board: Board,
        placing: Placing,
        judging: Judging,
        deadlines: Deadlines,
        chain_probes: ChainProbes,
    ) -> None:
        self._board = board
        self._placing = placing
        self._judging = judging
        self._deadlines = deadlines
        self._chain_probes = chain_probes

    def opened(self, event: ConnectionOpened, now: float) -> None:
        """The upgrade was accepted."""
        connection = self._board.pool.get(event.connection)
        if connection is None:
            return
        connection.opened(now, event.jitter_s)
        connection.lanes_belief = self._board.beliefs.of(connection.key).lanes
        if self._board.beliefs.doubt(connection.key) is not None:
            self._board.say(Note("websocket.available", None, connection.id))
        self._board.beliefs.opened(connection.key)
        if connection.is_chain_probe:
            self._chain_probes.opened(connection, now)
        else:
            self._deadlines.watch_road(connection, now)

    def failed(self, event: DialFailed, now: float) -> None:
        """No connection came of it: its turns share what is open, or fall back at once."""
        connection = self._board.pool.get(event.connection)
        if connection is None:
            return
        assert connection.state is State.DIALLING, repr(connection)
        self._board.gone(connection)
        if connection.is_chain_probe:
            self._chain_probes.untold(connection.key, now)
            return
        beliefs = self._board.beliefs
        had_doubt = beliefs.doubt(connection.key) is not None
        beliefs.refused(connection.key, event.fault, event.retry_after_s, now, event.jitter)
        if not had_doubt:  # once, not with every try
            what = event.fault.value
            note = Note("websocket.unavailable", None, connection.id, what, event.detail, True)
            self._board.say(note)
        falls_back = isinstance(verdict(event.fault, Phase.ADMITTED), recovery.FallBack)
        for id_ in list(self._board.waiting):
            turn = self._board.turns[id_]
            if turn.waits_on != connection.id:
                continue
            if not (falls_back and self._placing.share(turn, now)):
                self._judging.undialled(turn, event.fault, event.detail, now)

    def lost(self, event: ConnectionLost, now: float) -> None:
        """It is over; what had not wholly left may be sent again."""
        board = self._board
        connection = board.pool.get(event.connection)
        if connection is None:
            return
        board.pace.lost(connection.key, now, event.jitter)
        if event.fault is Fault.CLOSED_POLICY:
            board.beliefs.refused(connection.key, event.fault, None, now, event.jitter)
        if event.fault is Fault.CLOSED_RESTARTING:
            board.pace.asked_to_wait(connection.key, now, event.jitter)
        if connection.is_chain_probe:
            self._chain_probes.untold(connection.key, now)
        board.gone(connection)
        met = board.on(connection)
        if met:
            count = f"{len(met)} turn{'s' * (len(met) > 1)} on it; {event.detail}"
            board.say(Note("connection.lost", None, connection.id, event.fault.value, count, True))
        for turn in met:
            if turn.phase in (Phase.ADMITTED, Phase.SENT):
                # Only what is named as unsent is proven to be.
                turn.phase = Phase.ADMITTED if turn.id in event.unsent else Phase.SENT
        self._judging.all_on(connection, event.fault, event.detail, now)
