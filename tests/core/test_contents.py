"""What events hold of their response."""

from __future__ import annotations

import json

import pytest

from wsproxy.core.api import contents
from wsproxy.core.api.contents import ABSENT, Usage
from wsproxy.core.api.spans import EventError

# Reading more of an event -------------------------------------------------------------------

COMPLETED = b"""{"type":"response.completed","response":{"id":"resp_2","output":[ {"id":"m1"} ,
 {"text":"cnry7 text"}],"previous_response_id":"resp_1","usage":{"input_tokens":10,
 "input_tokens_details":{"cached_tokens":4},"output_tokens":2,"total_tokens":12}},"sequence_number":9}"""


def test_a_terminal_event_tells_id_parent_items_and_usage() -> None:
    assert contents.response_id(COMPLETED) == "resp_2"
    assert contents.echoed_parent(COMPLETED) == b'"resp_1"'
    assert contents.outputs(COMPLETED) == [b'{"id":"m1"}', b'{"text":"cnry7 text"}']
    assert contents.usage(COMPLETED) == Usage(input_tokens=10, cached_tokens=4, output_tokens=2)


@pytest.mark.parametrize(
    ("response", "parent", "is_shown"),
    [
        (b'{"previous_response_id":"resp_1"}', b'"resp_1"', True),
        (b'{"previous_response_id":"resp\\u005f1"}', b'"resp\\u005f1"', True),
        (b'{"previous_response_id":"resp_9"}', b'"resp_9"', False),
        (b'{"previous_response_id":7}', b"7", False),
        (b'{"previous_response_id":null}', None, None),
        (b"{}", ABSENT, None),
        (b"null", ABSENT, None),
        (b"[]", ABSENT, None),
    ],
)
def test_the_tripwire_sees_another_parent(
    response: bytes, parent: object, is_shown: bool | None
) -> None:
    payload = b'{"type":"response.created","response":%b}' % response
    assert contents.echoed_parent(payload) == parent
    assert contents.shows_parent(payload, "resp_1") is is_shown


@pytest.mark.parametrize(
    "response",
    [b"null", b"[]", b"{}", b'{"id":7,"usage":null,"output":null}', b'{"id":"","usage":{"x":1}}'],
)
def test_what_is_missing_reads_as_nothing(response: bytes) -> None:
    payload = b'{"type":"response.completed","response":%b}' % response
    assert contents.response_id(payload) is None
    assert contents.usage(payload) is None
    assert contents.outputs(payload) == []


@pytest.mark.parametrize(
    ("index", "expected"), [(b"3", 3), (b"-1", None), (b"1.0", None), (b'"1"', None)]
)
def test_a_done_item_keeps_its_bytes(index: bytes, expected: int | None) -> None:
    item = b'{"n": 1.0, "s":"\\ud83d", "item":1}'
    payload = b'{"type":"x","item": %b ,"output_index":%b}' % (item, index)
    assert contents.output_item(payload) == (expected, item)


def test_an_item_event_without_an_item_is_refused() -> None:
    with pytest.raises(EventError):
        contents.output_item(b'{"type":"response.output_item.done","output_index":0}')


@pytest.mark.parametrize(
    ("indexes", "is_gapless"),
    [([], True), ([0, 1], True), ([1, 0], True), ([0, 2], False), ([0, 0], False), ([None], False)],
)
def test_missing_items_are_noticed(indexes: list[int | None], is_gapless: bool) -> None:
    assert contents.is_gapless([(index, b"1") for index in indexes]) is is_gapless


def test_items_are_put_in_order() -> None:
    assert contents.ordered([(2, b"c"), (None, b"d"), (0, b"a"), (1, b"b")]) == [
        b"a",
        b"b",
        b"c",
        b"d",
    ]


def test_metadata_frames_announce_only_allowed_headers() -> None:
    payload = b"""{"type":"response.metadata","headers":{"X-Codex-Turn-State":"ts","openai-model":
    "m","x-codex-primary-window-minutes":15,"x-codex-x":100.0,"set-cookie":"no","x-models-etag":
    "a\\r\\nb","x-codex-list":["no"],"x-codex-bool":true,"x-codex- bad":"no","retry-after":"7"}}"""
    assert contents.announced_headers(payload) == [
        ("x-codex-turn-state", "ts"),
        ("openai-model", "m"),
        ("x-codex-primary-window-minutes", "15"),
        ("x-codex-x", "100.0"),
        ("retry-after", "7"),
    ]
    assert contents.announced_headers(payload, ["retry-*"]) == [("retry-after", "7")]
    assert contents.announced_headers(b'{"type":"response.metadata","headers":null}') == []
    twice = b'{"type":"response.metadata","headers":{"retry-after":1},"headers":{"retry-after":2}}'
    assert contents.announced_headers(twice) == []


# The answer of a turn that does not stream --------------------------------------------------


def test_an_empty_output_is_filled_and_the_parent_restored() -> None:
    response = b'{"id":"resp_2", "output": [ ],"previous_response_id":"resp_1","x":1.0}'
    payload = b'{"type":"response.completed","response":%b}' % response
    done = [b'{"a":1}', b'{"b":2}']
    assert contents.document(payload, done, b"null") == (
        b'{"id":"resp_2", "output": [{"a":1},{"b":2}],"previous_response_id":null,"x":1.0}'
    )
    assert contents.document(payload, []) == response


def test_an_output_that_is_there_is_left_alone() -> None:
    answer = json.loads(contents.document(COMPLETED, [b'{"id":"other"}']))
    assert answer == json.loads(COMPLETED)["response"]


@pytest.mark.parametrize("response", [b"", b',"response":null', b',"response":[]'])
def test_a_terminal_event_without_a_response_is_no_answer(response: bytes) -> None:
    with pytest.raises(EventError):
        contents.document(b'{"type":"response.completed"%b}' % response, [])
