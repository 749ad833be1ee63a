"""A turn's body: strict JSON taken apart once, its members and items kept as upstream-ready bytes.

Nothing is decoded further than needed: members and input items stay raw, so that what is sent on
is the client's own spelling (contract §5.8). msgspec checks the whole grammar while it splits
(0.6 ms for 1 MB; docs/decisions/json.md); what it does not check is checked here: UTF-8,
duplicate member names, nesting, numbers out of range.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

import msgspec

from wsproxy.core.api.canonical import NotStrictError, OpaqueError, is_deeper_than, value_of
from wsproxy.core.ids import LaneName

#: Members that exist on one transport only; a body that has one gets upstream's own verdict.
RESERVED_MEMBERS: Final = frozenset({"type", "stream_id", "generate"})
#: Members that never go into a frame (protocol.md §2.2).
UNSENT_MEMBERS: Final = frozenset({"stream", "background"})

_MEMBERS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ITEMS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_STRING: Final = msgspec.json.Decoder(str)
_KEY: Final = re.compile(rb'[ \t\r\n]*[{,][ \t\r\n]*("(?:[^"\\]|\\.)*")[ \t\r\n]*:[ \t\r\n]*', re.S)
_GAP: Final = re.compile(rb"[ \t\r\n]*[\[,][ \t\r\n]*")
_END: Final = re.compile(rb"[ \t\r\n]*}[ \t\r\n]*")
#: Half of a character, as JavaScript writes a cut emoji: valid JSON, but msgspec refuses it.
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
#: What may be a number beyond a double's range (1e400, a thousand digits).
_VAST: Final = re.compile(rb"[0-9][eE]\+?[0-9]{3}|[0-9]{200}")


_Split = TypeVar("_Split", dict[str, msgspec.Raw], list[msgspec.Raw])


class UnfitError(Exception):
    """The body is not for the WebSocket: the turn goes over HTTPS, verbatim (contract §4).

    `reason` is the token told in `x-wsproxy-route`.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Member:
    """One top-level member: its key as spelled (with quotes) and its value's own bytes."""

    key: bytes
    value: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Request:
    """A body fit for the WebSocket.

    `items` is None unless `input` is an array; a string `input` is in `text` (raw, with quotes).
    An item is a view of the input's bytes: `bytes(item)` to look into it.
    """

    members: dict[str, Member]
    items: Sequence[bytes] | None = field(repr=False)
    text: bytes | None = field(repr=False)
    is_streaming: bool
    store_is_false: bool

    def value(self, name: str) -> bytes | None:
        """The raw value of a member; None if absent or null (they mean the same to routing)."""
        member = self.members.get(name)
        return None if member is None or member.value == b"null" else member.value

    def string(self, name: str) -> str | None:
        """The value of a string member; None if absent, null or not a string of characters."""
        raw = self.value(name)
        if raw is None or raw[:1] != b'"':
            return None
        try:
            return _STRING.decode(raw)
        except msgspec.MsgspecError:
            return None  # half a surrogate pair

    @property
    def array(self) -> bytes:
        """The raw `input` with all its items; empty where it is none."""
        return b"" if self.items is None else self.members["input"].value

    @property
    def own_parent(self) -> bytes | None:
        """What the client itself sent as `previous_response_id` (raw), null included."""
        member = self.members.get("previous_response_id")
        return None if member is None else member.value

    @property
    def is_whole_context(self) -> bool:
        """Whether `input` alone says everything upstream will know (contract §5.1)."""
        return (
            self.value("previous_response_id") is None
            and self.value("conversation") is None
            and bool(self.items or (self.text is not None and self.text != b'""'))
        )


def parse(body: bytes, *, max_depth: int = 64, max_items: int = 20_000) -> Request:
    """Take a body apart. Raises `UnfitError` if the turn belongs on HTTPS."""
    _check_utf8(body)
    members = _members(body)
    if not RESERVED_MEMBERS.isdisjoint(members):
        raise UnfitError("reserved_member")
    items, text = _input(members.get("input"), max_items)
    for name, member in members.items():
        if name != "input" or items is None:  # items are looked at one by one, each once
            _check_value(member.value, max_depth - 1)
    if _flag(members, "background"):
        raise UnfitError("background")
    return Request(
        members=members,
        items=items,
        text=text,
        is_streaming=_flag(members, "stream"),
        store_is_false=(m := members.get("store")) is not None and m.value == b"false",
    )


