"""Upstream's messages find their turn, or nobody gets them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.canary import TEXT, WATCH
from wsproxy.core.api.events import Received
from wsproxy.core.events import (
    ContextLost,
    ErrorReceived,
    MessageRefused,
    TurnEnded,
    TurnStarted,
)
from wsproxy.core.ids import ConnectionId, LaneName, TurnId
from wsproxy.core.multiplex.recovery import Fault
from wsproxy.core.multiplex.relay import Relay, Stream, TurnLimits

C1, T1, T2 = ConnectionId(1), TurnId("t1"), TurnId("t2")


def payload(type_: str, lane: str | None = "l01", **members: Any) -> bytes:
    named = {} if lane is None else {"stream_id": lane}
    return json.dumps({"type": type_, **members, **named}, separators=(",", ":")).encode()


def stream(turn: TurnId = T1, parent: str | None = None, *, is_streaming: bool = True) -> Stream:
    restored = None if parent is None else b"null"
    return Stream(turn, is_streaming=is_streaming, parent=parent, restored=restored)


def relay(*lanes: str, limits: TurnLimits | None = None) -> Relay:
    """One turn on each lane, named t1, t2, …"""
    it = Relay(C1, limits)
    for number, lane in enumerate(lanes, 1):
        it.add(LaneName(lane), stream(TurnId(f"t{number}")), is_default=not lane)
    return it


def begin(it: Relay, lane: str | None = "l01") -> None:
    started = it.receive(payload("response.created", lane, response={"id": "r", "said": TEXT}), 1.0)
    assert isinstance(started, TurnStarted)
    WATCH.look("what the relay shows", repr((it, started)))
    begun = it.find(started.turn)
    assert begun is not None
    begun.take_pending()  # as the driver does: it goes with the head


def drained(it: Relay) -> dict[TurnId, bytes]:
    written: dict[TurnId, bytes] = {}
    it.drain(lambda stream, data: written.__setitem__(stream.turn, data))
    return written


def test_the_first_event_starts_its_turn_and_the_next_are_only_gathered() -> None:
    it = relay("l01", "l02")
    begin(it, "l02")
    assert it.receive(payload("response.output_text.delta", "l02", delta="a"), 2.0) is None
    assert drained(it) == {
        T2: b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta",'
        b'"delta":"a"}\n\n'
    }


def test_what_one_read_brought_is_written_once() -> None:
    it = relay("l01", "l02")
    begin(it, "l01")
    begin(it, "l02")
    for number in range(3):
        it.receive(payload("response.output_text.delta", "l01", delta=str(number)), 2.0)
        it.receive(payload("response.output_text.delta", "l02", delta=str(number)), 2.0)
    written = drained(it)
    assert [data.count(b"event: ") for data in written.values()] == [3, 3]
    assert drained(it) == {}


def test_numbers_are_those_of_the_turn() -> None:
    it = relay("l01")
    found = it.receive(payload("response.created", sequence_number=40, response={}), 1.0)
    assert isinstance(found, TurnStarted)
    it.streams["l01"].forward(found.received)
    it.receive(payload("response.output_text.delta", sequence_number=43), 1.0)
    assert b'"sequence_number":0' in it.streams["l01"].pending[0]
    assert b'"sequence_number":1' in it.streams["l01"].pending[1]


@pytest.mark.parametrize("type_", ["codex.rate_limits", "response.metadata"])
def test_frames_of_the_connection_are_handed_back_and_start_nothing(type_: str) -> None:
    it = relay("l01")
    assert isinstance(it.receive(payload(type_, None), 1.0), Received)
    assert not it.streams["l01"].is_started


@pytest.mark.parametrize(
    ("lane", "fault"),
    [("l01", Fault.LATE_EVENT), ("l99", Fault.UNATTRIBUTABLE_EVENT), (None, Fault.LATE_EVENT)],
    ids=["after the end", "never given", "no lane, nothing in flight"],
)
def test_an_event_of_no_turn_is_nobodys(lane: str | None, fault: Fault) -> None:
    it = relay("l01")
    it.remove(T1)
    found = it.receive(payload("response.output_text.delta", lane), 1.0)
    assert found == MessageRefused(C1, fault, "response.output_text.delta")


def test_an_event_without_its_lane_is_nobodys_while_lanes_are_in_use() -> None:
    found = relay("l01").receive(payload("response.created", None), 1.0)
    assert found == MessageRefused(C1, Fault.UNATTRIBUTABLE_EVENT, "response.created")


def test_a_foreign_type_without_a_lane_is_swallowed() -> None:
    assert relay("l01").receive(payload("keepalive", None), 1.0) is None


def test_the_turn_that_finds_out_gets_its_events_with_or_without_a_lane() -> None:
    for lane in ("l01", None):
        it = Relay(C1)
        it.add(LaneName("l01"), stream(), is_default=True)
        found = it.receive(payload("response.created", lane, response={}), 1.0)
        assert isinstance(found, TurnStarted)
        assert found.has_echo is (lane is not None)


def test_once_lanes_are_known_an_event_without_one_is_nobodys() -> None:
    it = Relay(C1)
    it.add(LaneName("l01"), stream(), is_default=True)
    begin(it, "l01")
    it.lanes_known(has_lanes=True)
    found = it.receive(payload("response.output_text.delta", None), 1.0)
    assert isinstance(found, MessageRefused)
    assert found.fault is Fault.UNATTRIBUTABLE_EVENT


def test_once_lanes_are_known_to_be_missing_a_named_event_is_nobodys() -> None:
    it = Relay(C1)
    it.add(LaneName("l01"), stream(), is_default=True)
    begin(it, None)
    it.lanes_known(has_lanes=False)
    found = it.receive(payload("response.output_text.delta", "l01"), 1.0)
    assert isinstance(found, MessageRefused)
    assert found.fault is Fault.UNATTRIBUTABLE_EVENT


@pytest.mark.parametrize("text", ["not json", "[]", '{"type":"a b"}', '{"no":"type"}'])
def test_what_is_no_event_is_refused(text: str) -> None:
    found = relay("l01").receive(text.encode(), 1.0)
    assert isinstance(found, MessageRefused)
    assert found.fault is Fault.INVALID_EVENT


TWICE = b'{"type":"%b","\\u0073tream_id":"l01","stream_id":"l01","sequence_number":0}'


@pytest.mark.parametrize("is_begun", [False, True], ids=["first", "later"])
@pytest.mark.parametrize(
    "type_",
    ["response.created", "response.completed", "response.failed", "response.output_text.delta"],
)
def test_an_event_that_cannot_be_edited_is_refused_and_takes_no_number(
    type_: str, is_begun: bool
) -> None:
    it = relay("l01")
    if is_begun:
        begin(it)
    refused = it.receive(TWICE % type_.encode(), 2.0)
    assert isinstance(refused, MessageRefused)
    assert refused.fault is Fault.INVALID_EVENT
    running = it.find(T1)
    assert running is not None
    assert (running.next_number, running.take_pending()) == (0, b"")


@pytest.mark.parametrize("lane", ['"l01"', "null"], ids=["of a turn", "of nobody"])
@pytest.mark.parametrize("twice", ['"status":1,"status":2', '"error":{"code":"a","code":"b"}'])
def test_an_error_that_cannot_be_read_is_refused(lane: str, twice: str) -> None:
    refused = relay("l01").receive(f'{{"type":"error","stream_id":{lane},{twice}}}'.encode(), 1.0)
    assert isinstance(refused, MessageRefused)
    assert refused.fault is Fault.INVALID_EVENT


def test_an_error_names_its_turn_or_nobody() -> None:
    it = relay("l01", "l02")
    named = it.receive(payload("error", "l02", status=400), 1.0)
    assert isinstance(named, ErrorReceived)
    assert (named.turn, named.is_first, named.has_echo) == (T2, True, True)
    unnamed = it.receive(payload("error", None, status=400), 1.0)
    assert isinstance(unnamed, ErrorReceived)
    assert unnamed.turn is None


@pytest.mark.parametrize(
    ("named", "is_lost"),
    [("resp_1", False), (None, False), ("resp_2", True)],
    ids=["ours", "null", "another"],
)
def test_the_tripwire(named: str | None, is_lost: bool) -> None:
    it = Relay(C1)
    it.add(LaneName("l01"), stream(parent="resp_1"), is_default=False)
    response = {"id": "r", "previous_response_id": named}
    found = it.receive(payload("response.created", response=response), 1.0)
    assert isinstance(found, ContextLost) is is_lost


NONE = {"id": "r", "previous_response_id": None}


@pytest.mark.parametrize(
    ("type_", "response", "expects", "kind"),
    [
        ("response.created", NONE, True, ContextLost),
        ("response.created", NONE, False, TurnStarted),
        ("response.created", {"id": "r"}, True, TurnStarted),
        ("response.failed", NONE, True, TurnEnded),
        ("response.failed", {"id": "r"}, True, TurnEnded),
    ],
    ids=["denied", "never named", "not said", "a failure denies", "a failure says nothing"],
)
def test_to_deny_the_parent_is_a_loss_only_at_a_beginning_and_where_they_were_named(
    type_: str, response: dict[str, Any], expects: bool, kind: type[object]
) -> None:
    it = Relay(C1)
    begun = Stream(T1, is_streaming=True, parent="p", restored=b"null", expects_parent=expects)
    it.add(LaneName("l01"), begun, is_default=False)
    assert isinstance(it.receive(payload(type_, response=response), 1.0), kind)


def test_a_parent_once_named_need_not_be_named_in_every_event() -> None:
    it = Relay(C1)
    begun = Stream(T1, is_streaming=True, parent="p", restored=b"null", expects_parent=True)
    it.add(LaneName("l01"), begun, is_default=False)
    named = {"id": "r", "previous_response_id": "p"}
    assert isinstance(it.receive(payload("response.created", response=named), 1.0), TurnStarted)
    assert it.receive(payload("response.in_progress", response={"id": "r"}), 1.0) is None
    assert begun.is_parent_shown


def test_the_id_we_added_is_never_shown() -> None:
    it = Relay(C1)
    it.add(LaneName("l01"), stream(parent="resp_1"), is_default=False)
    response = {"id": "r", "previous_response_id": "resp_1"}
    found = it.receive(payload("response.created", response=response), 1.0)
    assert isinstance(found, TurnStarted)
    it.streams["l01"].forward(found.received)
    assert b'"previous_response_id":null' in it.streams["l01"].take_pending()


ITEM = {"type": "message", "role": "assistant", "id": "m", "content": []}


@pytest.mark.parametrize(
    ("done", "final", "count"),
    [
        ([0, 1], [ITEM, ITEM], 2),
        ([1, 0], [], 2),
        ([0], [ITEM, ITEM], None),
        ([0, 2], [], None),
        ([], [], 0),
        ([None], [], None),
    ],
    ids=["both", "empty at the end", "one more at the end", "a gap", "none", "no index"],
)
def test_outputs_are_known_only_if_none_is_missing(
    done: list[int | None], final: list[Any], count: int | None
) -> None:
    it = relay("l01")
    begin(it)
    for index in done:
        it.receive(payload("response.output_item.done", output_index=index, item=ITEM), 1.0)
    found = it.receive(payload("response.completed", response={"id": "r", "output": final}), 1.0)
    assert isinstance(found, TurnEnded)
    assert (None if found.outputs is None else len(found.outputs)) == count


@pytest.mark.parametrize("is_begun", [True, False], ids=["begun", "only sent"])
@pytest.mark.parametrize("type_", ["response.completed", "response.failed"])
def test_a_terminal_event_that_comes_twice_ends_no_other_turn(type_: str, is_begun: bool) -> None:
    it = relay("l01")
    begin(it)
    ends = payload(type_, response={"id": "r", "output": []})
    assert isinstance(it.receive(ends, 1.0), TurnEnded)
    it.remove(T1)
    it.add(LaneName("l01"), stream(T2), is_default=False)
    if is_begun:
        it.receive(payload("response.created", response={"id": "r2"}), 2.0)
    found = it.receive(ends, 3.0)
    assert isinstance(found, MessageRefused)
    assert found.fault is Fault.UNATTRIBUTABLE_EVENT


def test_the_end_of_another_lane_s_response_ends_nobody() -> None:
    it = relay("l01", "l02")
    begin(it, "l01")
    it.receive(payload("response.created", "l02", response={"id": "r2"}), 1.0)
    found = it.receive(payload("response.completed", "l02", response={"id": "r"}), 2.0)
    assert isinstance(found, MessageRefused)
    assert found.fault is Fault.UNATTRIBUTABLE_EVENT


def test_a_response_that_changes_its_name_on_the_way_is_relayed_but_not_continued() -> None:
    it = relay("l01")
    begin(it)
    found = it.receive(payload("response.completed", response={"id": "x", "output": []}), 2.0)
    assert isinstance(found, TurnEnded)
    assert (found.response_id, found.outputs) == (None, None)


def test_an_upstream_that_names_every_response_the_same_is_believed() -> None:
    it = relay("l01")
    for turn in (T1, T2):
        it.add(LaneName("l01"), stream(turn), is_default=False)
        begin(it)
        end = it.receive(payload("response.completed", response={"id": "r", "output": []}), 2.0)
        assert isinstance(end, TurnEnded)
        it.remove(turn)


USAGE = {"input_tokens": 10, "output_tokens": 4, "output_tokens_details": {"reasoning_tokens": 1}}


@pytest.mark.parametrize(
    ("floor", "is_lost"), [(None, False), (10, False), (11, True)], ids=["unknown", "just", "less"]
)
def test_an_upstream_that_read_less_than_its_parent_had_has_forgotten_it(
    floor: int | None, is_lost: bool
) -> None:
    it = Relay(C1)
    it.add(LaneName("l01"), Stream(T1, is_streaming=True, parent="p", restored=b"null",
           floor_tokens=floor), is_default=False)  # fmt: skip
    begin(it)
    response = {"id": "r", "output": [], "usage": USAGE}
    found = it.receive(payload("response.completed", response=response), 2.0)
    assert isinstance(found, ContextLost if is_lost else TurnEnded)
    if isinstance(found, TurnEnded):
        assert found.tokens == (10, 3)


@pytest.mark.parametrize("type_", ["response.failed", "response.incomplete", "response.done"])
def test_only_a_completed_response_can_be_committed(type_: str) -> None:
    found = relay("l01").receive(payload(type_, response={"id": "r", "output": []}), 1.0)
    assert isinstance(found, TurnEnded)
    assert (found.response_id, found.outputs) == (None, None)


def test_what_nobody_waits_for_is_not_kept() -> None:
    it = relay("l01")
    begin(it)
    it.streams["l01"].is_discarding = True
    it.receive(payload("response.output_item.done", output_index=0, item=ITEM), 1.0)
    it.receive(payload("response.output_text.delta"), 1.0)
    assert it.streams["l01"].done == []
    assert drained(it) == {}


def test_a_turn_that_does_not_stream_gathers_no_bytes() -> None:
    it = Relay(C1)
    it.add(LaneName("l01"), stream(is_streaming=False), is_default=False)
    begin(it)
    it.receive(payload("response.output_text.delta"), 1.0)
    assert drained(it) == {}


@pytest.mark.parametrize(
    "limits", [TurnLimits(max_events=3), TurnLimits(max_bytes=200)], ids=["events", "bytes"]
)
def test_an_endless_turn_is_refused(limits: TurnLimits) -> None:
    it = relay("l01", limits=limits)
    begin(it)
    found = [it.receive(payload("response.output_text.delta", delta="x" * 20), 1.0) for _ in "123"]
    assert isinstance(found[-1], MessageRefused)
    assert found[-1].fault is Fault.MESSAGE_TOO_BIG


def test_times_of_the_first_event_and_the_first_output_are_kept() -> None:
    it = relay("l01")
    begin(it)
    it.receive(payload("response.in_progress", response={}), 2.0)
    it.receive(payload("response.output_text.delta"), 3.0)
    it.receive(payload("response.output_text.delta"), 4.0)
    its = it.streams["l01"]
    assert (its.first_event_at, its.first_output_at, its.heard_at) == (1.0, 3.0, 4.0)
