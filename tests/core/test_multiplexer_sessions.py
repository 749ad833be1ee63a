"""Which connection a turn gets: sessions, limits, sharing, our queue (contract §3)."""

from __future__ import annotations

import pytest

from tests.core.stage import (
    KEY,
    OTHER_KEY,
    arrived,
    assistant,
    book,
    completed,
    created,
    finished,
    finishes,
    opened,
    opens,
    passed,
    placed,
    sends,
    sent,
    started,
    user,
)
from wsproxy.core.commands import Answer, CloseConnection, RefuseTurn, SendOverHttps
from wsproxy.core.conversation.identity import NEW_HINTS_IN_A_ROW
from wsproxy.core.conversation.plan import Route, Why
from wsproxy.core.events import ClientLeft
from wsproxy.core.ids import ConnectionId, TurnId
from wsproxy.core.multiplex.connection import ConnectionLimits, Lanes
from wsproxy.core.multiplex.pool import PoolLimits

BUSY = Why("busy")


def test_a_turn_waits_for_its_dial_and_is_answered() -> None:
    with book() as story:
        story >> arrived("t1") << opens(1)
        story >> opened(1) << sends("t1", why="new_conversation")
        story >> sent("t1")
        story >> created(1, "l01") << Answer(TurnId("t1"))
        story >> completed(1, "l01") << finishes("t1")


def test_turns_of_a_session_share_one_connection_each_on_its_own_lane() -> None:
    with book() as story:
        story >> arrived("t1") << opens(1)
        story >> arrived("t2")
        story >> opened(1) << sends("t1", lane="l01") << sends("t2", lane="l02")
        story >> arrived("t3") << sends("t3", lane="l03")


def test_another_session_has_a_connection_of_its_own() -> None:
    with book() as story:
        started(story, "t1", session="a")
        story >> arrived("t2", session="b") << opens(2)
        story >> opened(2) << sends("t2", 2)
        story >> arrived("t3", session="a") << sends("t3", 1, lane="l02")


def test_two_keys_never_share_a_connection() -> None:
    with book() as story:
        started(story, "t1")
        story >> arrived("t2", key=OTHER_KEY) << opens(2, OTHER_KEY)


def test_turns_without_a_hint_share_the_default_session() -> None:
    with book() as story:
        started(story, "t1", session="a")
        story >> arrived("t2", session=None) << opens(2)
        story >> opened(2) << sends("t2", 2)
        story >> arrived("t3", session=None) << sends("t3", 2, lane="l02")


def test_without_a_hint_the_session_is_the_one_that_holds_the_conversation() -> None:
    with book() as story:
        started(story, "t1", session="a")
        finished(story, "t1")
        more = [user("t1"), assistant("t1"), user("more")]
        story >> arrived("t2", *more, session=None)
        story << sends("t2", 1, "l01", "resp_t1", 2, Route.DELTA, why=None)
        assert story.core.turns[TurnId("t2")].session == b"a"


def test_a_hint_that_is_new_on_every_request_is_no_hint() -> None:
    with book() as story:
        for number in range(NEW_HINTS_IN_A_ROW):
            story >> arrived(f"t{number}", session=f"s{number}")
            story.take()
        story >> arrived("t8", session="s8")
        story.take()
        assert story.core.turns[TurnId("t8")].session == b""


def test_a_full_connection_makes_its_session_open_another() -> None:
    with book(connection=ConnectionLimits(max_in_flight=2)) as story:
        started(story, "t1", "t2")
        story >> arrived("t3") << opens(2)
        story >> opened(2) << sends("t3", 2)
        story >> arrived("t4") << sends("t4", 2, "l02")


@pytest.mark.parametrize(
    ("lanes", "limit"), [(Lanes.ON, 8), (Lanes.OFF, 16)], ids=["with lanes", "without lanes"]
)
def test_a_key_has_no_more_connections_than_its_limit(lanes: Lanes, limit: int) -> None:
    with book(lanes=lanes, connection=ConnectionLimits(max_in_flight=1)) as story:
        lane = "l01" if lanes is Lanes.ON else ""
        for number in range(1, limit + 1):
            story >> arrived(f"t{number}") << opens(number)
            story >> opened(number) << sends(f"t{number}", number, lane)
        story >> arrived("late")
        story >> passed(0.2)
        story >> passed(0.1) << SendOverHttps(TurnId("late"), BUSY)


