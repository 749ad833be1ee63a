"""A request comes in: refused, sent over HTTPS, or let into our queue."""

from __future__ import annotations

from wsproxy.core.api.request import UnfitError
from wsproxy.core.commands import RefuseTurn, SendOverHttps
from wsproxy.core.conversation.history import Reading
from wsproxy.core.conversation.plan import Why, decide
from wsproxy.core.events import TurnArrived
from wsproxy.core.ids import PoolKey, SessionName
from wsproxy.core.multiplex import recovery
from wsproxy.core.multiplex.board import Board
from wsproxy.core.multiplex.connection import State
from wsproxy.core.multiplex.recovery import Condition, Facts, Fault, Phase, verdict
from wsproxy.core.multiplex.turn import Turn

#: Where a turn without any hint belongs (contract §3).
DEFAULT_SESSION = SessionName(b"")


class Admission:
    """Lets turns in."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def arrived(self, event: TurnArrived, now: float) -> None:
        """A request fit for the WebSocket has been read to its end."""
        refusal = self._refusal(event)
        if refusal is not None:
            self._board.say(refusal)
            return
        try:
            reading = self._board.history.read(event.key, event.transcript)
        except UnfitError as error:
            self._board.say(SendOverHttps(event.turn, Why(error.reason)))
            return
        self._board.pace.admitted(event.key, now)
        session = self._session(event, reading)
        doubt = self._doubt(event.key, session, now)
        if doubt is None:
            self._admit(event, reading, session, now)
        elif isinstance(verdict(doubt, Phase.ADMITTED), recovery.FallBack):
            self._board.say(SendOverHttps(event.turn, Why("no_websocket")))
        else:
            message = f"the last WebSocket upgrade failed: {doubt.what}"
            self._board.say(_refused(event, doubt, message))

    def _refusal(self, event: TurnArrived) -> RefuseTurn | None:
        """503, only for limits of our own (contract §3)."""
        board = self._board
        if board.drain_deadline is not None:
            message = "wsproxy is shutting down; send the request again"
            facts = frozenset({Condition.DEADLINE_PASSED})
            return _refused(event, Fault.DRAINING, message, facts)
        if board.is_overloaded:
            return _refused(event, Fault.OVERLOADED, "wsproxy has more to do than it can")
        if len(board.turns) >= board.options.max_turns:
            message = f"wsproxy runs {len(board.turns)} turns, its limit (setting max_turns)"
            return _refused(event, Fault.OVERLOADED, message)
        return None

    def _session(self, event: TurnArrived, reading: Reading) -> SessionName:
        """Which connection is preferred: the hint's, else where the conversation was before."""
        match_ = reading.matches[0][0].session if reading.matches else None
        if event.hint is not None:
            source, name = event.hint
            hints = self._board.beliefs.of(event.key).hints
            is_known = hints.is_known(source, name)
            if hints.means_something(source) and (is_known or match_ is None):
                return name
        return match_ if match_ is not None else DEFAULT_SESSION

    def _doubt(self, key: PoolKey, session: SessionName, now: float) -> Fault | None:
        """Why no WebSocket can be had; a dial that is due is made behind the turn's back."""
        board = self._board
        doubt = board.beliefs.doubt(key)
        own = board.pool.of_key(key)
        if doubt is None or any(connection.is_open for connection in own):
            return None
        is_dialling = any(connection.state is State.DIALLING for connection in own)
        is_due = now >= max(doubt.until, board.pace.dial_from(key, now))
        if is_due and not is_dialling and board.pool.has_room_for(key):
            board.open(key, session, now)
        return doubt.fault

    def _admit(
        self, event: TurnArrived, reading: Reading, session: SessionName, now: float
    ) -> None:
        turn = Turn(
            id=event.turn,
            key=event.key,
            session=session,
            transcript=event.transcript,
            fields=event.fields,
            reading=reading,
            continuation=decide(reading, event.transcript, event.fields),
            is_streaming=event.is_streaming,
            own_parent=event.own_parent,
            frame_bytes=event.frame_bytes,
            queued_at=now,
            conversation=reading.matches[0][0].conversation.number if reading.matches else None,
        )
        self._board.turns[turn.id] = turn
        self._board.waiting[turn.id] = None


def _refused(
    event: TurnArrived, fault: Fault, message: str, facts: Facts = recovery.NO_FACTS
) -> RefuseTurn:
    found = verdict(fault, Phase.ADMITTED, facts)
    assert isinstance(found, recovery.Refuse), fault
    return RefuseTurn(
        event.turn,
        found.status,
        found.code,
        message,
        retry_after_s=found.retry_after_s,
        should_retry=True if found.retry_after_s else None,
    )
