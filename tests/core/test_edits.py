"""The three edits of upstream events, which touch nothing else."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.canary import TEXT
from wsproxy.core.api import edits, events
from wsproxy.core.api.spans import EventError, members

# Textual edits against edits of the value ---------------------------------------------------

NAMES = ["stream_id", "sequence_number", "previous_response_id", "response", "object", "a", "é", ""]
SCALARS = st.one_of(
    st.sampled_from(['"l01"', "null", "true", "0", "-0", "7", "1.0", "1e2", '""', '"\\ud83d"']),
    st.sampled_from(['"response"', '"previous_response_id"', '"\\"response"']),
    st.text(max_size=6).map(json.dumps),
    st.just(json.dumps(TEXT)),
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
    json_ = edits.edited(received, sequence, raw)
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
        long = edits.sse(received.type, edits.edited(received, sequence, parent))
    except EventError:
        with pytest.raises(EventError):
            edits.relayed(head, payload, sequence, parent)
    else:
        assert edits.relayed(head, payload, sequence, parent) == long


@settings(max_examples=100, deadline=None)
@given(payloads())
def test_bytes_that_are_not_edited_stay_as_they_are(payload: bytes) -> None:
    names = [name for name, _ in parsed(payload)]
    received = events.receive(payload)
    json_ = edits.edited(received, received.sequence_number or 0)
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
        json_ = edits.edited(events.receive(payload), 1)
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
    assert edits.edited(events.receive(payload), 0) == expected


def test_two_equal_names_are_seen_even_where_all_lengths_fit() -> None:
    # Skipping the first `a` by the length of the second ends before `,"LLLLLLL"`.
    with pytest.raises(EventError):
        members(b'{"a":0,"b":10,"a":{"p":0,"LLLLLLL":1}}')


def test_a_tool_schema_may_use_all_three_names() -> None:
    schema = b'{"stream_id":"x","sequence_number":9,"previous_response_id":"p"}'
    response = b'{"tools":[%b],"previous_response_id":"resp_1","metadata":%b}' % (schema, schema)
    payload = b'{"type":"response.created","response":%b,"stream_id":"l01","sequence_number":4}'
    json_ = edits.edited(events.receive(payload % response), 0, b"null")
    restored = response.replace(b'"previous_response_id":"resp_1"', b'"previous_response_id":null')
    assert json_ == b'{"type":"response.created","response":%b,"sequence_number":0}' % restored


def test_a_parent_is_found_beside_what_has_no_value() -> None:
    payload = b'{"type":"t","response":{"id":1e400,"previous_response_id":"a"}}'
    json_ = edits.edited(events.receive(payload), 0, b"null")
    assert json_ == payload.replace(b'"a"', b"null")


@pytest.mark.parametrize("space", [b"", b" ", b"\t"], ids=["compact", "spaced", "tabs"])
@pytest.mark.parametrize("before", [b'"resp_1"', b"null"])
def test_a_response_that_names_its_parent_once_gets_the_clients_own(
    before: bytes, space: bytes
) -> None:
    shown = (
        b'{"object":"response","instructions":"\\"previous_response_id\\":1","tools":["response"]'
    )
    payload = b'{"type":"response.created","response":' + shown
    payload += b',"previous_response_id"%b:%b%%b}}' % (space, space)
    json_ = edits.edited(events.receive(payload % before), 0, b'"mine"')
    assert json_ == payload % b'"mine"'


@pytest.mark.parametrize(
    "response",
    [b'{"id":"resp_1"}', b'{"id":"resp_1","metadata":{"previous_response_id":"a"}}', b'"text"'],
    ids=["absent", "deeper", "no object"],
)
def test_a_parent_is_never_added(response: bytes) -> None:
    payload = b'{"type":"response.created","response":%b}' % response
    assert edits.edited(events.receive(payload), 0, b"null") == payload


@pytest.mark.parametrize("name", [b"response", b"\\u0072esponse"], ids=["plain", "escaped"])
@pytest.mark.parametrize("last", [b"{}", b'{"previous_response_id":"b"}'], ids=["empty", "named"])
def test_of_two_responses_neither_is_taken_for_the_one(name: bytes, last: bytes) -> None:
    payload = b'{"type":"t","response":{"previous_response_id":"a"},"%b":%b}' % (name, last)
    with pytest.raises(EventError):
        edits.edited(events.receive(payload), 0, b"null")


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
    value = json.loads(edits.edited(received, 3))
    assert value.get("sequence_number") == (3 if is_numbered else None)


def test_an_event_is_framed_as_the_api_frames_it() -> None:
    framed = edits.sse("response.created", '{"type":"response.created","é":1}'.encode())
    assert framed == 'event: response.created\ndata: {"type":"response.created","é":1}\n\n'.encode()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40))
def test_any_bytes_are_an_event_or_refused(payload: bytes) -> None:
    text = re.sub(rb"[\x80-\xff]", b"", payload)
    try:
        received = events.receive(b'{"type":"t",' + text)
        edits.edited(received, 0, b"null")
    except EventError:
        return
    assert received.type
