"""A waiting turn gets its place, shares one, or goes over HTTPS when nothing can come any more."""

from __future__ import annotations

from typing import Any

from tests.core.playbook import Playbook
from tests.core.stage import (
    KEY,
    arrived,
    assistant,
    book,
    completed,
    error,
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
from wsproxy.core.commands import Answer, CloseConnection, SendOverHttps, SendPing
from wsproxy.core.conversation.plan import Route, Why
from wsproxy.core.events import ConnectionLost, DialFailed, PongReceived, Slept
from wsproxy.core.ids import ConnectionId, TurnId
from wsproxy.core.multiplex.beliefs import STORED_OFF_S, STORED_REFUSALS
from wsproxy.core.multiplex.connection import ConnectionLimits, Lanes
from wsproxy.core.multiplex.recovery import Fault
from wsproxy.core.multiplex.turn import MAX_ATTEMPTS
from wsproxy.core.multiplex.upkeep import UPKEEP_S

C1 = ConnectionId(1)
T1 = TurnId("t1")


def https(turn: str, why: str = "no_websocket") -> SendOverHttps:
    return SendOverHttps(TurnId(turn), Why(why))


def failed(
    connection: int, fault: Fault = Fault.UNREACHABLE, retry_after_s: float | None = None
) -> DialFailed:
    return DialFailed(ConnectionId(connection), fault, None, retry_after_s, "why")


def one_running_without_lanes(**options: Any) -> Playbook:
    """One connection, and no room on it; its frame has not left."""
    story = book(lanes=Lanes.OFF, **options)
    placed(story, "t1")
    return story


# ── Sharing ──────────────────────────────────────────────────────────────────────────────────


def test_a_place_that_one_turn_shares_after_a_failed_dial_is_not_promised_to_another() -> None:
    with book(connection=ConnectionLimits(max_in_flight=2)) as story:
        started(story, "t1", session="a")
        story >> arrived("t2", session="b") << opens(2)
        story >> arrived("t3", session="b")
        story >> failed(2) << sends("t2", 1, "l02") << https("t3")


def test_a_dial_is_waited_for_by_as_many_turns_as_the_connection_will_carry() -> None:
    with book(connection=ConnectionLimits(max_in_flight=2)) as story:
        story >> arrived("t1") << opens(1)
        story >> arrived("t2")
        story >> arrived("t3") << opens(2)
        story >> opened(1) << sends("t1") << sends("t2", lane="l02")


# ── Sending ──────────────────────────────────────────────────────────────────────────────────


def test_a_frame_as_large_as_the_limit_is_sent_and_none_that_is_larger() -> None:
    with book(max_frame_bytes=1000) as story:
        started(story, "t1")
        story >> arrived("t2", frame_bytes=1000) << sends("t2", lane="l02")
        story >> arrived("t3", frame_bytes=1001) << https("t3", "too_large")


def test_only_a_turn_that_was_given_a_parent_has_null_put_back_in_its_place() -> None:
    with book() as story:
        started(story, "t1")
        restored = [story.core.turns[T1].stream]
        finished(story, "t1")
        story >> arrived("t2", user("t1"), assistant("t1"), user("more"))
        story << sends("t2", 1, "l01", "resp_t1", 2, Route.DELTA, why=None)
        restored.append(story.core.turns[TurnId("t2")].stream)
        assert [stream and stream.restored for stream in restored] == [None, b"null"]


def test_a_turn_that_was_sent_is_not_looked_at_as_if_it_waited() -> None:
    with book() as story:
        story >> arrived("t1") << opens(1)
        assert story.core.next_alarm() == story.now + story.core.options.handshake_wait_s
        story >> opened(1) << sends("t1")
        assert story.core.next_alarm() == story.now + UPKEEP_S


# ── No WebSocket to be had ───────────────────────────────────────────────────────────────────


def test_what_comes_back_from_the_last_connection_goes_over_https_while_dials_are_refused() -> None:
    with one_running_without_lanes() as story:
        story >> arrived("t2") << opens(2)
        story >> failed(2) << https("t2")
        story >> ConnectionLost(C1, Fault.CONNECTION_RESET, "", [T1]) << https("t1")


def test_a_turn_that_as_many_connections_as_it_may_try_did_not_run_goes_over_https() -> None:
    with book() as story:
        placed(story, "t1")
        for number in range(1, MAX_ATTEMPTS):
            story >> passed(10)
            story >> ConnectionLost(ConnectionId(number), Fault.CONNECTION_RESET, "", [T1])
            story << opens(number + 1)
            story >> opened(number + 1) << sends("t1", number + 1)
        story >> sent("t1", MAX_ATTEMPTS)
        story >> error(MAX_ATTEMPTS, None, 400, code="websocket_connection_limit_reached")
        story << CloseConnection(ConnectionId(MAX_ATTEMPTS)) << https("t1")


def test_a_dial_is_made_again_as_soon_as_the_pause_is_over() -> None:
    with one_running_without_lanes() as story:
        story >> arrived("t2") << opens(2)
        story >> failed(2, Fault.UPGRADE_RATE_LIMITED, 300) << https("t2")
        story >> passed(299)
        story >> arrived("t3")
        story >> passed(0.75) << https("t3", "busy")
        story >> passed(0.25)
        story >> arrived("t4") << opens(3)


# ── Roads and chains ─────────────────────────────────────────────────────────────────────────


def test_a_proof_that_was_slow_gives_the_next_one_more_time() -> None:
    with book() as story:
        started(story, "t1")
        finished(story, "t1")
        story >> passed(26)
        story >> arrived("t2") << SendPing(C1)
        story >> passed(1.5)
        story >> PongReceived(C1) << sends("t2", 1, "l02")
        story >> Slept(60)
        story >> arrived("t3") << SendPing(C1)
        story >> passed(4.9)
        story >> PongReceived(C1) << sends("t3", 1, "l03")


def test_stored_chains_are_tried_again_when_their_hour_is_over() -> None:
    with book() as story:
        story >> arrived("t1", store=True) << opens(1)
        story >> opened(1) << sends("t1")
        story >> completed(1, "l01", "resp_t1", [assistant("t1")]) << Answer(T1) << finishes("t1")
        story >> ConnectionLost(C1, Fault.CONNECTION_ENDED, "", ())
        for _ in range(STORED_REFUSALS):
            story.core.beliefs.stored_refused(KEY, story.now)
        story >> passed(STORED_OFF_S)
        story >> arrived("t2", user("t1"), assistant("t1"), user("more"), store=True) << opens(2)
        story >> opened(2) << sends("t2", 2, "l01", "resp_t1", 2, Route.DELTA, why=None)
