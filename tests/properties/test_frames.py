"""A frame says what the body said: every value to the byte, every member in its place."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.properties.tape import Tape
from wsproxy.core.api.request import Request, UnfitError, frame, parse
from wsproxy.core.ids import LaneName

SPACES: Final = ["", "", "", " ", "\n", "\t \r\n"]
SCALARS: Final = """0 -0 1 1.0 1e2 1E+2 0.10 -12.5e-3 9007199254740993 true false null
1111111111111111111111111111111111111111""".split()
CHARACTERS: Final = ["cnry7 text", *"a\u00e9\u20ac\U0001f600/{],: \x7f"]
ESCAPES: Final = ["\\u0061", "\\u00E9", "\\ud83d\\ude00", "\\/", '\\"', "\\\\", "\\n", "\\u0000"]
HALVES: Final = ["\\ud83d", "\\uDE00", "\\ud83dx"]
NAMES: Final = """model input stream background previous_response_id tools metadata store a type2
conversation instructions""".split()


class Writer:
    """Writes JSON texts in all the ways there are, as a tape tells it."""

    def __init__(self, tape: Tape) -> None:
        self.tape = tape

    def space(self) -> str:
        return str(self.tape.pick(*SPACES))

    def string(self) -> str:
        sets = [CHARACTERS, CHARACTERS, ESCAPES, ESCAPES, ESCAPES, HALVES]
        pieces = [self.tape.pick(*self.tape.pick(*sets)) for _ in range(self.tape.below(4))]
        return '"' + "".join(pieces) + '"'

    def value(self, depth: int = 0) -> str:
        kind = self.tape.below(6 if depth < 3 else 3)
        if kind == 0:
            return str(self.tape.pick(*SCALARS))
        if kind < 3:
            return self.string()
        count = self.tape.below(4)
        if kind == 3:
            return self.joined("[]", [self.value(depth + 1) for _ in range(count)])
        pairs = [(self.string(), self.value(depth + 1)) for _ in range(count)]
        return self.object_of(pairs)

    def object_of(self, pairs: Sequence[tuple[str, str]]) -> str:
        members = [f"{name}{self.space()}:{self.space()}{value}" for name, value in pairs]
        return self.joined("{}", members)

    def joined(self, brackets: str, elements: Sequence[str]) -> str:
        spaced = [f"{self.space()}{element}{self.space()}" for element in elements]
        return brackets[0] + (",".join(spaced) or self.space()) + brackets[1]

    def name(self, name: str) -> str:
        is_escaped = self.tape.once_in(3)
        return f'"\\u{ord(name[0]):04x}{name[1:]}"' if is_escaped else f'"{name}"'

    def members(self) -> list[tuple[str, str]]:
        """Top-level members as (name, the value's own text)."""
        start = self.tape.below(len(NAMES))
        names = (NAMES[start:] + NAMES[:start])[: self.tape.below(7)]
        return [(name, self._member(name)) for name in names]

    def _member(self, name: str) -> str:
        if name in ("stream", "background"):
            return str(self.tape.pick("false", "null", "true" if name == "stream" else "null"))
        if name == "input":
            items = [self.value() for _ in range(self.tape.below(4))]
            return self.joined("[]", items) if self.tape.below(3) else self.string()
        return self.value()

    def body(self, members: Sequence[tuple[str, str]]) -> bytes:
        spelled = [(self.name(name), value) for name, value in members]
        return f"{self.space()}{self.object_of(spelled)}{self.space()}".encode()


def members_of(raw: bytes) -> list[tuple[str, str]]:
    """Top-level names and the texts of their values, by a decoder that is not the code's."""
    text, decoder, found, at = raw.decode(), json.JSONDecoder(), [], 1
    while text[at] != "}":
        name, at = decoder.raw_decode(text, at)
        assert text[at] == ":"
        start = at + 1
        _, at = decoder.raw_decode(text, start)
        found.append((name, text[start:at]))
        at += text[at] == ","
    assert at == len(text) - 1
    return found


@given(st.binary(max_size=250))
@settings(max_examples=3_000, deadline=None, print_blob=True)
def test_a_full_frame_is_the_body_but_for_the_named_members(data: bytes) -> None:
    writer = Writer(Tape(data))
    members = writer.members()
    sent = members_of(frame(parse(writer.body(members)), lane=LaneName("l07")))
    assert sent[:2] == [("type", '"response.create"'), ("stream_id", '"l07"')]
    assert sent[2:] == [m for m in members if m[0] not in ("stream", "background")]


@given(st.binary(max_size=250))
@settings(max_examples=2_000, deadline=None, print_blob=True)
def test_a_delta_holds_the_texts_of_the_new_items(data: bytes) -> None:
    writer = Writer(Tape(data))
    items = [writer.value() for _ in range(1 + writer.tape.below(5))]
    start = writer.tape.below(len(items) + 1)
    members = [m for m in writer.members() if m[0] not in ("input", "previous_response_id")]
    ours = [("previous_response_id", "null"), ("input", writer.joined("[]", items))]
    request = parse(writer.body([*ours, *members]))
    sent = members_of(frame(request, lane=LaneName(""), parent="resp_\u00e9", delta_from=start))
    assert sent[:2] == [("type", '"response.create"'), ("previous_response_id", '"resp_\u00e9"')]
    assert sent[2] == ("input", f"[{','.join(items[start:])}]")
    assert sent[3:] == [m for m in members if m[0] not in ("stream", "background")]


DAMAGES: Final = [b"", b",", b'"', b"}", b"]", b"0", b"\\", b"\x00", b"\xff", b"nul", b"1e400"]


@given(st.binary(max_size=250))
@settings(max_examples=3_000, deadline=None, print_blob=True)
def test_damaged_bodies_are_refused_where_a_strict_parser_refuses_them(data: bytes) -> None:
    writer = Writer(Tape(data))
    raw = bytearray(writer.body(writer.members()))
    at = (writer.tape.below(256) << 8 | writer.tape.below(256)) % len(raw)
    raw[at : at + writer.tape.below(3)] = writer.tape.pick(*DAMAGES)
    request: Request | None = None
    try:
        request = parse(bytes(raw))
    except UnfitError as error:
        is_refused_rightly = error.reason != "unparsed" or not _is_plain(bytes(raw))
    else:
        is_refused_rightly = True
    assert is_refused_rightly
    assert request is None or _is_strict(bytes(raw))


def _is_strict(raw: bytes) -> bool:
    def refuse(name: str) -> None:
        raise ValueError(name)

    try:
        return isinstance(json.loads(raw.decode(), parse_constant=refuse), dict)
    except ValueError:
        return False


def _is_plain(raw: bytes) -> bool:
    """Strict JSON with no top-level name twice and no number out of range."""

    def pairs(members: list[tuple[str, object]]) -> tuple[str, ...]:
        return tuple(name for name, _ in members)

    if not _is_strict(raw) or re.search(rb"[eE]\+?[0-9]{3}|[0-9]{200}", raw):
        return False
    names = json.loads(raw.decode(), object_pairs_hook=pairs)
    has_half_a_name = any(0xD800 <= ord(c) < 0xE000 for name in names for c in name)
    return len(set(names)) == len(names) and not has_half_a_name
