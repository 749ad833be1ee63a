"""Upstream events: what they are, and the three edits, which touch nothing else."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsproxy.core.api import events
from wsproxy.core.api.events import ABSENT, EventError, Kind, Usage
from wsproxy.core.api.spans import members

# Textual edits against edits of the value ---------------------------------------------------

NAMES = ["stream_id", "sequence_number", "previous_response_id", "response", "item", "a", "é", ""]
SCALARS = st.one_of(
    st.sampled_from(['"l01"', "null", "true", "0", "-0", "7", "1.0", "1e2", '""', '"\\ud83d"']),
    st.text(max_size=6).map(json.dumps),
    st.sampled_from(
        ['"a\\"stream_id"', '"\\"sequence_number\\":1,"', '",\\"stream_id\\":\\"l01\\"}"', '"\\\\"']
    ),
)
SPACE = st.sampled_from(["", "", "", " ", "\n", "\r", " \t", "\r\n"])


@st.composite
def spelled(draw: st.DrawFn, name: str) -> str:
    """A name as a JSON string, now and then with escaped letters."""
    if draw(st.integers(0, 5)):
        return json.dumps(name, ensure_ascii=draw(st.booleans()))
    escapes = [draw(st.booleans()) for _ in name]
    letters = zip(name, escapes, strict=True)
    return '"' + "".join(f"\\u{ord(c):04x}" if e else c for c, e in letters) + '"'


@st.composite
def written(draw: st.DrawFn, pairs: list[tuple[str, str]]) -> str:
    """An object of these members, with whitespace wherever JSON allows it."""
    parts = []
    for name, value in pairs:
        gaps = [draw(SPACE) for _ in range(4)]
        key = draw(spelled(name))
        parts.append(f"{gaps[0]}{key}{gaps[1]}:{gaps[2]}{value}{gaps[3]}")
    return "{" + (",".join(parts) or draw(SPACE)) + "}"


@st.composite
def objects(draw: st.DrawFn, values: st.SearchStrategy[str], unique: bool = True) -> str:
    names = draw(st.lists(st.sampled_from(NAMES), max_size=5, unique=unique))
    return draw(written([(name, draw(values)) for name in names]))


VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        objects(inner), st.lists(inner, max_size=3).map(lambda parts: f"[{','.join(parts)}]")
    ),
    max_leaves=8,
)


@st.composite
def payloads(draw: st.DrawFn) -> bytes:
    values = {
        "type": st.just('"response.x"'),
        "stream_id": st.sampled_from(['"l01"', '"l\\u0030"', "null", '""', '"a\\"b"']),
        "response": st.one_of(objects(VALUES), VALUES),
    }
    names = draw(st.lists(st.sampled_from(NAMES), max_size=6, unique=True))
    names.insert(draw(st.integers(0, len(names))), "type")
    pairs = [(name, draw(values.get(name, VALUES))) for name in names]
    return (draw(SPACE) + draw(written(pairs)) + draw(SPACE)).encode()


class Lexeme(str):
    """A number as it was written, or a replaced value."""


def parsed(text: bytes) -> Any:
    """The value with member order and number lexemes kept."""
    return json.loads(text, object_pairs_hook=list, parse_int=Lexeme, parse_float=Lexeme)


def edited_value(value: list[Any], sequence: int, parent: str | None) -> list[Any]:
    edited = []
    for name, member in value:
        if name == "stream_id":
            continue
        if name == "sequence_number" and member != Lexeme("-0" if sequence == 0 else sequence):
            member = Lexeme(sequence)
        if name == "response" and parent is not None and is_object(member):
            member = [(n, parent if n == "previous_response_id" else v) for n, v in member]
        edited.append((name, member))
    return edited


def is_object(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, tuple) for part in value)


@settings(max_examples=200, deadline=None)
@given(payloads(), st.sampled_from([0, 7, 12]), st.sampled_from([None, "resp_mine"]))
def test_editing_the_bytes_is_editing_the_value(
    payload: bytes, sequence: int, parent: str | None
) -> None:
    received = events.receive(payload)
    raw = None if parent is None else json.dumps(parent).encode()
    json_ = events.edited(received, sequence, raw)
    assert parsed(json_) == edited_value(parsed(payload), sequence, parent)
    assert b"\n" not in json_
    assert b"\r" not in json_


@settings(max_examples=200, deadline=None)
@given(
    payloads(),
    st.sampled_from(['"l01"', '"l\\u0030"', '"a\\"b"', "null"]),
    st.sampled_from([None, "0", "7", "true", "1.0", "null"]),
    st.sampled_from([0, 1, 7]),
    st.sampled_from([None, b'"resp_mine"']),
)
def test_the_short_way_tells_a_client_what_the_long_one_tells(
    payload: bytes, lane: str, number: str | None, sequence: int, parent: bytes | None
) -> None:
    numbered = "" if number is None else f',"sequence_number":{number}'
    payload = payload.rstrip()[:-1] + f'{numbered},"stream_id":{lane}}}'.encode()
    head, received = events.look(payload), events.receive(payload)
    try:
        long = events.sse(received.type, events.edited(received, sequence, parent))
    except EventError:
        with pytest.raises(EventError):
            events.relayed(head, payload, sequence, parent)
    else:
        assert events.relayed(head, payload, sequence, parent) == long


@settings(max_examples=100, deadline=None)
@given(payloads())
def test_bytes_that_are_not_edited_stay_as_they_are(payload: bytes) -> None:
    names = [name for name, _ in parsed(payload)]
    received = events.receive(payload)
    json_ = events.edited(received, received.sequence_number or 0)
    if "stream_id" not in names and (
        "sequence_number" not in names or received.sequence_number is not None
    ):
        assert json_ == payload.translate(None, b"\r\n")
    else:
        assert len(json_) <= len(payload) + 1


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from(["stream_id", "sequence_number", "x"]), min_size=2, max_size=4),
    st.data(),
)
def test_a_name_given_twice_is_refused_or_not_edited(names: list[str], data: st.DataObject) -> None:
    values = {"stream_id": st.just('"l01"'), "sequence_number": st.sampled_from(["1", "22"])}
    pairs = [(name, data.draw(values.get(name, VALUES))) for name in names]
    payload = data.draw(written([("type", '"t"'), *pairs])).encode()
    try:
        json_ = events.edited(events.receive(payload), 1)
    except EventError:
        assert len(set(names)) < len(names)
    else:
        assert "stream_id" not in [name for name, _ in parsed(json_)]
        # Readers take the last of two; equal numbers are not touched, so not looked for either.
        assert dict(parsed(json_)).get("sequence_number", "1") == "1"


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b'{"stream_id":"l","type":"t","a":1}', b'{"type":"t","a":1}'),
        (b'{"type":"t","stream_id":"l","a":1}', b'{"type":"t","a":1}'),
        (b'{"type":"t","a":1,"stream_id":"l"}', b'{"type":"t","a":1}'),
        (b'{ "type": "t" , "stream_id": "l" }', b'{ "type": "t" }'),
        (b'{"type": "t", "stream_id": null, "a": 1}', b'{"type": "t", "a": 1}'),
        (
            b'{"type":"t","\\u0073tream_id":"l","x":{"stream_id":1}}',
            b'{"type":"t","x":{"stream_id":1}}',
        ),
        (b'{"type":"t","x":"\\"stream_id","stream_id":"l"}', b'{"type":"t","x":"\\"stream_id"}'),
        (b'{"type":"t","stream_id":"l\\"","x":"\\ud83d"}', b'{"type":"t","x":"\\ud83d"}'),
    ],
    ids=["first", "middle", "last", "spaced", "null", "escaped", "in-string", "surrogate"],
)
def test_the_lane_is_cut_out_and_nothing_else(payload: bytes, expected: bytes) -> None:
    assert events.edited(events.receive(payload), 0) == expected


def test_two_equal_names_are_seen_even_where_all_lengths_fit() -> None:
    # Skipping the first `a` by the length of the second ends before `,"LLLLLLL"`.
    with pytest.raises(EventError):
        members(b'{"a":0,"b":10,"a":{"p":0,"LLLLLLL":1}}')


def test_a_tool_schema_may_use_all_three_names() -> None:
    schema = b'{"stream_id":"x","sequence_number":9,"previous_response_id":"p"}'
    response = b'{"tools":[%b],"previous_response_id":"resp_1","metadata":%b}' % (schema, schema)
    payload = b'{"type":"response.created","response":%b,"stream_id":"l01","sequence_number":4}'
    json_ = events.edited(events.receive(payload % response), 0, b"null")
    restored = response.replace(b'"previous_response_id":"resp_1"', b'"previous_response_id":null')
    assert json_ == b'{"type":"response.created","response":%b,"sequence_number":0}' % restored


def test_a_parent_is_never_added() -> None:
    payload = b'{"type":"response.created","response":{"id":"resp_1"}}'
    assert events.edited(events.receive(payload), 0, b"null") == payload


@pytest.mark.parametrize(
    ("payload", "number", "is_numbered"),
    [
        (b'{"type":"t","sequence_number":5}', 5, True),
        (b'{"type":"t","sequence_number":5.0}', None, True),
        (b'{"type":"t","sequence_number":"5"}', None, True),
        (b'{"type":"t","sequence_number":null}', None, True),
        (b'{"type":"t","sequence_number":true}', None, True),
        (b'{"type":"t"}', None, False),
    ],
    ids=["integer", "float", "string", "null", "boolean", "absent"],
)
def test_only_a_member_that_is_there_gets_a_number(
    payload: bytes, number: int | None, is_numbered: bool
) -> None:
    received = events.receive(payload)
    assert (received.sequence_number, received.is_numbered) == (number, is_numbered)
    value = json.loads(events.edited(received, 3))
    assert value.get("sequence_number") == (3 if is_numbered else None)


def test_an_event_is_framed_as_the_api_frames_it() -> None:
    framed = events.sse("response.created", '{"type":"response.created","é":1}'.encode())
    assert framed == 'event: response.created\ndata: {"type":"response.created","é":1}\n\n'.encode()


# Kinds and refusals -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type_", "kind"),
    [
        ("response.output_text.delta", Kind.ORDINARY),
        ("response.brand_new.thing", Kind.ORDINARY),
        ("keepalive", Kind.ORDINARY),
        ("response.created", Kind.LIFECYCLE),
        ("response.queued", Kind.LIFECYCLE),
        ("response.output_item.done", Kind.ITEM_DONE),
        ("response.completed", Kind.COMPLETED),
        ("response.done", Kind.ENDED),
        ("response.error", Kind.ENDED),
        ("error", Kind.ERROR),
        ("codex.rate_limits", Kind.CONNECTION),
        ("response.metadata", Kind.CONNECTION),
        ("response.interrupt.failed", Kind.CONNECTION),
        ("response.output_item.interrupted", Kind.CONNECTION),
        ("responsesapi.websocket_timing", Kind.CONNECTION),
    ],
)
def test_each_type_has_its_kind(type_: str, kind: Kind) -> None:
    received = events.receive(json.dumps({"type": type_}).encode())
    assert (received.type, received.kind) == (type_, kind)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b'"text"',
        b"{}",
        b'{"type":null}',
        b'{"type":7}',
        b'{"type":"a b"}',
        b'{"type":"a\\nb"}',
        b'{"type":"%b"}' % (b"x" * 129),
        b'{"type":"t",}',
        b'{"type":"t","x":NaN}',
        b'{"type":"t","x":"\n"}',
        b'{"type":"t"} {}',
        b'{"type":"t","stream_id":7}',
        b'{"type":"t","x":' + b"[" * 9000 + b"]" * 9000 + b"}",
        b'{"error":null}',
    ],
    ids=lambda payload: repr(payload[:24]),
)
def test_what_is_no_event_is_refused(payload: bytes) -> None:
    with pytest.raises(EventError):
        events.receive(payload)


def test_a_gateways_error_needs_no_type() -> None:
    received = events.receive(b'{"error":{"message":"no"}}')
    assert (received.type, received.kind) == ("error", Kind.ERROR)


# Reading more of an event -------------------------------------------------------------------

COMPLETED = b"""{"type":"response.completed","response":{"id":"resp_2","output":[ {"id":"m1"} ,
 {"n":1.0}],"previous_response_id":"resp_1","usage":{"input_tokens":10,"input_tokens_details":
 {"cached_tokens":4},"output_tokens":2,"total_tokens":12}},"sequence_number":9}"""


def test_a_terminal_event_tells_id_parent_items_and_usage() -> None:
    assert events.response_id(COMPLETED) == "resp_2"
    assert events.echoed_parent(COMPLETED) == b'"resp_1"'
    assert events.outputs(COMPLETED) == [b'{"id":"m1"}', b'{"n":1.0}']
    assert events.usage(COMPLETED) == Usage(input_tokens=10, cached_tokens=4, output_tokens=2)


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
    assert events.echoed_parent(payload) == parent
    assert events.shows_parent(payload, "resp_1") is is_shown


@pytest.mark.parametrize(
    "response",
    [b"null", b"[]", b"{}", b'{"id":7,"usage":null,"output":null}', b'{"id":"","usage":{"x":1}}'],
)
def test_what_is_missing_reads_as_nothing(response: bytes) -> None:
    payload = b'{"type":"response.completed","response":%b}' % response
    assert events.response_id(payload) is None
    assert events.usage(payload) is None
    assert events.outputs(payload) == []


@pytest.mark.parametrize(
    ("index", "expected"), [(b"3", 3), (b"-1", None), (b"1.0", None), (b'"1"', None)]
)
def test_a_done_item_keeps_its_bytes(index: bytes, expected: int | None) -> None:
    item = b'{"n": 1.0, "s":"\\ud83d", "item":1}'
    payload = b'{"type":"x","item": %b ,"output_index":%b}' % (item, index)
    assert events.output_item(payload) == (expected, item)


def test_an_item_event_without_an_item_is_refused() -> None:
    with pytest.raises(EventError):
        events.output_item(b'{"type":"response.output_item.done","output_index":0}')


@pytest.mark.parametrize(
    ("indexes", "is_gapless"),
    [([], True), ([0, 1], True), ([1, 0], True), ([0, 2], False), ([0, 0], False), ([None], False)],
)
def test_missing_items_are_noticed(indexes: list[int | None], is_gapless: bool) -> None:
    assert events.is_gapless([(index, b"1") for index in indexes]) is is_gapless


def test_items_are_put_in_order() -> None:
    assert events.ordered([(2, b"c"), (None, b"d"), (0, b"a"), (1, b"b")]) == [
        b"a",
        b"b",
        b"c",
        b"d",
    ]


def test_metadata_frames_announce_only_allowed_headers() -> None:
    payload = b"""{"type":"response.metadata","headers":{"X-Codex-Turn-State":"ts","openai-model":
    "m","x-codex-primary-window-minutes":15,"x-codex-x":100.0,"set-cookie":"no","x-models-etag":
    "a\\r\\nb","x-codex-list":["no"],"x-codex-bool":true,"x-codex- bad":"no","retry-after":"7"}}"""
    assert events.announced_headers(payload) == [
        ("x-codex-turn-state", "ts"),
        ("openai-model", "m"),
        ("x-codex-primary-window-minutes", "15"),
        ("x-codex-x", "100.0"),
        ("retry-after", "7"),
    ]
    assert events.announced_headers(payload, ["retry-*"]) == [("retry-after", "7")]
    assert events.announced_headers(b'{"type":"response.metadata","headers":null}') == []
    twice = b'{"type":"response.metadata","headers":{"retry-after":1},"headers":{"retry-after":2}}'
    assert events.announced_headers(twice) == []


# The answer of a turn that does not stream --------------------------------------------------


def test_an_empty_output_is_filled_and_the_parent_restored() -> None:
    response = b'{"id":"resp_2", "output": [ ],"previous_response_id":"resp_1","x":1.0}'
    payload = b'{"type":"response.completed","response":%b}' % response
    done = [b'{"a":1}', b'{"b":2}']
    assert events.document(payload, done, b"null") == (
        b'{"id":"resp_2", "output": [{"a":1},{"b":2}],"previous_response_id":null,"x":1.0}'
    )
    assert events.document(payload, []) == response


def test_an_output_that_is_there_is_left_alone() -> None:
    answer = json.loads(events.document(COMPLETED, [b'{"id":"other"}']))
    assert answer == json.loads(COMPLETED)["response"]


@pytest.mark.parametrize("response", [b"", b',"response":null', b',"response":[]'])
def test_a_terminal_event_without_a_response_is_no_answer(response: bytes) -> None:
    with pytest.raises(EventError):
        events.document(b'{"type":"response.completed"%b}' % response, [])


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40))
def test_any_bytes_are_an_event_or_refused(payload: bytes) -> None:
    text = re.sub(rb"[\x80-\xff]", b"", payload)
    try:
        received = events.receive(b'{"type":"t",' + text)
        events.edited(received, 0, b"null")
    except EventError:
        return
    assert received.type
