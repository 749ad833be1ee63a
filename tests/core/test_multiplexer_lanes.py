"""Lanes are discovered, remembered, and doubted again (contract §3)."""

from __future__ import annotations

import pytest

from tests.core.playbook import Playbook
from tests.core.stage import (
    ANY,
    KEY,
    arrived,
    book,
    completed,
    created,
    error,
    finishes,
    frame,
    opened,
    opens,
    passed,
    sends,
    sent,
)
from wsproxy.core.commands import AbortConnection, Answer, CloseConnection, RefuseTurn, RelayError
from wsproxy.core.events import MessageRefused
from wsproxy.core.ids import ConnectionId, TurnId
from wsproxy.core.multiplex.connection import Lanes
from wsproxy.core.multiplex.recovery import Fault


def finding_out() -> Playbook:
    """One turn is alone in flight; two others came with it."""
    story = book(lanes=Lanes.UNKNOWN)
    story >> arrived("t1") << opens(1)
    story >> arrived("t2")
    story >> arrived("t3")
    story >> opened(1) << sends("t1")
    story >> sent("t1")
    return story


def belief(story: Playbook) -> Lanes:
    return story.core.beliefs.of(KEY).lanes


def test_the_others_start_at_once_when_the_first_event_echoes_its_lane() -> None:
    with finding_out() as story:
        story >> created(1, "l01") << Answer(TurnId("t1"))
        story << sends("t2", lane="l02") << sends("t3", lane="l03")
        assert belief(story) is Lanes.ON


def test_the_others_take_connections_of_their_own_when_there_is_no_echo() -> None:
    with finding_out() as story:
        story >> created(1, None) << Answer(TurnId("t1")) << opens(2) << opens(3)
        story >> opened(2) << sends("t2", 2, "")
        story >> opened(3) << sends("t3", 3, "")
        assert belief(story) is Lanes.OFF


def test_the_others_take_connections_of_their_own_after_two_seconds() -> None:
    with finding_out() as story:
        story >> passed(1.9)
        story >> passed(0.1) << opens(2) << opens(3)
        story >> opened(2) << sends("t2", 2)
        story >> created(1, "l01") << Answer(TurnId("t1")) << sends("t3", 1, "l02")


def test_without_lanes_turns_follow_each_other_on_the_default_lane() -> None:
    with book(lanes=Lanes.UNKNOWN) as story:
        story >> arrived("t1") << opens(1)
        story >> opened(1) << sends("t1", lane="l01")
        story >> created(1, None) << Answer(TurnId("t1"))
        story >> completed(1, None) << finishes("t1")
        story >> arrived("t2") << sends("t2", lane="")


def test_what_was_learned_holds_for_the_next_connection() -> None:
    with book(lanes=Lanes.UNKNOWN) as story:
        story >> arrived("t1") << opens(1)
        story >> opened(1) << sends("t1")
        story >> created(1, "l01") << Answer(TurnId("t1"))
        story >> arrived("t2", session="b") << opens(2)
        story >> arrived("t3", session="b")
        story >> opened(2) << sends("t2", 2, "l01") << sends("t3", 2, "l02")


def test_a_first_event_that_is_an_error_without_a_lane_tells_nothing() -> None:
    with finding_out() as story:
        story >> error(1, None, 429) << RelayError(TurnId("t1"), ANY) << sends("t2", lane="l01")
        assert belief(story) is Lanes.UNKNOWN


def test_an_error_that_names_the_lane_is_an_echo() -> None:
    with finding_out() as story:
        story >> error(1, "l01", 429) << RelayError(TurnId("t1"), ANY)
        story << sends("t2", lane="l01") << sends("t3", lane="l02")
        assert belief(story) is Lanes.ON


@pytest.mark.parametrize(
    "refusal",
    [
        {"code": "invalid_stream_id"},
        {"code": "unknown_parameter", "param": "stream_id"},
        {"code": None, "message": "Unknown parameter: 'stream_id'."},
    ],
    ids=["by code", "by parameter", "by message"],
)
def test_a_refused_field_is_left_out_and_the_turn_retried(refusal: dict[str, str]) -> None:
    with book(lanes=Lanes.UNKNOWN) as story:
        story >> arrived("t1") << opens(1)
        story >> opened(1) << sends("t1", lane="l01")
        story >> sent("t1")
        story >> error(1, None, 400, **refusal) << sends("t1", lane="")
        story >> created(1, None) << Answer(TurnId("t1"))
        assert belief(story) is Lanes.OFF


