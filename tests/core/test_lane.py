"""One lane: a turn at a time, one warm checkpoint."""

from __future__ import annotations

from typing import Any

import pytest

from wsproxy.core.ids import LaneName, TurnId
from wsproxy.core.multiplex.lane import Lane

WARM: Any = object()
T1, T2 = TurnId("t1"), TurnId("t2")


def lane() -> Lane:
    return Lane(LaneName("l01"), 0.0)


def test_a_lane_runs_one_turn_at_a_time() -> None:
    it = lane()
    it.take(T1, 1.0)
    assert not it.is_idle
    with pytest.raises(AssertionError):
        it.take(T2, 2.0)


def test_a_completed_turn_leaves_its_lane_warm() -> None:
    it = lane()
    it.take(T1, 1.0)
    it.settle(WARM, "resp_1", 5.0)
    assert (it.is_idle, it.warm, it.response_id, it.used_at) == (True, WARM, "resp_1", 5.0)


def test_the_parent_stays_warm_for_forks_while_the_next_turn_runs() -> None:
    it = lane()
    it.take(T1, 1.0)
    it.settle(WARM, "resp_1", 2.0)
    it.take(T2, 3.0)
    assert it.warm is WARM


def test_any_other_end_leaves_it_cold() -> None:
    it = lane()
    it.take(T1, 1.0)
    it.settle(WARM, "resp_1", 2.0)
    it.take(T2, 3.0)
    it.settle(None, None, 4.0)
    assert it.warm is None


def test_an_abandoned_turn_keeps_its_lane_until_its_end_and_leaves_it_cold() -> None:
    it = lane()
    it.take(T1, 1.0)
    it.abandon()
    assert not it.is_idle
    assert not it.is_live
    it.settle(WARM, "resp_1", 2.0)
    assert it.is_idle
    assert it.warm is None


def test_an_idle_lane_has_nothing_to_abandon() -> None:
    with pytest.raises(AssertionError):
        lane().abandon()


def test_its_repr_tells_its_state() -> None:
    it = lane()
    assert repr(it) == "<Lane l01 idle>"
    it.take(T1, 1.0)
    assert repr(it) == "<Lane l01 busy>"
    it.abandon()
    assert repr(it) == "<Lane l01 draining>"
