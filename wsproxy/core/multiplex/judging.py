"""What a fault means for each turn that it meets: the fault table, applied.

Rules of this file
------------------
1. What is sent again, and what a client is told, is read from `recovery.py`; nothing is decided
   here but the facts that a cell may turn on.
2. A frame that was handed to a connection may leave as long as that lives, or while it is being
   dropped: such a turn is not taken back (nor told anything) before it is proven that it did not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, assert_never

from wsproxy.core.api import errors
from wsproxy.core.api.errors import UpstreamError, upstream_error
from wsproxy.core.commands import BreakTurn, Note, RefuseTurn, RelayError
from wsproxy.core.conversation.plan import Continuation, Route, Why, safe
from wsproxy.core.events import (
    ClientLeft,
    ConnectionAborted,
    ContextLost,
    ErrorReceived,
    MessageRefused,
)
from wsproxy.core.ids import TurnId
from wsproxy.core.multiplex import recovery
from wsproxy.core.multiplex.board import Board
from wsproxy.core.multiplex.connection import Connection, State
from wsproxy.core.multiplex.discovery import Discovery
from wsproxy.core.multiplex.recovery import (
    CONNECTION_FATE,
    Condition,
    Facts,
    Fate,
    Fault,
    Phase,
    Verdict,
    Where,
    verdict,
)
from wsproxy.core.multiplex.turn import Turn

#: The deadline that a turn has missed when its connection's life is over.
_OVERDUE: Final = {
    Phase.SENT: Fault.FIRST_EVENT_TIMEOUT,
    Phase.STARTED: Fault.IDLE_TIMEOUT,
}


class Judging:
    """Judges turns one by one."""

    def __init__(self, board: Board, discovery: Discovery) -> None:
        self._board = board
        self._discovery = discovery

    # ── Upstream says no ─────────────────────────────────────────────────────────────────────

    def erred(self, event: ErrorReceived, now: float) -> None:
        """An error frame: of one turn, or of the connection (F24–F30)."""
        connection = self._board.pool.get(event.connection)
        if connection is None:
            return
        error = upstream_error(event.received.payload)
        if event.is_first and event.has_echo:
            self._discovery.heard(connection.id, has_echo=True)
        turn_id = event.turn or self._meant(connection)
        if turn_id is None:
            self._erred_for_all(connection, error, now)
            return
        turn = self._board.turns.get(turn_id)
        if turn is None:
            self._board.settle(connection.id, turn_id, None, now)
        elif self._discovery.is_refusal(turn, connection, error):
            self._discovery.refused(turn, connection, now)
            return
        else:
            self._erred_for(turn, connection, error, now)
        fault = errors.fault_of(error)
        if event.turn is None and CONNECTION_FATE[fault] is not Fate.RETIRE:
            # It named nobody, and only seemed to mean this turn: the lane may still be in use.
            fault = Fault.ERROR_WITHOUT_LANE
        if CONNECTION_FATE[fault] is Fate.RETIRE:
            self._board.retire(connection, fault, _named(error))

    def _meant(self, connection: Connection) -> TurnId | None:
        """The turn that an error without a lane must mean: the only one, if it has wholly left.

        Upstream cannot have read half a frame, so of a turn still ADMITTED it says nothing.
        """
        running = list(connection.running())
        if len(running) != 1:
            return None
        turn = self._board.turns.get(running[0])
        return None if turn is not None and turn.phase is Phase.ADMITTED else running[0]

    def _erred_for(
        self, turn: Turn, connection: Connection, error: UpstreamError, now: float
    ) -> None:
        fault = errors.fault_of(error)
        facts = {Condition.NAMED, Condition.SOLE_SENT_TURN}
        if turn.is_ours:
            facts.add(Condition.OUR_ID)
            if errors.is_retryable_refusal(error.status):
                facts.add(Condition.OUR_DELTA)
        if turn.was_refused:
            facts.add(Condition.RETRIES_SPENT)
        # Who is named has been read: its last byte has left, whatever we were told.
        phase = Phase.SENT if turn.phase is Phase.ADMITTED else turn.phase
        found = verdict(fault, phase, frozenset(facts))
        if not isinstance(found, recovery.Wait):
            self._board.settle(connection.id, turn.id, None, now)
        self._apply(turn, fault, found, _named(error), now, error)

    def _erred_for_all(self, connection: Connection, error: UpstreamError, now: float) -> None:
        """An error that names no lane while several turns run, or none (F25, F30)."""
        fault = errors.fault_of(error)
        if fault is not Fault.CONNECTION_LIMIT_REACHED:
            fault = Fault.ERROR_WITHOUT_LANE
        self.all_on(connection, fault, _named(error), now, error)
        self._board.retire(connection, fault, _named(error))

    # ── Connections break ────────────────────────────────────────────────────────────────────

    def all_on(
        self,
        connection: Connection,
        fault: Fault,
        detail: str,
        now: float,
        error: UpstreamError | None = None,
    ) -> None:
        """One connection fault meets up to 16 turns; each is judged by its own phase."""
        turns = self._board.on(connection)
        sole = _only_sent(turns, connection, fault)
        is_gone = connection.state is State.CLOSED
        for turn in turns:
            if turn.phase is Phase.ADMITTED and (turn.cut_by is not None or not is_gone):
                continue  # rule 2
            facts = {Condition.SOLE_SENT_TURN} if turn is sole else set()
            self._meets(turn, fault, facts, detail, now, error)

    def _meets(
        self,
        turn: Turn,
        fault: Fault,
        facts: set[Condition],
        detail: str,
        now: float,
        error: UpstreamError | None = None,
    ) -> None:
        is_spent = turn.is_spent if turn.phase is Phase.ADMITTED else turn.was_refused
        if is_spent:
            facts.add(Condition.RETRIES_SPENT)
        met = _as_met(fault, turn.phase)
        found = verdict(met, turn.phase, frozenset(facts))
        self._apply(turn, met, found, detail, now, error)

    def cut(self, connection: Connection, fault: Fault, detail: str, now: float) -> None:
        """Drop a connection whose bytes cannot be trusted."""
        self._board.say(Note("connection.cut", None, connection.id, fault.value, detail, True))
        self._await_proof(connection, fault, detail)
        self._board.abort(connection)
        self.all_on(connection, fault, detail, now)

    def _await_proof(self, connection: Connection, fault: Fault, detail: str) -> None:
        """Of a connection about to be dropped: what has not left is judged by `aborted`."""
        for turn in self._board.on(connection):
            if turn.phase is Phase.ADMITTED:
                turn.cut_by = fault, detail

    def aborted(self, event: ConnectionAborted, now: float) -> None:
        """The proof that `cut` has to wait for: what has not left, and what may have."""
        for turn in list(self._board.turns.values()):
            if turn.connection != event.connection or turn.cut_by is None:
                continue
            if turn.id not in event.unsent:
                turn.phase = Phase.SENT
            fault, detail = turn.cut_by
            facts = {Condition.DEADLINE_PASSED} if fault is Fault.DRAINING else set()
            self._meets(turn, fault, facts, detail, now)

    def outlived(self, connection: Connection, now: float) -> None:
        """The connection's 60 minutes are over, and with them every turn on it."""
        turns = self._board.on(connection)
        self._board.abort(connection)
        for turn in turns:
            self.late(turn, _OVERDUE[_handed(turn)], "the connection's life is over", now)

    def late(self, turn: Turn, fault: Fault, detail: str, now: float) -> None:
        """A deadline has passed."""
        facts = {Condition.RETRIES_SPENT} if turn.is_spent else set()
        self._apply(turn, fault, verdict(fault, _handed(turn), frozenset(facts)), detail, now)

    def message_refused(self, event: MessageRefused, now: float) -> None:
        """A message that cannot be accepted or attributed (F14, F18, F21, F22)."""
        connection = self._board.pool.get(event.connection)
        if connection is None:
            return
        if event.fault is Fault.UNATTRIBUTABLE_EVENT:
            self._discovery.doubted(connection)
        if CONNECTION_FATE[event.fault] is Fate.RETIRE:
            self._board.retire(connection, event.fault, event.detail)
        else:
            self.cut(connection, event.fault, event.detail, now)

    def context_lost(self, event: ContextLost, now: float) -> None:
        """A delta reached a model that had forgotten: nothing of its answer is true (§3)."""
        self._board.beliefs.context_lost()
        turn = self._board.turns.get(event.turn)
        if turn is not None:
            code = "upstream_lost_context"
            message = "upstream continued from another response than the one named"
            found: Verdict = recovery.Refuse(502, code, is_outcome_unknown=True)
            if turn.phase is Phase.STARTED:
                found = recovery.Break(code)
            self._apply(turn, Fault.UNATTRIBUTABLE_EVENT, found, message, now)
        connection = self._board.pool.get(event.connection)
        if connection is not None:
            self.cut(connection, Fault.UNATTRIBUTABLE_EVENT, "context lost", now)

    # ── Getting a connection; clients; ourselves ─────────────────────────────────────────────

    def undialled(self, turn: Turn, fault: Fault, detail: str, now: float) -> None:
        """The dial that the turn waited for has failed (F32–F37, F46)."""
        self._apply(turn, fault, verdict(fault, Phase.ADMITTED), detail, now)

    def client_left(self, event: ClientLeft, now: float) -> None:
        """Nobody waits for the turn any more (F38), or nobody takes its bytes (F39, F47)."""
        turn = self._board.turns.get(event.turn)
        if turn is None:
            return
        facts: Facts = frozenset({Condition.BUFFER_FULL, Condition.LARGEST_BUFFER})
        found = verdict(event.fault, _handed(turn), facts)
        self._apply(turn, event.fault, found, "client left", now)

    def drained(self, now: float) -> None:
        """The drain deadline has passed: what runs is cut, and upstream told by the socket."""
        detail = "wsproxy is shutting down"
        for connection in list(self._board.pool.connections):
            if not connection.is_idle:
                self._await_proof(connection, Fault.DRAINING, detail)
                self._board.abort(connection)
        for turn in list(self._board.turns.values()):
            if turn.cut_by is None:
                self._meets(turn, Fault.DRAINING, {Condition.DEADLINE_PASSED}, detail, now)

    # ── Applying ─────────────────────────────────────────────────────────────────────────────

    def _apply(
        self,
        turn: Turn,
        fault: Fault,
        found: Verdict,
        detail: str,
        now: float,
        error: UpstreamError | None = None,
    ) -> None:
        """Do to a turn what the fault table says."""
        turn.faults.append(fault.value)
        match found:
            case recovery.Retry():
                self._retry(turn, fault, found, now)
            case recovery.FallBack():
                turn.taken_back(now)  # refused by name, it may stand on a connection that lives
                self._board.over_https(turn, "no_websocket")
            case recovery.Relay():
                assert error is not None, f"{turn!r} met {fault} without upstream's words"
                self._board.say(RelayError(turn.id, error))
                self._board.forget(turn)
            case recovery.Refuse():
                self._refuse(turn, found, detail)
            case recovery.Break(code):
                self._board.say(BreakTurn(turn.id, code, detail))
                self._board.forget(turn)
            case recovery.Drop() | recovery.Abandon():
                self._abandon(turn)
            case recovery.Ignore() | recovery.Wait() | recovery.Lost():
                pass
            case recovery.Unreachable():
                raise AssertionError(f"{turn!r} met {fault}, which cannot be: {detail}")
            case _:
                assert_never(found)

    def _retry(self, turn: Turn, fault: Fault, found: recovery.Retry, now: float) -> None:
        """Once more, in full: it did not leave, or upstream refused it by name (§5.11)."""
        if found.is_our_bug:
            self._board.say(Note("proxy.bug", turn.id, turn.connection, fault.value))
        why = Why("connection_lost")
        if found.where is not Where.ELSEWHERE:
            turn.was_refused = True
            why = Why("parent_refused") if turn.is_ours else turn.continuation.why_full
            if turn.is_by_id:
                self._board.beliefs.stored_refused(turn.key, now)
            elif fault is Fault.PREVIOUS_RESPONSE_NOT_FOUND and turn.route is Route.DELTA:
                self._board.beliefs.warm_refused(turn.key, now)
        turn.continuation = Continuation((), why)
        self._board.take_back(turn, now)

    def _refuse(self, turn: Turn, found: recovery.Refuse, detail: str) -> None:
        self._board.say(
            RefuseTurn(
                turn.id,
                found.status,
                found.code,
                detail,
                is_outcome_unknown=found.is_outcome_unknown,
                retry_after_s=found.retry_after_s,
                should_retry=True if found.retry_after_s else None,
            )
        )
        self._board.forget(turn)

    def _abandon(self, turn: Turn) -> None:
        """Nobody waits for it: closing the socket is the only cancel that upstream knows."""
        self._board.forget(turn)
        connection = self._board.of(turn)
        if connection is not None and not connection.is_live and not connection.is_idle:
            self._board.abort(connection)


def _handed(turn: Turn) -> Phase:
    """How far a turn got for all we can prove (rule 2)."""
    if turn.phase is Phase.ADMITTED and turn.connection is not None:
        return Phase.SENT
    return turn.phase


def _named(error: UpstreamError) -> str:
    """An error in our own words: upstream's message may hold what a user said."""
    return f"status {error.status} {safe(error.code or error.type or '')}".rstrip()


def _only_sent(turns: Sequence[Turn], connection: Connection, fault: Fault) -> Turn | None:
    """The one turn that is SENT, if there is no other."""
    sent = [turn for turn in turns if turn.phase is Phase.SENT]
    if len(sent) != 1:
        return None
    if fault is Fault.CLOSED_TOO_BIG:
        # It may mean any frame not heard of yet: one that has left in part, an abandoned one.
        heard = {turn.id for turn in turns if turn.phase is Phase.STARTED}
        if any(id_ not in heard for id_ in connection.running() if id_ != sent[0].id):
            return None
    return sent[0]


def _as_met(fault: Fault, phase: Phase) -> Fault:
    """A write that fails proves something only of its own frame; its siblings see a reset."""
    if fault is Fault.WRITE_FAILED and phase is Phase.SENT:
        return Fault.CONNECTION_RESET
    return fault
