"""Age, idleness, pings, probes, deadlines, drain, and clients that leave (contract §3, §6)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.playbook import Playbook
from tests.core.stage import (
    ANY,
    KEY,
    arrived,
    assistant,
    book,
    completed,
    created,
    error,
    finished,
    finishes,
    frame,
    opened,
    opens,
    passed,
    placed,
    sends,
    sent,
    started,
    user,
)
from wsproxy.core.commands import (
    AbortConnection,
    Answer,
    BreakTurn,
    CloseConnection,
    RefuseTurn,
    SendPing,
)
from wsproxy.core.conversation.plan import Route
from wsproxy.core.events import ClientLeft, DrainBegun, PongReceived, Slept
from wsproxy.core.ids import ConnectionId, SessionName, TurnId
from wsproxy.core.multiplex.connection import ConnectionLimits, Lanes
from wsproxy.core.multiplex.pool import PoolLimits

C1, C2 = ConnectionId(1), ConnectionId(2)
SESSION = SessionName(b"s")
T1, T2 = TurnId("t1"), TurnId("t2")
#: Silence proves nothing in these tests.
TRUSTING = ConnectionLimits(probe_after_s=1e9)
PATIENT = {"first_event_timeout_s": 0.0, "event_idle_timeout_s": 0.0}


def idle(**options: Any) -> Playbook:
    """One open connection, warm with one conversation."""
    story = book(**{"connection": TRUSTING, **options})
    started(story, "t1")
    finished(story, "t1")
    return story


# ── Age ──────────────────────────────────────────────────────────────────────────────────────


def test_a_successor_is_dialled_before_it_is_needed() -> None:
    with idle(pool=PoolLimits(idle_s=1e9, spare_idle_s=1e9)) as story:
        story >> passed(2965)
        story >> passed(10) << opens(2)
        story >> opened(2)
        story >> arrived("t2") << sends("t2", 1, "l02")
        story >> completed(1, "l02") << Answer(T2) << finishes("t2")
        story >> passed(25) << CloseConnection(C1)
        story >> arrived("t3") << sends("t3", 2)


def test_the_successor_serves_the_same_sessions() -> None:
    with book(connection=TRUSTING, pool=PoolLimits(1, 1, spare_idle_s=1e9, idle_s=1e9)) as story:
        started(story, "t1", session="a")
        started(story, "t2", session="b")
        finished(story, "t1")
        finished(story, "t2")
        story >> passed(3005) << CloseConnection(C1)
        assert story.core.pool.connections == []  # at its limit a key cannot dial ahead
    with book(connection=TRUSTING, pool=PoolLimits(idle_s=1e9, spare_idle_s=1e9)) as story:
        started(story, "t1")
        finished(story, "t1")
        story.core.pool.connections[0].preferred_by(SessionName(b"another"))
        story >> passed(2980) << opens(2)
        assert set(story.core.pool.connections[1].sessions) == {SESSION, b"another"}


def test_nobody_replaces_a_connection_that_is_not_used() -> None:
    with idle(pool=PoolLimits(idle_s=1e9, spare_idle_s=120)) as story:
        story >> passed(3005) << CloseConnection(C1)


def test_an_old_connection_finishes_what_runs_and_closes_when_empty() -> None:
    with book(connection=TRUSTING, **PATIENT) as story:
        started(story, "t1")
        story >> passed(2975) << opens(2)
        story >> opened(2)
        story >> passed(30)
        story >> arrived("t2") << sends("t2", 2)
        story >> completed(1, "l01") << finishes("t1") << CloseConnection(C1)


def test_jitter_brings_the_end_of_an_age_forward() -> None:
    with book(connection=TRUSTING) as story:
        story >> arrived("t1") << opens(1)
        story >> opened(1, jitter_s=300) << sends("t1")
        [connection] = story.core.pool.connections
        assert connection.retire_at == story.now + 2700


def test_a_turn_that_may_not_fit_before_the_last_minute_goes_to_a_young_connection() -> None:
    with idle(pool=PoolLimits(idle_s=1e9, spare_idle_s=0), **PATIENT) as story:
        story.core.beliefs.turn_took(KEY, SESSION, 2000)
        story >> passed(1500)
        story >> arrived("fits") << sends("fits", 1, "l02")
        story >> passed(50) << opens(2)
        story >> opened(2)
        story >> arrived("t3") << sends("t3", 2)


def test_no_turn_outlives_its_connection() -> None:
    with book(connection=TRUSTING, **PATIENT) as story:
        started(story, "t1")
        placed(story, "t2")
        story >> sent("t2")
        story >> passed(3595)
        story.take()
        story >> passed(10) << AbortConnection(C1) << BreakTurn(T1, "upstream_timeout", ANY)
        story << RefuseTurn(T2, 504, "upstream_outcome_unknown", ANY, True)


def test_a_machine_that_slept_has_older_connections() -> None:
    with idle() as story:
        story >> Slept(3600) << AbortConnection(C1)


# ── Idleness ─────────────────────────────────────────────────────────────────────────────────


def test_an_idle_connection_closes_after_fifteen_minutes() -> None:
    with idle() as story:
        story >> passed(895)
        story >> passed(5) << CloseConnection(C1)
        assert story.core.next_alarm() is None


def test_idle_connections_beyond_the_few_kept_warm_close_after_two_minutes() -> None:
    with book(connection=TRUSTING, pool=PoolLimits(max_warm_idle=2)) as story:
        for number in range(1, 5):
            started(story, f"t{number}", connection=number, session=f"s{number}")
            finished(story, f"t{number}", connection=number)
            story >> passed(0.1)
        story >> passed(125)
        story << CloseConnection(C1) << CloseConnection(C2)


# ── Pings and probes ─────────────────────────────────────────────────────────────────────────


def test_a_busy_connection_is_pinged_every_ten_seconds_and_an_idle_one_every_twenty() -> None:
    with book(ping_busy_s=10, ping_idle_s=20) as story:
        started(story, "t1")
        story >> passed(10) << SendPing(C1)
        story >> PongReceived(C1)
        finished(story, "t1")
        story >> passed(10) << SendPing(C1)
        story >> PongReceived(C1)
        story >> passed(19)
        story >> passed(1) << SendPing(C1)


def test_no_ping_is_sent_behind_a_frame_that_is_leaving() -> None:
    with book(ping_busy_s=10) as story:
        placed(story, "t1")
        story >> passed(35)
        story >> sent("t1")
        story >> passed(5) << SendPing(C1)


def test_a_late_pong_is_only_noted_while_a_turn_runs() -> None:
    with book(ping_busy_s=10) as story:
        started(story, "t1")
        story >> passed(60)
        for _ in range(6):
            story << SendPing(C1)
        assert [note.event for note in story.notes].count("pong.late") == 5


def test_where_the_kernel_tells_no_dead_path_a_minute_of_silence_does() -> None:
    with book(ping_busy_s=10, dead_after_silence_s=60) as story:
        started(story, "t1")
        story >> passed(10) << SendPing(C1)
        story >> PongReceived(C1)
        story >> passed(59)
        story.take()
        story >> passed(11) << AbortConnection(C1) << BreakTurn(T1, "upstream_timeout", ANY)


def test_a_connection_that_never_answered_a_ping_is_not_dead_for_it() -> None:
    with book(ping_busy_s=10, dead_after_silence_s=60) as story:
        started(story, "t1")
        story >> passed(200)
        assert T1 in story.core.turns
        assert set(map(type, story.take())) == {SendPing}


def test_after_a_silence_the_road_is_proven_before_a_turn_is_trusted_to_it() -> None:
    with idle(connection=ConnectionLimits()) as story:
        story >> passed(26)
        story >> arrived("t2") << SendPing(C1)
        story >> arrived("t3")
        story >> PongReceived(C1) << sends("t2", 1, "l02") << sends("t3", 1, "l03")


def test_a_connection_that_was_heard_of_lately_needs_no_proof() -> None:
    with idle(connection=ConnectionLimits()) as story:
        story >> passed(24)
        story >> arrived("t2") << sends("t2", 1, "l02")


def test_a_road_that_is_not_proven_in_two_seconds_is_given_up() -> None:
    with idle(connection=ConnectionLimits()) as story:
        story >> passed(26)
        story >> arrived("t2") << SendPing(C1)
        story >> passed(1.9)
        story >> passed(0.1) << AbortConnection(C1) << opens(2)
        story >> opened(2) << sends("t2", 2)


def test_where_pongs_are_slow_the_proof_may_take_five_seconds() -> None:
    with idle(connection=ConnectionLimits(), ping_busy_s=20, ping_idle_s=1e9) as story:
        story >> passed(20) << SendPing(C1)
        story >> passed(1.5)
        story >> PongReceived(C1)
        story >> Slept(60)
        story >> arrived("t2") << SendPing(C1)
        story >> passed(4.9)
        story >> PongReceived(C1) << sends("t2", 1, "l02")


def test_a_failed_proof_lets_running_turns_go_on() -> None:
    with book(**PATIENT) as story:
        started(story, "t1")
        story >> passed(30)
        story >> arrived("t2") << SendPing(C1)
        story >> passed(2) << opens(2)
        story >> completed(1, "l01") << finishes("t1") << CloseConnection(C1)


def test_after_a_sleep_every_road_is_proven_again() -> None:
    with idle(connection=ConnectionLimits()) as story:
        story >> Slept(30)
        story >> arrived("t2", user("t1"), assistant("t1"), user("x")) << SendPing(C1)
        story >> PongReceived(C1)
        story << sends("t2", 1, "l01", "resp_t1", 2, Route.DELTA, why=None)


def test_a_client_that_chains_by_itself_waits_for_the_proof_too() -> None:
    with idle(connection=ConnectionLimits()) as story:
        story >> Slept(30)
        story >> arrived("t2", previous_response_id="resp_t1") << SendPing(C1)
        story >> PongReceived(C1) << sends("t2", 1, "l01")


# ── Deadlines ────────────────────────────────────────────────────────────────────────────────


def test_a_turn_that_hears_nothing_ends_and_its_connection_with_it() -> None:
    with book() as story:
        placed(story, "t1")
        story >> sent("t1")
        story >> passed(599)
        story >> passed(1) << RefuseTurn(T1, 504, "upstream_outcome_unknown", ANY, True)
        story << AbortConnection(C1)


def test_each_event_moves_the_deadline() -> None:
    with book() as story:
        started(story, "t1")
        for _ in range(3):
            story >> passed(899)
            story >> frame(1, "response.output_text.delta", "l01")
        assert T1 in story.core.turns
        story.take()
        story >> passed(900)
        assert BreakTurn(T1, "upstream_timeout", ANY) in story.take()


def test_silence_on_one_lane_lets_the_others_finish() -> None:
    with book(event_idle_timeout_s=30) as story:
        started(story, "t1", "t2")
        story >> passed(20)
        story >> frame(1, "response.output_text.delta", "l02")
        story >> passed(10) << BreakTurn(T1, "upstream_timeout", ANY)
        story >> arrived("t3") << opens(2)
        story >> completed(1, "l02") << finishes("t2") << AbortConnection(C1)


def test_a_frame_that_never_leaves_cuts_the_connection_and_goes_elsewhere() -> None:
    with book() as story:
        placed(story, "t1")
        story >> passed(600) << AbortConnection(C1) << opens(2)
        story >> opened(2) << sends("t1", 2)


def test_no_limit_means_none() -> None:
    with book(connection=TRUSTING, **PATIENT) as story:
        started(story, "t1")
        story >> passed(2900)
        assert T1 in story.core.turns


def test_the_limit_between_events_holds_where_there_is_none_for_the_first() -> None:
    with book(first_event_timeout_s=0, event_idle_timeout_s=30) as story:
        started(story, "t1")
        story >> passed(30) << BreakTurn(T1, "upstream_timeout", ANY) << AbortConnection(C1)


# ── Clients that leave ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("has_begun", [False, True], ids=["sent", "started"])
def test_the_only_turn_of_a_connection_is_cancelled_by_closing_it(has_begun: bool) -> None:
    with book() as story:
        placed(story, "t1")
        story >> sent("t1")
        if has_begun:
            story >> created(1, "l01") << Answer(T1)
        story >> ClientLeft(T1) << AbortConnection(C1)
        assert len(story.core._board.alarms) == 1, "but the upkeep"


def test_beside_others_an_abandoned_turn_drains_and_leaves_its_lane_cold() -> None:
    with book() as story:
        started(story, "t1", "t2")
        story >> ClientLeft(T1)
        story >> frame(1, "response.output_text.delta", "l01")
        found = story.core.relays[C1].find(T1)
        assert found is not None
        assert b"output_text" not in found.take_pending(), "nobody reads it, nobody keeps it"
        story >> completed(1, "l01", "resp_t1", [assistant("t1")])
        story >> arrived("t3", user("t1"), assistant("t1"), user("x"))
        story << sends("t3", 1, "l01", why="new_conversation")


def test_the_last_client_to_leave_closes_the_connection_on_all_that_were_abandoned() -> None:
    with book() as story:
        started(story, "t1", "t2")
        story >> ClientLeft(T1)
        story >> ClientLeft(T2) << AbortConnection(C1)


def test_an_abandoned_turn_that_never_ends_does_not_keep_its_connection_forever() -> None:
    with book(event_idle_timeout_s=30) as story:
        started(story, "t1", "t2")
        story >> ClientLeft(T1)
        story >> completed(1, "l02") << finishes("t2")
        story >> passed(30) << AbortConnection(C1)


def test_a_client_that_leaves_after_the_end_abandons_nothing() -> None:
    with idle() as story:
        story >> ClientLeft(T1)
        story >> arrived("t2", user("t1"), assistant("t1"), user("x"))
        story << sends("t2", 1, "l01", "resp_t1", 2, Route.DELTA, why=None)


def test_an_error_for_an_abandoned_turn_frees_its_lane() -> None:
    with book() as story:
        started(story, "t1", "t2")
        story >> ClientLeft(T1)
        story >> error(1, "l01", 500)
        [connection] = story.core.pool.connections
        assert connection.in_flight == 1


# ── Drain ────────────────────────────────────────────────────────────────────────────────────


def test_a_drain_lets_finish_what_can_finish() -> None:
    with book() as story:
        started(story, "t1")
        story >> DrainBegun(story.now + 120)
        story >> passed(119)
        story >> completed(1, "l01") << finishes("t1")


def test_what_waits_in_the_queue_when_a_drain_begins_is_still_sent() -> None:
    with book() as story:
        story >> arrived("t1") << opens(1)
        story >> DrainBegun(story.now + 120)
        story >> opened(1) << sends("t1")


def test_at_the_deadline_each_turn_is_told_how_far_it_got() -> None:
    with book() as story:
        started(story, "started")
        placed(story, "sent", "unsent")
        story >> sent("sent")
        story >> arrived("queued", session="b") << opens(2)
        story >> DrainBegun(story.now + 1)
        story >> passed(1) << AbortConnection(C1)
        story << BreakTurn(TurnId("started"), "proxy_draining", ANY)
        story << RefuseTurn(TurnId("sent"), 503, "upstream_outcome_unknown", ANY, True)
        for turn in ("queued", "unsent"):
            story << RefuseTurn(TurnId(turn), 503, "proxy_draining", ANY, False, 1, True)


def test_a_second_drain_whose_deadline_is_now_cuts_at_once() -> None:
    with book() as story:
        started(story, "t1")
        story >> DrainBegun(story.now + 120)
        story >> DrainBegun(story.now) << AbortConnection(C1)
        story << BreakTurn(T1, "proxy_draining", ANY)


def test_lanes_that_are_off_age_and_ping_alike() -> None:
    with book(lanes=Lanes.OFF, ping_idle_s=20) as story:
        story >> arrived("t1") << opens(1)
        story >> opened(1) << sends("t1", lane="")
        story >> completed(1, None) << Answer(T1) << finishes("t1")
        story >> passed(1000)
        assert story.take()[-1] == CloseConnection(C1)
