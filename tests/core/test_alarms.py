"""Alarms ring once, in order, and do not pile up."""

from __future__ import annotations

from wsproxy.core.ids import ConnectionId, TurnId
from wsproxy.core.multiplex.alarms import Alarms, Kind

T1, T2 = TurnId("t1"), TurnId("t2")


def test_they_ring_in_order_and_once() -> None:
    alarms = Alarms()
    alarms.set(2.0, Kind.WAIT, T2)
    alarms.set(1.0, Kind.WAIT, T1)
    assert alarms.next_at() == 1.0
    assert list(alarms.due(2.0)) == [(Kind.WAIT, T1), (Kind.WAIT, T2)]
    assert list(alarms.due(3.0)) == []


def test_setting_one_again_moves_it() -> None:
    alarms = Alarms()
    alarms.set(1.0, Kind.EVENTS, T1)
    alarms.set(5.0, Kind.EVENTS, T1)
    assert alarms.next_at() == 5.0
    assert list(alarms.due(4.0)) == []


def test_kinds_and_ids_are_apart() -> None:
    alarms = Alarms()
    alarms.set(1.0, Kind.PING, ConnectionId(1))
    alarms.set(1.0, Kind.PROBE, ConnectionId(1))
    alarms.cancel(Kind.PING, ConnectionId(1))
    assert list(alarms.due(1.0)) == [(Kind.PROBE, ConnectionId(1))]


def test_what_is_set_while_ringing_rings_if_it_is_due() -> None:
    alarms = Alarms()
    alarms.set(1.0, Kind.WAIT, T1)
    rung = []
    for name in alarms.due(1.0):
        rung.append(name)
        if len(rung) == 1:
            alarms.set(1.0, Kind.WAIT, T2)
            alarms.set(1.5, Kind.WAIT, T1)
    assert rung == [(Kind.WAIT, T1), (Kind.WAIT, T2)]
    assert alarms.next_at() == 1.5


def test_moving_and_cancelling_leave_no_pile() -> None:
    alarms = Alarms()
    for number in range(10_000):
        alarms.set(1000.0 + number, Kind.EVENTS, T1)
        alarms.set(1000.0, Kind.WAIT, TurnId(str(number)))
        alarms.cancel(Kind.WAIT, TurnId(str(number)))
    assert len(alarms) == 1
    assert len(alarms._heap) < 100
