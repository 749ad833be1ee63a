"""What an event holds of its response: id, parent, usage, output items; and the whole document."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum, auto
from typing import Final

import msgspec
from msgspec import UNSET, Raw, UnsetType

from wsproxy.core.api.announced import ANNOUNCED, announced
from wsproxy.core.api.spans import EventError, decoded, elements, member, members, replaced

#: Ids of upstream are kept in tables; a longer one is not taken for an id (faults.md §4, 16).
MAX_ID_CHARS: Final = 256


class Absent(Enum):
    """A member that is not there, which is not the same as null."""

    ABSENT = auto()


ABSENT: Final = Absent.ABSENT


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one response; `visible_tokens` are those of the output that are no reasoning, 0
    where upstream does not tell them apart."""

    input_tokens: int
    cached_tokens: int
    output_tokens: int
    visible_tokens: int = 0


class _Identity(msgspec.Struct, gc=False):
    id: object = UNSET
    previous_response_id: Raw | UnsetType = UNSET


class _Lifecycle(msgspec.Struct, gc=False):
    response: _Identity | None = None


class _Cached(msgspec.Struct, gc=False):
    cached_tokens: int | None = 0


class _Thought(msgspec.Struct, gc=False):
    reasoning_tokens: int | None = None


class _Tokens(msgspec.Struct, gc=False):
    input_tokens: int
    output_tokens: int
    input_tokens_details: _Cached | None = None
    output_tokens_details: _Thought | None = None


class _Counted(msgspec.Struct, gc=False):
    usage: _Tokens | None = None


class _Ended(msgspec.Struct, gc=False):
    response: _Counted | None = None


_LIFECYCLE: Final = msgspec.json.Decoder(_Lifecycle)
_ENDED: Final = msgspec.json.Decoder(_Ended)
_TEXT: Final = msgspec.json.Decoder(str)
_EMPTY: Final = re.compile(rb"\[[ \t\r\n]*\]")
_INTEGER: Final = re.compile(rb"[0-9]{1,9}")


def response_id(payload: bytes) -> str | None:
    """`response.id` of a lifecycle or terminal event, None if it is none that can be kept."""
    identity = _identity(payload)
    found = identity.id if identity else None
    return found if isinstance(found, str) and 0 < len(found) <= MAX_ID_CHARS else None


def echoed_parent(payload: bytes) -> bytes | Absent | None:
    """The raw JSON of `response.previous_response_id`; None for null, ABSENT if not there."""
    identity = _identity(payload)
    if identity is None or identity.previous_response_id is UNSET:
        return ABSENT
    raw = bytes(identity.previous_response_id)
    return None if raw == b"null" else raw


def shows_parent(payload: bytes, sent: str) -> bool | None:
    """The tripwire of every delta (contract §3): whether upstream names the parent that we did.

    False: it names another. None: it names none (null, or the member is not there).
    """
    raw = echoed_parent(payload)
    if raw is None or raw is ABSENT:
        return None
    try:
        return decoded(_TEXT, raw) == sent
    except EventError:
        return False


def usage(payload: bytes) -> Usage | None:
    """`response.usage` of a terminal event, None where it is absent or not in the known shape."""
    try:
        ended = decoded(_ENDED, payload)
    except EventError:
        return None
    tokens = ended.response.usage if ended.response else None
    if tokens is None:
        return None
    details = tokens.input_tokens_details
    cached = details.cached_tokens if details else None
    thought = tokens.output_tokens_details
    hidden = thought.reasoning_tokens if thought else None
    visible = 0 if hidden is None else max(0, tokens.output_tokens - hidden)
    return Usage(tokens.input_tokens, cached or 0, tokens.output_tokens, visible)


def output_item(payload: bytes) -> tuple[int | None, bytes]:
    """`output_index` and raw `item` of a response.output_item.done.

    Raises `EventError` if there is no item. The index is None where it is not a plain count.
    """
    index = None
    item = None
    for found in members(payload):
        raw = payload[found.value : found.end]
        if found.name == "item":
            item = raw
        elif found.name == "output_index" and _INTEGER.fullmatch(raw):
            index = int(raw)
    if item is None:
        raise EventError("an output item without an item")
    return index, item


def outputs(payload: bytes) -> list[bytes]:
    """The raw items of `response.output` of a terminal event; none where it is no array."""
    response = member(payload, "response")
    if response is None or not response.startswith(b"{"):
        return []
    output = member(response, "output")
    if output is None or not output.startswith(b"["):
        return []
    return elements(output)


def announced_headers(payload: bytes, allowed: Sequence[str] = ANNOUNCED) -> list[tuple[str, str]]:
    """The response headers that a `response.metadata` frame carries and the list allows.

    Never raises: a frame that cannot be read for certain announces nothing.
    """
    try:
        fields = member(payload, "headers")
    except EventError:
        return []
    return announced(fields, allowed) if fields else []


def _identity(payload: bytes) -> _Identity | None:
    try:
        return decoded(_LIFECYCLE, payload).response
    except EventError:
        return None


# The answer of a turn that does not stream -------------------------------------------------


def ordered(done: Sequence[tuple[int | None, bytes]]) -> list[bytes]:
    """Items in the order of their `output_index`; those without one last, as they came."""
    return [item for _, item in sorted(done, key=_place)]


def is_gapless(done: Sequence[tuple[int | None, bytes]]) -> bool:
    """Whether every `output_index` from 0 on is there once, so that no item is missing."""
    return sorted(_place(item) for item in done) == list(range(len(done)))


def document(payload: bytes, done: Sequence[bytes], parent: bytes | None = None) -> bytes:
    """The one JSON document of a turn: the terminal event's `response`, in its own bytes.

    `previous_response_id` is set to `parent` as in `edited`; an empty `output` gets the items
    of `done`, which are in order (the ChatGPT backend leaves it empty, protocol.md §0.6).
    Raises `EventError` if the event has no response object.
    """
    response = member(payload, "response")
    if response is None or not response.startswith(b"{"):
        raise EventError("a terminal event without a response")
    response = restored(response, parent)
    if not done:
        return response
    for found in members(response):
        if found.name == "output" and _EMPTY.fullmatch(response, found.value, found.end):
            return replaced(response, found.value, found.end, b"[%b]" % b",".join(done))
    return response


def restored(response: bytes, parent: bytes | None) -> bytes:
    """The raw response object with its `previous_response_id`, if any, set to `parent`."""
    if parent is None or not response.startswith(b"{"):
        return response
    for found in members(response):
        if found.name == "previous_response_id":
            return replaced(response, found.value, found.end, parent)
    return response


def _place(done: tuple[int | None, bytes]) -> float:
    return float("inf") if done[0] is None else done[0]
