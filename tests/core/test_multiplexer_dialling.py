"""Dials: how long a turn waits, what is remembered, and that no loss becomes a storm (§4)."""

from __future__ import annotations

import pytest

from tests.core.playbook import Playbook
from tests.core.stage import (
    ANY,
    KEY,
    OTHER_KEY,
    arrived,
    book,
    completed,
    error,
    finishes,
    opened,
    opens,
    passed,
    placed,
    sends,
    sent,
    started,
)
from wsproxy.core.commands import Answer, OpenConnection, RefuseTurn, SendOverHttps, SendTurn
from wsproxy.core.conversation.plan import Why
from wsproxy.core.events import ClientLeft, ConnectionLost, DialFailed
from wsproxy.core.ids import ConnectionId, TurnId
from wsproxy.core.multiplex.connection import ConnectionLimits, Lanes
from wsproxy.core.multiplex.pool import PoolLimits
from wsproxy.core.multiplex.recovery import Fault

NO_WEBSOCKET = Why("no_websocket")
OF_KEY = [Fault.UPGRADE_UNAUTHORIZED, Fault.UPGRADE_RATE_LIMITED]


def failed(connection: int, fault: Fault, retry_after_s: float | None = None) -> DialFailed:
    return DialFailed(ConnectionId(connection), fault, None, retry_after_s, "why")


def https(turn: str) -> SendOverHttps:
    return SendOverHttps(TurnId(turn), NO_WEBSOCKET)


def refused(fault: Fault, retry_after_s: float | None = None) -> Playbook:
    """The first dial was refused, and its turn went over HTTPS."""
    story = book()
    story >> arrived("t1") << opens(1)
    story >> failed(1, fault, retry_after_s) << https("t1")
    return story


def test_a_turn_waits_three_seconds_for_a_handshake() -> None:
    with book() as story:
        story >> arrived("t1") << opens(1)
        story >> passed(2.9)
        story >> passed(0.1) << https("t1")


def test_the_dial_goes_on_for_the_next_turn() -> None:
    with book() as story:
        story >> arrived("t1") << opens(1)
        story >> passed(3) << https("t1")
        story >> opened(1)
        story >> arrived("t2") << sends("t2", 1)


def test_a_handshake_that_was_too_slow_is_not_waited_for_again() -> None:
    with book() as story:
        story >> arrived("t1") << opens(1)
        story >> passed(3) << https("t1")
        story >> arrived("t2") << https("t2")


def test_all_turns_that_wait_for_a_failed_dial_fall_back_at_once() -> None:
    with book() as story:
        story >> arrived("t1") << opens(1)
        story >> arrived("t2")
        story >> failed(1, Fault.UNREACHABLE) << https("t1") << https("t2")


def test_a_turn_that_waits_for_another_dial_waits_on() -> None:
    with book() as story:
        story >> arrived("t1", session="a") << opens(1)
        story >> arrived("t2", session="b") << opens(2)
        story >> failed(1, Fault.UNREACHABLE) << https("t1")
        story >> opened(2) << sends("t2", 2)


def test_a_turn_whose_dial_failed_shares_what_is_open() -> None:
    with book() as story:
        started(story, "t1", session="a")
        story >> arrived("t2", session="b") << opens(2)
        story >> failed(2, Fault.UNREACHABLE) << sends("t2", 1, "l02")


def test_a_failed_dial_is_not_repeated_at_once_where_all_is_busy() -> None:
    with book(lanes=Lanes.OFF) as story:
        story >> arrived("t1") << opens(1)
        story >> opened(1) << sends("t1", lane="")
        story >> arrived("t2") << opens(2)
        story >> failed(2, Fault.UNREACHABLE) << https("t2")
        story >> arrived("t3")
        story >> passed(0.25) << SendOverHttps(TurnId("t3"), Why("busy"))


@pytest.mark.parametrize("fault", OF_KEY, ids=lambda fault: fault.name)
def test_a_refusal_of_the_key_is_remembered_for_a_minute_and_for_it_alone(fault: Fault) -> None:
    with refused(fault) as story:
        story >> passed(59)
        story >> arrived("t2") << https("t2")
        story >> arrived("t3", key=OTHER_KEY) << opens(2, OTHER_KEY)