def _check_value(raw: bytes, max_depth: int) -> None:
    """Refuse what a strict parser would (contract §4); `raw` is JSON by grammar."""
    if is_deeper_than(raw, max_depth):
        raise UnfitError("unparsed")
    if _VAST.search(raw):
        try:
            value_of(raw)
        except NotStrictError as error:
            raise UnfitError("unparsed") from error
        except OpaqueError:
            pass  # upstream reads it in its own way, over either transport


def _check_utf8(body: bytes) -> None:
    """What is only cut out of the body need not be looked at again."""
    try:
        if not body.isascii():
            body.decode()
    except UnicodeDecodeError as error:
        raise UnfitError("unparsed") from error


def _members(body: bytes) -> dict[str, Member]:
    """Split the top level; refuses what strict JSON refuses, and duplicate names."""
    text, values = _split(body, _MEMBERS)
    members: dict[str, Member] = {}
    at = 0
    for name, value in values.items():
        key = _KEY.match(text, at)
        # Each value is found again in the text, so a dict that lost a duplicate cannot pass.
        if key is None or not text.startswith(value, key.end()):
            raise UnfitError("unparsed")
        if not body.startswith(key[1], key.start(1)):
            raise UnfitError("unparsed")  # half a surrogate pair in a name
        at = key.end() + len(value)
        members[name] = Member(key[1], body[key.end() : at])
    if members and not _END.fullmatch(text, at):
        raise UnfitError("unparsed")
    return members


def _split(raw: bytes, decoder: msgspec.json.Decoder[_Split]) -> tuple[bytes, _Split]:
    """The text that was split, as long as `raw` to the byte, and its raw values."""
    try:
        try:
            return raw, decoder.decode(raw)
        except msgspec.DecodeError:
            text = _SURROGATE.sub(rb"\\uFFFD", raw)
            return text, decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UnfitError("unparsed") from error


def _flag(members: dict[str, Member], name: str) -> bool:
    """A boolean member; anything but true, false, null and absence is upstream's to judge."""
    member = members.get(name)
    if member is None or member.value in (b"false", b"null"):
        return False
    if member.value == b"true":
        return True
    raise UnfitError("odd_member")


def _input(member: Member | None, max_items: int) -> tuple[Sequence[bytes] | None, bytes | None]:
    """The input as items or as text; neither if it is absent or of another kind."""
    if member is None:
        return None, None
    if member.value[:1] == b'"':
        return None, member.value
    if member.value[:1] != b"[":
        return None, None
    items = _items(member.value)
    if len(items) > max_items:
        raise UnfitError("too_large")
    return items, None


def _items(raw: bytes) -> Sequence[bytes]:
    text, values = _split(raw, _ITEMS)
    if text is raw:
        return values
    items: list[bytes] = []
    at = 0
    for value in values:
        gap = _GAP.match(text, at)
        assert gap is not None
        at = gap.end() + len(value)
        items.append(raw[gap.end() : at])
    return items


def frame(
    request: Request, *, lane: LaneName, parent: str | None = None, delta_from: int = 0
) -> bytes:
    """The `response.create` message of a turn (contract §5.8).

    With `parent` (ours), `input` holds only the items from `delta_from` on and the parent's id is
    added; a `previous_response_id` of the client's own stays as it is.
    """
    parts: list[bytes] = [b'{"type":"response.create"']
    if lane:
        parts += (b',"stream_id":', msgspec.json.encode(lane))
    if parent is not None:
        parts += (b',"previous_response_id":', msgspec.json.encode(parent))
    for name, member in request.members.items():
        if name in UNSENT_MEMBERS or (parent is not None and name == "previous_response_id"):
            continue
        parts += (b",", member.key, b":")
        if parent is not None and name == "input":
            assert request.items is not None
            parts += (b"[", b",".join(request.items[delta_from:]), b"]")
        else:
            parts.append(member.value)
    parts.append(b"}")
    return b"".join(parts)  # once: a large input is copied here, and nowhere else
