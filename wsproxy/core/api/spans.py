"""Where the members of one JSON object, or the elements of one array, lie in its own bytes.

Editing a document by its spans keeps upstream's spelling of everything that is not edited:
key order, number lexemes, escapes, whitespace.

The grammar is msgspec's business (strict: no NaN, no control character inside a string, no
trailing comma); what is done here is to find out where its raw values began. That is exact: a
value that starts where it must, and whose bytes are those that msgspec took for the value, can
only end where msgspec said, for no JSON value but a number is a prefix of another, and a number
cut short is not followed by a comma or a bracket.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, TypeVar

import msgspec

T = TypeVar("T")


class EventError(ValueError):
    """A message that cannot be taken for an event (F18), or not be edited without guessing."""


class Member(msgspec.Struct, frozen=True, gc=False):
    """One member of an object: offsets into the object's bytes, `end` exclusive."""

    name: str
    key: int  # the opening quote of the name
    value: int
    end: int


_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ARRAY: Final = msgspec.json.Decoder(list[msgspec.Raw])

_KEY: Final = re.compile(
    rb'[ \t\r\n]*[{,][ \t\r\n]*("[^"\\]*(?:\\.[^"\\]*)*")[ \t\r\n]*:[ \t\r\n]*'
)
_END: Final = re.compile(rb"[ \t\r\n]*\{?[ \t\r\n]*\}[ \t\r\n]*\Z")
_BEFORE_ELEMENT: Final = re.compile(rb"[ \t\r\n]*[\[,][ \t\r\n]*")

#: One escape, the surrogates (which may be unpaired) told from the others.
_ESCAPE: Final = re.compile(rb"\\(?:(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL)


def decoded(decoder: msgspec.json.Decoder[T], document: bytes) -> T:
    """What `decoder` makes of `document`, unpaired surrogates read as U+FFFD.

    JSON's grammar (RFC 8259 §8.2) allows `"\\ud83d"` alone, and a service that cuts an emoji in
    two between deltas writes it; msgspec refuses it. Raises `EventError`.
    """
    return _read(decoder, document)[1]


def members(document: bytes) -> list[Member]:
    """The members of the object `document`, in order.

    Raises `EventError` if it is not one JSON object or has a name twice.
    """
    text, values = _read(_OBJECT, document)
    found = []
    at = 0
    for name, raw in values.items():
        key = _KEY.match(text, at)
        value = bytes(raw)
        # msgspec keeps the last of two equal names in the place of the first: then either the
        # values differ here, or members are left over at the end.
        if key is None or not text.startswith(value, key.end()):
            raise EventError("a member name occurs twice")
        at = key.end() + len(value)
        found.append(Member(name, key.start(1), key.end(), at))
    if _END.match(text, at) is None:
        raise EventError("a member name occurs twice")
    return found


def elements(document: bytes) -> list[bytes]:
    """The raw elements of the array `document`, in order. Raises `EventError`."""
    text, values = _read(_ARRAY, document)
    found = []
    at = 0
    for raw in values:
        before = _BEFORE_ELEMENT.match(text, at)
        start = before.end() if before else at
        at = start + len(bytes(raw))
        found.append(document[start:at])
    return found


def member(document: bytes, name: str) -> bytes | None:
    """The raw value of one member of the object `document`, None if absent."""
    for found in members(document):
        if found.name == name:
            return document[found.value : found.end]
    return None


def without(document: bytes, found: Sequence[Member], name: str) -> bytes:
    """`document` without its member `name` and one comma; every other token stays."""
    for place, cut in enumerate(found):
        if cut.name != name:
            continue
        if place + 1 < len(found):
            return document[: cut.key] + document[found[place + 1].key :]
        start = found[place - 1].end if place else cut.key
        return document[:start] + document[cut.end :]
    return document


def replaced(document: bytes, start: int, end: int, value: bytes) -> bytes:
    """`document` with the bytes from `start` to `end` changed to `value`."""
    return b"".join((document[:start], value, document[end:]))


def _read(decoder: msgspec.json.Decoder[T], document: bytes) -> tuple[bytes, T]:
    """`document`, or its equally long stand-in, and what `decoder` makes of it."""
    try:
        return document, decoder.decode(document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        text = _without_surrogates(document)
        if text == document:
            raise EventError(str(error)) from error
    try:
        return text, decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EventError(str(error)) from error


def _without_surrogates(document: bytes) -> bytes:
    """An equally long document: escaped surrogates replaced, so that offsets hold for both."""
    return _ESCAPE.sub(lambda found: b"\\ufffd" if found[1] else found[0], document)