def test_at_the_limit_the_longest_idle_connection_makes_room() -> None:
    with book(pool=PoolLimits(max_per_key_with_lanes=2)) as story:
        for number, session in enumerate("ab", 1):
            started(story, f"t{number}", connection=number, session=session)
            story >> passed(1)
            finished(story, f"t{number}", connection=number)
        story >> arrived("t3", session="c") << CloseConnection(ConnectionId(1)) << opens(3)


def test_at_the_limit_a_turn_shares_the_least_loaded_connection() -> None:
    with book(pool=PoolLimits(max_per_key_with_lanes=2)) as story:
        started(story, "t1", "t2", connection=1, session="a")
        started(story, "t3", connection=2, session="b")
        story >> arrived("t4", session="c") << sends("t4", 2, "l02")
        story >> arrived("t5", session="c") << sends("t5", 2, "l03")


def test_at_the_limit_of_all_a_key_unused_for_long_loses_its_connection_first() -> None:
    with book(pool=PoolLimits(max_total=2, key_idle_s=300)) as story:
        story >> arrived("old", key=OTHER_KEY, session="o") << opens(1, OTHER_KEY)
        story >> opened(1) << sends("old")
        story >> created(1, "l01") << Answer(TurnId("old"))
        story >> completed(1, "l01") << finishes("old")
        story >> passed(301)
        started(story, "t1", connection=2, session="a")
        finished(story, "t1", connection=2)
        story >> arrived("t2", session="b") << CloseConnection(ConnectionId(1)) << opens(3)


def test_at_the_limit_of_all_a_fresh_key_goes_over_https() -> None:
    with book(pool=PoolLimits(max_total=1)) as story:
        started(story, "t1")
        story >> arrived("t2", key=OTHER_KEY)
        story >> passed(0.25) << SendOverHttps(TurnId("t2"), BUSY)


def test_a_waiting_turn_takes_the_place_that_becomes_free() -> None:
    limits = ConnectionLimits(max_in_flight=1)
    with book(connection=limits, pool=PoolLimits(max_total=1)) as story:
        started(story, "t1")
        story >> arrived("t2")
        story >> passed(0.1)
        story >> completed(1, "l01", "resp_t1") << finishes("t1") << sends("t2", 1, "l02")


def test_the_oldest_turn_in_the_queue_goes_first() -> None:
    limits = ConnectionLimits(max_in_flight=1)
    with book(connection=limits, pool=PoolLimits(max_total=1), queue_wait_s=60) as story:
        started(story, "t1")
        story >> arrived("t2")
        story >> arrived("t3")
        story >> completed(1, "l01", "resp_t1") << finishes("t1") << sends("t2", lane="l02")
        story >> sent("t2")
        story >> completed(1, "l02") << Answer(TurnId("t2"))
        story << finishes("t2") << sends("t3", lane="l03")


def test_more_turns_than_the_limit_are_refused() -> None:
    with book(max_turns=2) as story:
        placed(story, "t1", "t2")
        story >> arrived("t3")
        message = "wsproxy runs 2 turns, its limit (setting max_turns)"
        story << RefuseTurn(
            TurnId("t3"), 503, "proxy_overloaded", message, retry_after_s=1, should_retry=True
        )


def test_a_turn_that_leaves_the_queue_frees_its_place_in_it() -> None:
    with book() as story:
        story >> arrived("t1") << opens(1)
        story >> ClientLeft(TurnId("t1"))
        story >> opened(1)
        assert not story.core.turns
        assert not story.core.waiting


def test_what_is_too_large_for_a_frame_goes_over_https() -> None:
    with book(max_frame_bytes=1000) as story:
        started(story, "t1")
        story >> arrived("t2", frame_bytes=1001) << SendOverHttps(TurnId("t2"), Why("too_large"))
        assert story.core.turns[TurnId("t1")].key == KEY


def test_many_sessions_on_one_connection_do_not_pile_up() -> None:
    with book(pool=PoolLimits(max_per_key_with_lanes=1)) as story:
        started(story, "t0", session="s0")
        for number in range(1, 600):
            # Each hint comes twice: only then it is one.
            session = f"s{number // 2}"
            story >> arrived(f"t{number}", session=session)
            lane = story.core.turns[TurnId(f"t{number}")].lane
            story.take()
            story >> completed(1, lane, f"resp_t{number}")
            story.take()
        [connection] = story.core.pool.connections
        assert len(connection.sessions) <= 256
