"""The moves that keep turns and connections consistent: nothing stays behind them."""

from __future__ import annotations

import pytest

from tests.core.playbook import Playbook
from tests.core.stage import KEY, book, completed, finishes, passed, started
from wsproxy.core.commands import AbortConnection, BreakTurn, CloseConnection, Note
from wsproxy.core.conversation.history import History
from wsproxy.core.ids import ConnectionId, LaneName, SessionName, TurnId
from wsproxy.core.multiplex.alarms import Kind
from wsproxy.core.multiplex.board import Board
from wsproxy.core.multiplex.connection import Connection, ConnectionLimits
from wsproxy.core.multiplex.options import Options
from wsproxy.core.multiplex.recovery import Fault
from wsproxy.core.multiplex.relay import Stream

C1, T1 = ConnectionId(1), TurnId("t1")
L01 = LaneName("l01")


def running() -> tuple[Board, Connection]:
    """One open connection, and one turn's stream on it."""
    board = Board(Options(), History())
    connection = board.open(KEY, SessionName(b"s"), 0.0)
    connection.opened(0.0, 0.0)
    connection.take(T1, L01, 0.0)
    stream = Stream(
        T1, is_streaming=True, parent=None, restored=None, expects_parent=False, now=0.0
    )
    board.relays[connection.id].add(L01, stream, is_default=False)
    board.alarms.set(9.0, Kind.EVENTS, T1)
    board.take_said()
    return board, connection


def ageing() -> Playbook:
    """A turn runs on a connection that has become too old for any other."""
    limits = ConnectionLimits(max_age_s=60)
    story = book(connection=limits, event_idle_timeout_s=100.0)
    started(story, "t1")
    story >> passed(70)
    story.take()  # the successor's dial
    return story


def test_a_turn_that_has_ended_leaves_no_alarm_behind() -> None:
    board, connection = running()
    board.settle(connection.id, T1, None, 1.0)
    assert board.find(T1) is None
    assert board.alarms.next_at() is None


def test_a_connection_that_is_gone_leaves_no_alarm_behind() -> None:
    board, connection = running()
    for kind in (Kind.PING, Kind.PROBE, Kind.CHAIN_PROBE):
        board.alarms.set(9.0, kind, connection.id)
    board.gone(connection)
    assert board.alarms.next_at() is None
    assert not board.relays


def test_a_turn_that_waited_leaves_no_alarm_behind() -> None:
    story = book()
    started(story, "t1")
    board, turn = Board(Options(), History()), story.core.turns[T1]
    board.turns[T1] = turn
    board.waiting[T1] = None
    board.alarms.set(9.0, Kind.WAIT, T1)
    board.forget(turn)
    assert board.alarms.next_at() is None
    assert not board.waiting


@pytest.mark.parametrize(
    ("fault", "told"), [(Fault.PONG_MISSING, "F05"), (None, None)], ids=["a fault", "its age"]
)
def test_what_made_a_connection_retire_is_noted_once(fault: Fault | None, told: str | None) -> None:
    board, connection = running()
    for _ in range(2):
        board.retire(connection, fault, "why")
    assert board.take_said() == [Note("connection.retired", None, connection.id, told, "why")]


def test_a_retired_connection_closes_with_the_last_turn_on_it() -> None:
    with ageing() as story:
        story >> completed(1, "l01") << finishes("t1") << CloseConnection(C1)


def test_a_retired_connection_is_cut_with_the_last_turn_that_somebody_waits_for() -> None:
    with ageing() as story:
        story >> passed(30)
        story << BreakTurn(T1, "upstream_timeout", "upstream was silent") << AbortConnection(C1)
