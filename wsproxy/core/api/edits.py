"""The three edits that make an upstream event HTTP's own: no lane, its number, the parent's id.

Rules of this file
------------------
1. An edit touches one member at exactly its depth; every other byte stays upstream's own.
2. A shortcut is taken only where it provably finds what a walk over the members would find.

Measured with timeit on CPython 3.11, a delta of 234 bytes: 1.2 µs to cut its lane, 0.2 µs to frame.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

import msgspec
from msgspec import UNSET, Raw, UnsetType

from wsproxy.core.api.contents import restored
from wsproxy.core.api.events import MAX_UNKNOWN_TYPES, Head, Received, receive
from wsproxy.core.api.spans import members, replaced, without

_STREAM_ID_VALUE: Final = re.compile(
    rb'[ \t\r\n]*:[ \t\r\n]*(?:"[^"\\]*"|null)[ \t\r\n]*(,[ \t\r\n]*)?'
)
_NUMBER_VALUE: Final = re.compile(rb"([ \t\r\n]*:[ \t\r\n]*)-?[0-9]+")
_PARENT_VALUE: Final = re.compile(rb'([ \t\r\n]*:[ \t\r\n]*)(?:"[^"\\]*"|null)')
_COMMA: Final = ord(",")
_BACKSLASH: Final = ord("\\")
_CR: Final = ord("\r")
_LF: Final = ord("\n")


def relayed(head: Head, payload: bytes, sequence: int, parent: bytes | None = None) -> bytes:
    """What an event becomes on the client's wire; `edited` says what `sequence` and `parent` are.

    Nearly always the lane is written last, as we would write it, and nothing else needs an edit.
    Then it can be cut off unseen: bytes that end with `,"stream_id":"LANE"}` end with that very
    member, because none of its quotes is escaped and the brace closes the whole object.
    """
    number = head.sequence_number
    lane = head.stream_id
    if (
        (number is UNSET or (type(number) is int and number == sequence))
        and type(lane) is str
        and (parent is None or head.response is UNSET)
        and payload.endswith(tail := _lane_at_the_end(lane))
    ):
        kept = payload[: -len(tail)]
        # On one line, and the name is not there a second time. (To look for one byte by its number
        # costs a fifth of looking for a string, and backwards is the faster way to find nothing.)
        if (
            _LF not in kept
            and _CR not in kept
            and (_BACKSLASH not in kept or b"\\u00" not in kept)
            and kept.rfind(b'"stream_id"') < 0
        ):
            return b"%b%b}\n\n" % (_sse_head(head.type), kept)
    return sse(head.type, edited(receive(payload, head), sequence, parent))


@lru_cache(maxsize=MAX_UNKNOWN_TYPES)
def _lane_at_the_end(lane: str) -> bytes:
    return _spelled_lane(lane) + b"}"


def edited(received: Received, sequence: int, parent: bytes | None = None) -> bytes:
    """The event's JSON as HTTP would have sent it, on one line.

    `sequence` is the number of this event among the turn's numbered ones, from 0; it is used
    only if `received.is_numbered`. `parent` is the raw JSON that `response.previous_response_id`
    gets where that member is present (`b"null"`, or the client's own value); None leaves it.
    Raises `EventError` if a member to be edited is there twice.
    """
    payload = received.payload
    if received.has_stream_id:
        payload = _without_lane(payload, received.stream_id)
    if received.is_numbered and received.sequence_number != sequence:
        payload = _numbered(payload, sequence, received.sequence_number is not None)
    if parent is not None and received.has_response:
        payload = _with_parent(payload, parent)
    if _LF in payload or _CR in payload:
        # Strict JSON has neither inside a string, so these stand between tokens.
        payload = payload.translate(None, b"\r\n")
    return payload


def sse(type_: str, json: bytes) -> bytes:
    """One server-sent event as the API frames it: no id, no retry, no comment."""
    return b"".join((_sse_head(type_), json, b"\n\n"))


@lru_cache(maxsize=MAX_UNKNOWN_TYPES)
def _sse_head(type_: str) -> bytes:
    return b"event: %b\ndata: " % type_.encode()


def _around(payload: bytes, key: bytes) -> list[bytes] | None:
    """What stands before and after the one name `key`; None if only a walk can tell.

    The caller knows that the member exists. Its name could be spelled with escapes, but for our
    letters only with `\\u00XX` (none has a short escape). Without any of those the name stands
    there as `key`, letter by letter; if `key` occurs only once, that one is it, and whatever
    else could look like it, deeper or inside a string, is not there.
    """
    parts = payload.split(key)
    return parts if len(parts) == 2 and not _may_be_escaped(payload) else None


def _may_be_escaped(payload: bytes) -> bool:
    """Whether a name of ASCII letters may be spelled otherwise."""
    return _BACKSLASH in payload and b"\\u00" in payload


def _without_lane(payload: bytes, lane: str | None) -> bytes:
    """The payload without its top-level `stream_id`, of which it is known that it exists."""
    if lane is not None:
        # Nearly always it is written as we would, which one search finds; `_around` says why the
        # name, gone with it, proves that this was the one.
        spelled = _spelled_lane(lane)
        cut = payload.replace(spelled, b"")
        is_single = len(payload) - len(cut) == len(spelled)
        if is_single and b'"stream_id"' not in cut and b"\\u00" not in cut:
            return cut
    return _without_stream_id(payload)


@lru_cache(maxsize=MAX_UNKNOWN_TYPES)
def _spelled_lane(lane: str) -> bytes:
    return b',"stream_id":' + msgspec.json.encode(lane)


def _without_stream_id(payload: bytes) -> bytes:
    around = _around(payload, b'"stream_id"')
    value = _STREAM_ID_VALUE.match(around[1]) if around else None
    if around and value:
        before, after = around
        if value[1]:
            return before + after[value.end() :]
        if before[-1] == _COMMA:
            return before[:-1] + after[value.end() :]
    return without(payload, members(payload), "stream_id")


def _numbered(payload: bytes, sequence: int, is_integer: bool) -> bytes:
    around = _around(payload, b'"sequence_number"') if is_integer else None
    value = _NUMBER_VALUE.match(around[1]) if around else None
    if around and value:
        after = around[1][value.end() :]
        return b'%b"sequence_number"%b%d%b' % (around[0], value[1], sequence, after)
    for found in members(payload):
        if found.name == "sequence_number":
            return replaced(payload, found.value, found.end, b"%d" % sequence)
    return payload


class _Child(msgspec.Struct, gc=False):
    previous_response_id: Raw | UnsetType = UNSET


class _Bearing(msgspec.Struct, gc=False):
    response: _Child


_BEARING: Final = msgspec.json.Decoder(_Bearing)


def _names_parent(payload: bytes) -> bool | None:
    """Whether `response` has a `previous_response_id`; None if only a walk can tell."""
    try:
        return _BEARING.decode(payload).response.previous_response_id is not UNSET
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _with_parent(payload: bytes, parent: bytes) -> bytes:
    # The name `response` stands there once, not counted where it is the value that all have.
    is_one = payload.count(b'"response"') - payload.count(b'"object":"response"') == 1
    names = _names_parent(payload) if is_one and not _may_be_escaped(payload) else None
    if names is False:
        return payload
    if names:
        around = _around(payload, b'"previous_response_id"')
        value = _PARENT_VALUE.match(around[1]) if around else None
        if around and value:
            after = around[1][value.end() :]
            return b'%b"previous_response_id"%b%b%b' % (around[0], value[1], parent, after)
    for found in members(payload):
        if found.name == "response":
            response = restored(payload[found.value : found.end], parent)
            return replaced(payload, found.value, found.end, response)
    return payload
