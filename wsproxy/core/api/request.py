"""A turn's body: strict JSON taken apart once, its members and items kept as upstream-ready bytes.

Nothing is decoded further than needed: members and input items stay raw, so that what is sent on
is the client's own spelling (contract §5.8). msgspec checks the whole grammar while it splits
(0.6 ms for 1 MB; docs/decisions/json.md); what it does not check is checked here: UTF-8,
duplicate member names, nesting.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from wsproxy.core.ids import LaneName

#: Members that exist on one transport only; a body that has one gets upstream's own verdict.
RESERVED_MEMBERS: Final = frozenset({"type", "stream_id", "generate"})
#: Members that never go into a frame (protocol.md §2.2).
UNSENT_MEMBERS: Final = frozenset({"stream", "background"})

_MEMBERS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ITEMS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_STRING: Final = msgspec.json.Decoder(str)
_KEY: Final = re.compile(rb'[ \t\r\n]*[{,][ \t\r\n]*("(?:[^"\\]|\\.)*")[ \t\r\n]*:[ \t\r\n]*', re.S)
_END: Final = re.compile(rb"[ \t\r\n]*}[ \t\r\n]*")
_QUOTED: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.S)
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_SQUARE: Final = bytes.maketrans(b"{}", b"[]")


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
    value: bytes


@dataclass(frozen=True, slots=True)
class Request:
    """A body fit for the WebSocket.

    `items` is None unless `input` is an array; a string `input` is in `text` (raw, with quotes).
    """

    members: dict[str, Member]
    items: Sequence[msgspec.Raw] | None
    text: bytes | None
    is_streaming: bool
    store_is_false: bool

    def value(self, name: str) -> bytes | None:
        """The raw value of a member; None if absent or null (they mean the same to routing)."""
        member = self.members.get(name)
        return None if member is None or member.value == b"null" else member.value

    def string(self, name: str) -> str | None:
        """The value of a string member; None if absent, null or not a string."""
        raw = self.value(name)
        return _STRING.decode(raw) if raw is not None and raw[:1] == b'"' else None

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
    members = _members(body)
    if any(name in members for name in RESERVED_MEMBERS):
        raise UnfitError("reserved_member")
    if any(
        is_deeper_than(member.value, max_depth - 1)
        for name, member in members.items()
        if name != "input"  # its items are looked at one by one, each once in a conversation
    ):
        raise UnfitError("unparsed")
    if _flag(members, "background"):
        raise UnfitError("background")
    items, text = _input(members.get("input"), max_items)
    return Request(
        members=members,
        items=items,
        text=text,
        is_streaming=_flag(members, "stream"),
        store_is_false=(m := members.get("store")) is not None and m.value == b"false",
    )


def _members(body: bytes) -> dict[str, Member]:
    """Split the top level; refuses what strict JSON refuses, and duplicate names."""
    try:
        body.decode()
        values = _MEMBERS.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UnfitError("unparsed") from error
    members: dict[str, Member] = {}
    at = 0
    for name, value in values.items():
        key = _KEY.match(body, at)
        # Each value is found again in the text, so a dict that lost a duplicate cannot pass.
        if key is None or not body.startswith(value, key.end()):
            raise UnfitError("unparsed")
        members[name] = Member(key[1], bytes(value))
        at = key.end() + len(value)
    if members and not _END.fullmatch(body, at):
        raise UnfitError("unparsed")
    return members


def _flag(members: dict[str, Member], name: str) -> bool:
    """A boolean member; anything but true, false, null and absence is upstream's to judge."""
    member = members.get(name)
    if member is None or member.value in (b"false", b"null"):
        return False
    if member.value == b"true":
        return True
    raise UnfitError("odd_member")


def _input(member: Member | None, max_items: int) -> tuple[list[msgspec.Raw] | None, bytes | None]:
    if member is None:
        return None, None
    if member.value[:1] == b'"':
        return None, member.value
    if member.value[:1] != b"[":
        return None, None
    items = _ITEMS.decode(member.value)
    if len(items) > max_items:
        raise UnfitError("too_large")
    return items, None


def is_deeper_than(text: bytes, depth: int) -> bool:
    """Whether valid JSON nests arrays and objects deeper than `depth`.

    Strings are cut out and innermost pairs removed level by level, all in C: a hostile body must
    not reach a recursive parser (CPython raises RecursionError near 1,000 levels).
    """
    if text.count(b"[") + text.count(b"{") <= depth:
        return False
    brackets = _QUOTED.sub(b"", text).translate(_SQUARE, _NOT_BRACKETS)
    for _ in range(depth):
        brackets = brackets.replace(b"[]", b"")
        if not brackets:
            return False
    return True


def frame(
    request: Request, *, lane: LaneName, parent: str | None = None, delta_from: int = 0
) -> bytes:
    """The `response.create` message of a turn (contract §5.8).

    With `parent` (ours), `input` holds only the items from `delta_from` on and the parent's id is
    added; a `previous_response_id` of the client's own stays as it is.
    """
    head: list[bytes] = [b'{"type":"response.create"']
    if lane:
        head.append(b'"stream_id":' + msgspec.json.encode(lane))
    if parent is not None:
        head.append(b'"previous_response_id":' + msgspec.json.encode(parent))
    head.extend(_sent_members(request, parent is not None, delta_from))
    return b",".join(head) + b"}"


def _sent_members(request: Request, is_delta: bool, delta_from: int) -> Iterable[bytes]:
    for name, member in request.members.items():
        if name in UNSENT_MEMBERS or (is_delta and name == "previous_response_id"):
            continue
        if is_delta and name == "input":
            assert request.items is not None
            yield member.key + b":[" + b",".join(request.items[delta_from:]) + b"]"
        else:
            yield member.key + b":" + member.value
