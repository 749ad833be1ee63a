"""JSON of upstream's events and of requests, against a strict reader that is not the code's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, NewType

from tests.fuzz.contract import demand
from wsproxy.core.api.announced import MAX_VALUE_BYTES, announced
from wsproxy.core.api.canonical import NotStrictError
from wsproxy.core.api.contents import (
    MAX_ID_CHARS,
    announced_headers,
    document,
    output_item,
    outputs,
    response_id,
    shows_parent,
    usage,
)
from wsproxy.core.api.edits import edited, relayed, sse
from wsproxy.core.api.errors import fault_of, upstream_error
from wsproxy.core.api.events import USUAL_TYPES, Received, look, receive
from wsproxy.core.api.items import ECHO_RULES, hold, is_echo, is_known_output, read_item
from wsproxy.core.api.request import Request, UnfitError, frame, parse
from wsproxy.core.api.spans import EventError
from wsproxy.core.conversation.fields import FieldReader
from wsproxy.core.conversation.transcript import Transcript
from wsproxy.core.ids import LaneName, PoolKey

Pairs = NewType("Pairs", tuple[tuple[str, Any], ...])
SEQUENCE: Final = 7
OURS: Final = b'"resp_0"'
_REPLACED: Final = "resp_0"


def _constant(name: str) -> Any:
    raise ValueError(name)


def _pairs(members: list[tuple[str, Any]]) -> Pairs:
    return Pairs(tuple(members))


#: Numbers by lexeme, objects as pairs in order, no constants that JSON has not.
_READER: Final = json.JSONDecoder(
    object_pairs_hook=_pairs,
    parse_int=lambda lexeme: ("number", lexeme),
    parse_float=lambda lexeme: ("number", lexeme),
    parse_constant=_constant,
)


def value_of(raw: bytes) -> Any:
    """The value of a strict JSON text. Raises `ValueError`, `RecursionError`."""
    text = raw.decode()
    demand(not text.startswith("\ufeff"), "a byte order mark was taken")
    value, end = _READER.raw_decode(text, len(text) - len(text.lstrip(" \t\r\n")))
    demand(not text[end:].strip(" \t\r\n"), "bytes behind the JSON were taken")
    return value


# ── Events ───────────────────────────────────────────────────────────────────────────────────


def check_event(payload: bytes) -> None:
    """One message of upstream: read, edited, and asked everything the relay may ask it."""
    try:
        payload.decode()
    except UnicodeDecodeError:
        return  # refused by the wire (F17)
    demand(_is_announced_rightly(payload), "a header that no head can carry")
    with suppress(EventError):
        error = upstream_error(payload)
        demand(400 <= error.status <= 599 and bool(fault_of(error)), "status", error.status)
        value_of(error.body)
    try:
        received = receive(payload)
    except EventError:
        return
    _check_answers(received)
    for number in (SEQUENCE, received.sequence_number):
        try:
            json_ = edited(received, SEQUENCE if number is None else number, OURS)
        except EventError:
            continue
        _check_edits(received, json_, SEQUENCE if number is None else number)


def _is_announced_rightly(payload: bytes) -> bool:
    return all(
        name.isascii() and value.isprintable() and len(value) <= MAX_VALUE_BYTES
        for name, value in (*announced(payload, ("*",)), *announced_headers(payload, ("*",)))
    )


def _check_answers(received: Received) -> None:
    payload = received.payload
    id_ = response_id(payload)
    demand(id_ is None or 0 < len(id_) <= MAX_ID_CHARS, "an id without bounds")
    shows_parent(payload, _REPLACED)
    usage(payload)
    with suppress(EventError):
        _check_item(output_item(payload)[1])
    with suppress(EventError):
        for item in outputs(payload):
            _check_item(item)
    with suppress(EventError):
        value_of(document(payload, [b'{"done":1}'], OURS))


def _check_item(raw: bytes) -> None:
    value_of(raw)
    try:
        item = read_item(raw)
    except NotStrictError:
        return
    demand(item.exact is None or item.type != "", "an item of no type is compared")
    if is_known_output(item) and not ECHO_RULES[item.type].is_reasoning:
        demand(is_echo(hold([item]), item, is_stored=False), "an item is not its own echo")


def _check_edits(received: Received, json_: bytes, number: int) -> None:
    """The contract's three edits and no other (contract §2), by the short way too."""
    new_number = None if received.sequence_number == number else number
    demand(_edits_of(value_of(received.payload), new_number) == value_of(json_), "edited", json_)
    event = sse(received.type, json_)
    if received.type in USUAL_TYPES:
        head = look(received.payload)
        demand(relayed(head, received.payload, number, OURS) == event, "the short way", event)
    name, _, data = event.removesuffix(b"\n\n").partition(b"\ndata: ")
    demand(name == b"event: " + received.type.encode() and data == json_, "framed", event)
    demand(not set(b"\r\n") & set(name + data), "a line break inside an event")


def _edits_of(event: Pairs, number: int | None) -> Pairs:
    """The event with its edits; without `number` its own is right, and not touched."""
    members = []
    for name, value in event:
        if name == "sequence_number" and number is not None:
            value = ("number", str(number))
        elif name == "response" and type(value) is tuple and not _is_number(value):
            value = tuple((n, _REPLACED if n == "previous_response_id" else v) for n, v in value)
        if name != "stream_id":
            members.append((name, value))
    return Pairs(tuple(members))


def _is_number(value: tuple[Any, ...]) -> bool:
    return len(value) == 2 and value[0] == "number"


# ── Requests ─────────────────────────────────────────────────────────────────────────────────

_KEY: Final = PoolKey(b"k" * 32)
_UNSENT: Final = ("stream", "background")


def check_body(body: bytes) -> None:
    """A request: over HTTPS, or in a frame that says the same."""
    try:
        request = parse(body)
    except UnfitError as error:
        demand(error.reason.replace("_", "").isalpha(), "reason", error.reason)
        return
    members = value_of(body)
    demand(len({name for name, _ in members}) == len(members), "a name twice")
    kept = [pair for pair in members if pair[0] not in _UNSENT]
    sent = value_of(frame(request, lane=LaneName("l01")))
    demand(list(sent) == [*_head(None), *kept], "sent", sent)
    if request.items and "previous_response_id" not in request.members:
        _check_delta(request, kept)
    with suppress(UnfitError):
        FieldReader(()).read(_KEY, request)
    _check_transcript(request)


def _head(parent: str | None) -> list[tuple[str, Any]]:
    named = [] if parent is None else [("previous_response_id", parent)]
    return [("type", "response.create"), ("stream_id", "l01"), *named]


def _check_delta(request: Request, kept: Sequence[tuple[str, Any]]) -> None:
    sent = value_of(frame(request, lane=LaneName("l01"), parent="r", delta_from=1))
    delta = [(name, value[1:] if name == "input" else value) for name, value in kept]
    demand(list(sent) == [*_head("r"), *delta], "sent", sent)


def _check_transcript(request: Request) -> None:
    transcript = Transcript(request)
    again = Transcript(request)
    transcript.raw_prefixes(b"", range(len(transcript) + 1))
    for index in range(len(transcript)):
        with suppress(UnfitError):
            item = transcript.item(index)
            demand(item == again.item(index), "read twice, read otherwise")
            _ = item.may_be_delta