def test_a_field_may_be_refused_as_the_last_thing_of_a_retired_connection() -> None:
    with book(lanes=Lanes.UNKNOWN) as story:
        story >> arrived("t1") << opens(1)
        story >> opened(1) << sends("t1", lane="l01")
        story >> sent("t1")
        story >> MessageRefused(ConnectionId(1), Fault.LATE_EVENT, "why")
        story >> error(1, None, 400, param="stream_id")
        story << CloseConnection(ConnectionId(1)) << opens(2)
        story >> opened(2) << sends("t1", 2, lane="")


def test_a_field_refused_later_retires_the_connection_and_is_left_out_from_then_on() -> None:
    with finding_out() as story:
        story >> created(1, "l01") << Answer(TurnId("t1"))
        story << sends("t2", lane="l02") << sends("t3", lane="l03")
        story >> completed(1, "l01") << finishes("t1")
        story >> created(1, "l03") << Answer(TurnId("t3"))
        story >> completed(1, "l03") << finishes("t3")
        story >> sent("t2")
        story >> error(1, "l02", 400, param="stream_id")
        story << CloseConnection(ConnectionId(1)) << opens(2)
        story >> opened(2) << sends("t2", 2, lane="")
        assert story.core.turns[TurnId("t2")].was_refused, "a second refusal is relayed"


def test_a_missing_echo_cuts_the_connection_and_forgets_the_belief() -> None:
    with finding_out() as story:
        story >> created(1, "l01") << Answer(TurnId("t1"))
        story << sends("t2", lane="l02") << sends("t3", lane="l03")
        story >> sent("t2")
        story >> sent("t3")
        story >> completed(1, "l01") << finishes("t1")
        story >> frame(1, "response.created") << AbortConnection(ConnectionId(1))
        for turn in ("t2", "t3"):
            story << RefuseTurn(
                TurnId(turn),
                502,
                "upstream_protocol_error",
                "response.created",
                is_outcome_unknown=True,
            )
        assert belief(story) is Lanes.UNKNOWN


def test_a_missing_echo_does_not_change_what_the_operator_said() -> None:
    with book(lanes=Lanes.ON) as story:
        story >> arrived("t1") << opens(1)
        story >> opened(1) << sends("t1")
        story >> sent("t1")
        story >> frame(1, "response.created")
        story.take()
        assert belief(story) is Lanes.ON


def test_a_lane_named_after_none_was_echoed_is_nobodys() -> None:
    with book(lanes=Lanes.UNKNOWN) as story:
        story >> arrived("t1") << opens(1)
        story >> opened(1) << sends("t1", lane="l01")
        story >> created(1, None) << Answer(TurnId("t1"))
        story >> frame(1, "response.output_text.delta", "l01") << AbortConnection(ConnectionId(1))
        story << ANY
        assert not story.core.turns


@pytest.mark.parametrize("family", ["codex.rate_limits", "response.metadata", "keepalive"])
def test_frames_of_the_connection_itself_touch_no_turn(family: str) -> None:
    with book() as story:
        story >> arrived("t1") << opens(1)
        story >> opened(1) << sends("t1")
        story >> sent("t1")
        story >> frame(1, family)
        story >> created(1, "l01") << Answer(TurnId("t1"))


def test_a_late_event_retires_an_idle_connection() -> None:
    with book() as story:
        story >> arrived("t1") << opens(1)
        story >> opened(1) << sends("t1")
        story >> completed(1, "l01") << Answer(TurnId("t1")) << finishes("t1")
        story >> frame(1, "response.output_text.delta", "l01") << CloseConnection(ConnectionId(1))


def test_a_late_event_lets_the_other_turns_finish() -> None:
    with book() as story:
        story >> arrived("t1") << opens(1)
        story >> arrived("t2")
        story >> opened(1) << sends("t1") << sends("t2", lane="l02")
        story >> completed(1, "l01") << Answer(TurnId("t1")) << finishes("t1")
        story >> frame(1, "response.output_text.delta", "l01")
        story >> arrived("t3") << opens(2)
        story >> completed(1, "l02") << Answer(TurnId("t2")) << finishes("t2")
        story << CloseConnection(ConnectionId(1))