def test_retry_after_is_heeded() -> None:
    with refused(Fault.UPGRADE_RATE_LIMITED, 300) as story:
        story >> passed(299)
        story >> arrived("t2") << https("t2")
        story >> passed(1)
        story >> arrived("t3") << OpenConnection(ConnectionId(2), KEY) << https("t3")


def test_an_upstream_without_websockets_is_remembered_for_every_key_for_ten_minutes() -> None:
    with refused(Fault.UPGRADE_UNSUPPORTED) as story:
        story >> passed(599)
        story >> arrived("t2", key=OTHER_KEY) << https("t2")
        story >> passed(1)
        story >> arrived("t3", key=OTHER_KEY) << opens(2, OTHER_KEY) << https("t3")


def test_a_remembered_refusal_heals_behind_the_turns_backs() -> None:
    with refused(Fault.UPGRADE_UNAUTHORIZED) as story:
        story >> passed(60)
        story >> arrived("t2") << opens(2) << https("t2")
        story >> arrived("t3") << https("t3")
        story >> opened(2)
        story >> arrived("t4") << sends("t4", 2)


def test_a_failed_healing_dial_is_remembered_again() -> None:
    with refused(Fault.UPGRADE_UNAUTHORIZED) as story:
        story >> passed(60)
        story >> arrived("t2") << opens(2) << https("t2")
        story >> failed(2, Fault.UPGRADE_UNAUTHORIZED)
        story >> passed(59)
        story >> arrived("t3") << https("t3")


def test_a_policy_close_is_remembered_for_the_key() -> None:
    with book() as story:
        placed(story, "t1")
        lost = ConnectionLost(ConnectionId(1), Fault.CLOSED_POLICY, "", [TurnId("t1")])
        story >> lost << https("t1")
        story >> arrived("t2") << https("t2")


def test_a_forged_certificate_is_never_answered_with_a_fallback() -> None:
    with book() as story:
        story >> arrived("t1") << opens(1)
        story >> failed(1, Fault.TLS_FAILED) << RefuseTurn(TurnId("t1"), 502, "upstream_tls", "why")
        story >> arrived("t2") << RefuseTurn(TurnId("t2"), 502, "upstream_tls", ANY)


def test_the_breaker_pauses_longer_from_the_fifth_failure_on() -> None:
    pauses = []
    story = book()
    story >> arrived("first")
    story.take()
    for number in range(1, 11):
        story >> failed(number, Fault.UNREACHABLE)
        story.take()
        since = story.now
        while len(story.core.pool.connections) == 0:
            story >> passed(0.5)
            story >> arrived(f"t{story.now}")
            story.take()
        pauses.append(round(story.now - since))
    assert pauses[:4] == [1, 1, 1, 1]
    assert pauses[4:9] == [5, 10, 20, 40, 60]
    assert pauses[9] == 60


def test_a_success_resets_the_breaker() -> None:
    with refused(Fault.UNREACHABLE) as story:
        story >> passed(1)
        story >> arrived("t2") << opens(2) << https("t2")
        story >> opened(2)
        assert story.core.beliefs.of(KEY).dial_failures == 0


def test_jitter_that_comes_with_the_event_spreads_the_pauses() -> None:
    untils = []
    for jitter in (0.0, 1.0):
        story = book()
        story >> arrived("t1")
        story.take()
        story >> DialFailed(ConnectionId(1), Fault.UNREACHABLE, None, None, "", jitter)
        untils.append(story.core.beliefs.of(KEY).no_websocket_until - story.now)
    assert untils == pytest.approx([1.0, 1.2])


def test_after_a_mass_loss_a_key_dials_twice_a_second() -> None:
    limits = ConnectionLimits(max_in_flight=1)
    story = book(connection=limits)
    for number in range(1, 9):
        placed(story, f"t{number}", connection=number)
    dials = []
    for number in range(1, 9):
        turn = TurnId(f"t{number}")
        story >> ConnectionLost(ConnectionId(number), Fault.CONNECTION_RESET, "", [turn], 0.5)
        dials += [c for c in story.take() if isinstance(c, OpenConnection)]
    for _ in range(4):
        story >> passed(0.5)
        dials += [c for c in story.take() if isinstance(c, OpenConnection)]
    assert 4 <= len(dials) <= 6, dials


