"""Who may start, who waits, and what a lane remembers."""

from __future__ import annotations

import pytest

from wsproxy.simulator.errors import ApiError
from wsproxy.simulator.lanes import Lanes


def lanes_of(*names: str, in_flight: int = 16, limit: int = 32) -> Lanes[str, str]:
    lanes: Lanes[str, str] = Lanes(in_flight, limit)
    for name in names:
        lanes.name(name)
    return lanes


def test_a_lane_runs_one_response_at_a_time_in_order() -> None:
    lanes = lanes_of("a")

    assert lanes.push("a", "first") == [("a", "first")]
    assert lanes.push("a", "second") == []
    assert lanes.push("a", "third") == []
    assert lanes.finish("a") == [("a", "second")]
    assert lanes.finish("a") == [("a", "third")]
    assert lanes.finish("a") == []


def test_the_response_over_the_limit_waits_for_any_lane() -> None:
    lanes = lanes_of("a", "b", "c", in_flight=2)
    lanes.push("a", "1")
    lanes.push("b", "2")

    assert lanes.push("c", "3") == []
    assert lanes.push("", "4") == []
    assert lanes.in_flight == 2
    assert lanes.finish("b") == [("c", "3")]
    assert lanes.finish("a") == [("", "4")]


def test_a_busy_lane_does_not_hold_up_the_others() -> None:
    lanes = lanes_of("a", "b", in_flight=2)
    lanes.push("a", "1")
    lanes.push("a", "2")

    assert lanes.push("b", "3") == [("b", "3")]
    assert lanes.finish("b") == []
    assert lanes.finish("a") == [("a", "2")]


def test_the_name_over_the_limit_is_refused_and_old_names_are_not() -> None:
    lanes = lanes_of("a", "b", limit=2)

    with pytest.raises(ApiError) as refused:
        lanes.name("c")

    assert refused.value.code == "websocket_stream_limit_reached"
    assert refused.value.param == "stream_id"
    lanes.name("a")
    lanes.name("")


def test_only_the_latest_response_of_each_lane_is_found() -> None:
    lanes = lanes_of("a", "b")
    lanes.remember("a", "r1", "one")
    lanes.remember("b", "r2", "two")
    lanes.remember("a", "r3", "three")

    assert [lanes.find(each) for each in ("r1", "r2", "r3")] == [None, "two", "three"]


def test_a_refused_continuation_evicts_its_own_lanes_parent_only() -> None:
    lanes = lanes_of("a", "fork")
    lanes.remember("a", "r1", "one")

    lanes.evict("fork", "r1")
    lanes.evict("a", "another")
    assert lanes.find("r1") == "one"

    lanes.evict("a", "r1")
    assert lanes.find("r1") is None
