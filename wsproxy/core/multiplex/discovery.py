"""Finding out whether upstream keeps lanes: by the first event of a turn that was alone (§3)."""

from __future__ import annotations

from wsproxy.core.api import errors
from wsproxy.core.api.errors import UpstreamError
from wsproxy.core.commands import Note
from wsproxy.core.conversation.plan import Continuation, Why
from wsproxy.core.ids import ConnectionId
from wsproxy.core.multiplex.board import Board
from wsproxy.core.multiplex.connection import DEFAULT_LANE, Connection, Lanes
from wsproxy.core.multiplex.recovery import Fault, Phase
from wsproxy.core.multiplex.turn import Turn


class Discovery:
    """What is learned of `stream_id`, and forgotten when it turns out wrong."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def heard(self, id_: ConnectionId, *, has_echo: bool) -> None:
        """The first event of a turn came, with the name of its lane or without."""
        connection = self._board.pool.get(id_)
        if connection is not None and connection.lanes_belief is Lanes.UNKNOWN:
            self._learned(connection, Lanes.ON if has_echo else Lanes.OFF)

    def is_refusal(self, turn: Turn, connection: Connection, error: UpstreamError) -> bool:
        """Whether upstream refuses the field itself, where nobody said that it has lanes."""
        if connection.lanes_belief is Lanes.OFF or not self._board.beliefs.finds_out_lanes:
            return False
        is_first_refusal = turn.phase is not Phase.STARTED and not turn.was_refused
        return is_first_refusal and _is_about_lanes(error)

    def refused(self, turn: Turn, connection: Connection, now: float) -> None:
        """The field was refused: the turn goes once more without it, and so do all others."""
        self._board.take_back(turn, now)
        if connection.lanes_belief is Lanes.UNKNOWN:
            self._learned(connection, Lanes.OFF)
            return
        # What was learned before does not hold any more; other connections may still try.
        turn.was_refused = True
        turn.continuation = Continuation((), Why("parent_evicted"))
        self._board.beliefs.lanes_learned(connection.key, Lanes.OFF)
        self._board.retire(connection, Fault.STREAM_LIMIT_REACHED)

    def doubted(self, connection: Connection) -> None:
        """An event could not be attributed: perhaps the echo is missing."""
        self._board.beliefs.lanes_learned(connection.key, Lanes.UNKNOWN)

    def _learned(self, connection: Connection, lanes: Lanes) -> None:
        self._board.has_moved = True
        self._board.beliefs.lanes_learned(connection.key, lanes)
        relay = self._board.relays.get(connection.id)
        if relay is not None:  # retired, the connection has closed with its last turn
            relay.lanes_known(has_lanes=lanes is Lanes.ON)
        if lanes is Lanes.ON:
            connection.lanes_belief = lanes
        else:
            connection.become_laneless()
            for turn in self._board.on(connection):
                turn.lane = DEFAULT_LANE
        self._board.say(Note(f"lanes.{lanes.name.lower()}", connection=connection.id))


def _is_about_lanes(error: UpstreamError) -> bool:
    """Whether upstream does not know `stream_id` at all; that it had enough of them is another."""
    if error.code == errors.STREAM_LIMIT_REACHED:
        return False
    # Whatever the status: a flat frame has none, and is read as 500.
    is_named = error.param == "stream_id" or "stream_id" in error.message
    return is_named or error.code == errors.INVALID_STREAM_ID