def test_close_try_again_later_is_heeded_before_the_next_dial() -> None:
    with book() as story:
        placed(story, "t1")
        story >> ConnectionLost(ConnectionId(1), Fault.CLOSED_RESTARTING, "", [TurnId("t1")], 0.5)
        story >> passed(0.7)
        story >> passed(0.1) << opens(2)
        story >> opened(2) << sends("t1", 2, why="connection_lost")


def test_dials_are_a_fifth_of_the_turns_in_the_long_run() -> None:
    story = book(connection=ConnectionLimits(max_in_flight=1))
    dials = 0
    for number in range(400):
        story >> arrived(f"t{number}", session=f"s{number % 3}")
        got = story.take()
        for dial in [c for c in got if isinstance(c, OpenConnection)]:
            dials += 1
            story >> opened(dial.connection)
            sent_now = [c for c in story.take() if isinstance(c, SendTurn)]
            unsent = [c.turn for c in sent_now]
            story >> ConnectionLost(dial.connection, Fault.CONNECTION_ENDED, "", unsent)
            story.take()
            story >> ClientLeft(TurnId(f"t{number}"))
            story.take()
        story >> passed(0.1)
        story.take()
    assert dials <= 16 + 400 * 0.2 + 40 / 6 + 1


def test_a_dial_that_nobody_waits_for_any_more_is_used_by_the_next() -> None:
    with book() as story:
        story >> arrived("t1") << opens(1)
        story >> ClientLeft(TurnId("t1"))
        story >> arrived("t2")
        story >> opened(1) << sends("t2", 1)


def test_turns_do_not_all_wait_for_one_dial_that_can_carry_one() -> None:
    with book(lanes=Lanes.OFF) as story:
        story >> arrived("t1") << opens(1)
        story >> arrived("t2") << opens(2)
        story >> opened(2) << sends("t1", 2, "")
        story >> opened(1) << sends("t2", 1, "")


def test_what_is_sent_in_full_again_after_a_loss_says_so() -> None:
    with book() as story:
        placed(story, "t1")
        story >> ConnectionLost(ConnectionId(1), Fault.CONNECTION_RESET, "", [TurnId("t1")])
        story << opens(2)
        story >> opened(2) << sends("t1", 2, why="connection_lost")


def test_a_turn_that_is_nowhere_named_as_unsent_is_not_sent_again() -> None:
    with book() as story:
        placed(story, "t1")
        story >> ConnectionLost(ConnectionId(1), Fault.CONNECTION_RESET, "why", [])
        story << RefuseTurn(TurnId("t1"), 502, "upstream_outcome_unknown", "why", True)


def test_a_limit_reached_moves_the_turn_to_a_new_connection() -> None:
    with book(pool=PoolLimits(max_per_key_with_lanes=1)) as story:
        placed(story, "t1")
        story >> sent("t1")
        story >> error(1, None, 400, code="websocket_connection_limit_reached") << ANY << opens(2)
        story >> opened(2) << sends("t1", 2)
        story >> completed(2, "l01") << Answer(TurnId("t1")) << finishes("t1")


def said(story: Playbook) -> list[tuple[str, str | None]]:
    return [(note.event, note.fault) for note in story.notes]


@pytest.mark.parametrize("heals", [False, True], ids=["refused again", "heals"])
def test_the_log_is_told_once_that_no_websocket_is_to_be_had(heals: bool) -> None:
    with refused(Fault.UPGRADE_UNAUTHORIZED) as story:
        story >> passed(60)
        story >> arrived("t2") << opens(2) << https("t2")
        story >> (opened(2) if heals else failed(2, Fault.UPGRADE_UNAUTHORIZED))
        healed = [("websocket.available", None)] if heals else []
        assert said(story) == [("websocket.unavailable", "F34"), *healed]


def test_the_log_is_told_of_a_connection_that_is_lost_under_its_turns() -> None:
    with book() as story:
        started(story, "t1")
        story >> ConnectionLost(ConnectionId(1), Fault.CONNECTION_RESET, "why", [])
        story.take()
        assert said(story) == [("connection.lost", "F01")]
        [note] = story.notes
        assert (note.detail, note.is_warning) == ("1 turn on it; why", True)


def test_an_idle_connection_that_ends_is_not_worth_a_line() -> None:
    with book() as story:
        started(story, "t1")
        story >> completed(1, "l01", "resp_t1")
        story.take()
        story >> ConnectionLost(ConnectionId(1), Fault.CLOSED_NORMALLY, "why", [])
        assert said(story) == []
