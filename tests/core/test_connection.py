"""One connection: its limits, its names, its age."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.stage import KEY
from wsproxy.core.ids import ConnectionId, LaneName, SessionName, TurnId
from wsproxy.core.multiplex.connection import (
    MAX_SESSIONS,
    Connection,
    ConnectionLimits,
    Lanes,
    State,
)

WARM: Any = object()
LIMITS = ConnectionLimits(max_in_flight=3, max_lanes=4, max_age_s=100, last_turn_end_s=110)


def connection(belief: Lanes = Lanes.ON, jitter_s: float = 0.0) -> Connection:
    """Open since 0."""
    session = SessionName(b"s")
    it = Connection(ConnectionId(1), KEY, session, 0.0, limits=LIMITS, belief=belief)
    it.opened(0.0, jitter_s)
    return it


def take(it: Connection, name: str, now: float = 1.0) -> LaneName:
    lane = it.free_lane()
    assert lane is not None
    it.take(TurnId(name), lane, now)
    return lane


def done(it: Connection, name: str, warm: Any = WARM, now: float = 2.0) -> None:
    it.settle(TurnId(name), warm, "resp", now)


@pytest.mark.parametrize(
    ("belief", "limit"), [(Lanes.ON, 3), (Lanes.OFF, 1), (Lanes.UNKNOWN, 1)], ids=lambda v: str(v)
)
def test_turns_in_flight_are_limited(belief: Lanes, limit: int) -> None:
    it = connection(belief)
    for number in range(limit):
        assert it.has_room()
        take(it, f"t{number}")
    assert not it.has_room()
    with pytest.raises(AssertionError):
        it.take(TurnId("more"), LaneName("l04"), 1.0)


def test_an_abandoned_turn_still_holds_its_slot() -> None:
    it = connection(Lanes.OFF)
    take(it, "t1")
    assert it.abandon(TurnId("t1"))
    assert not it.has_room()
    assert not it.is_live
    assert not it.is_idle


def test_cold_lanes_are_used_before_new_names_and_new_names_before_warm_ones() -> None:
    it = connection()
    assert take(it, "t1") == "l01"
    done(it, "t1")
    assert take(it, "t2") == "l02"
    done(it, "t2", warm=None)
    assert take(it, "t3") == "l02"
    done(it, "t3")
    assert it.free_lane() == "l03"


def test_when_names_run_out_the_lane_longest_idle_is_used_again() -> None:
    it = connection()
    for number in range(4):
        take(it, f"t{number}", now=number)
        done(it, f"t{number}", now=10.0 - number)
    assert take(it, "t5") == "l04"
    assert len(it.lanes) == 4


def test_names_in_use_are_never_more_than_upstream_allows() -> None:
    it = connection()
    for number in range(50):
        take(it, f"t{number}", now=number)
        done(it, f"t{number}", now=number)
    assert sorted(it.lanes) == ["l01", "l02", "l03", "l04"]


def test_without_lanes_there_is_the_default_lane_only() -> None:
    it = connection(Lanes.OFF)
    assert take(it, "t1") == ""
    assert it.free_lane() is None


def test_the_lane_found_out_on_becomes_the_default_lane() -> None:
    it = connection(Lanes.UNKNOWN)
    assert take(it, "t1") == "l01"
    it.become_laneless()
    assert (it.lanes_belief, list(it.lanes)) == (Lanes.OFF, [""])
    assert it.lanes[LaneName("")].turn == "t1"


@pytest.mark.parametrize(
    ("now", "longest_turn_s", "is_too_old"),
    [
        (0.0, 1e9, False),
        (99.0, 0.0, False),
        (100.0, 0.0, True),
        (50.0, 60.0, True),
        (50.0, 59, False),
    ],
    ids=["fresh", "young", "old", "turn does not fit", "turn just fits"],
)
def test_age(now: float, longest_turn_s: float, is_too_old: bool) -> None:
    assert connection().is_too_old(now, longest_turn_s) is is_too_old


def test_jitter_shortens_an_age_by_half_at_most() -> None:
    assert connection(jitter_s=10).retire_at == 90
    assert connection(jitter_s=1000).retire_at == 50


def test_a_retired_connection_takes_nothing_new() -> None:
    it = connection()
    it.retire()
    assert not it.has_room()
    assert it.state is State.RETIRED


def test_a_connection_that_is_being_dialled_cannot_retire() -> None:
    it = Connection(ConnectionId(1), KEY, SessionName(b""), 0.0, limits=LIMITS, belief=Lanes.ON)
    with pytest.raises(AssertionError):
        it.retire()


def test_silence_asks_for_a_proof_and_a_pong_gives_it() -> None:
    it = connection()
    assert not it.needs_probe(25.0)
    assert it.needs_probe(25.1)
    it.ponged(25.1)
    assert not it.needs_probe(50.0)


def test_sleep_makes_it_older_and_doubted() -> None:
    it = connection()
    it.slept(60.0)
    assert it.needs_probe(0.0)
    assert it.is_too_old(41.0, 0.0)


@pytest.mark.parametrize(
    ("has_ponged", "is_missing", "now", "is_dead"),
    [
        (True, True, 60.0, True),
        (True, True, 59.0, False),
        (True, False, 60.0, False),
        (False, True, 60.0, False),
    ],
    ids=["silent", "not yet", "nothing asked", "never answered"],
)
def test_death_by_silence(has_ponged: bool, is_missing: bool, now: float, is_dead: bool) -> None:
    it = connection()
    if has_ponged:
        it.ponged(0.0)
    if is_missing:
        it.pinged(1.0)
    assert it.is_dead(now, 60.0) is is_dead
    assert not it.is_dead(now, 0.0)


def test_a_probe_may_take_longer_where_a_pong_was_slow() -> None:
    it = connection()
    assert it.probe_wait_s(2.0) == 2.0
    it.pinged(1.0)
    it.ponged(2.5)
    assert it.probe_wait_s(2.0) == 5.0


def test_its_sessions_are_bounded_least_recently_used_first() -> None:
    it = connection()
    for number in range(MAX_SESSIONS):
        it.preferred_by(SessionName(b"%d" % number))
        it.preferred_by(SessionName(b"s"))
    assert len(it.sessions) == MAX_SESSIONS
    assert b"s" in it.sessions
    assert b"0" not in it.sessions
