"""Inputs that are nearly right: seeds changed at random, by bytes and by their own pieces."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

#: Larger ones are cut: a fault that needs more than this is none of a parser's.
MAX_BYTES: Final = 16_384
#: How many changes an input gets: most get one, or nothing would be nearly right.
CHANGES: Final = (1, 1, 1, 1, 2, 2, 3, 6)
NUMBERS: Final = b"0 1 -1 2 125 126 127 255 65535 65536 4294967296 1e400 -0 1.0 00 9".split()
_NUMBER: Final = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?")
_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}:,]|[^\[\]{}:,"]+|"', re.S)
_SCALAR: Final = re.compile(rb'\s*("(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|true|false|null)\s*', re.S)
_AFTER_NAME: Final = re.compile(rb"\s*:")


def _same(piece: bytes) -> bytes:
    return piece


def _not_reshaped(raw: bytes, _other: bytes, _chance: random.Random) -> bytes:
    return raw


@dataclass(frozen=True, slots=True)
class Grammar:
    """How an input falls into pieces, how a changed piece is made whole, and words of it.

    `reshaped` makes of two inputs, or of two pieces, one that is as right as they are.
    """

    pieces: Callable[[bytes], Sequence[bytes]]
    words: Sequence[bytes] = ()
    mended: Callable[[bytes], bytes] = field(default=_same)
    reshaped: Callable[[bytes, bytes, random.Random], bytes] = field(default=_not_reshaped)


def lines(raw: bytes) -> Sequence[bytes]:
    """Lines with their ends."""
    return raw.splitlines(keepends=True)


def json_tokens(raw: bytes) -> Sequence[bytes]:
    """The tokens of JSON texts; whatever is none is a piece as well."""
    return _TOKEN.findall(raw)


@lru_cache(maxsize=1024)  # of seeds above all
def json_values(raw: bytes) -> Sequence[tuple[int, int]]:
    """Where each value lies, names of members not counted."""
    found: list[tuple[int, int]] = []
    open_: list[int] = []
    for token in _TOKEN.finditer(raw):
        if token[0] in (b"{", b"["):
            open_.append(token.start())
        elif token[0] in (b"}", b"]") and open_:
            found.append((open_.pop(), token.end()))
        elif (scalar := _SCALAR.fullmatch(token[0])) and not _AFTER_NAME.match(raw, token.end()):
            found.append((token.start() + scalar.start(1), token.start() + scalar.end(1)))
    return found


def reshaped_json(raw: bytes, other: bytes, chance: random.Random) -> bytes:
    """One value put in the place of another, or beside it as one more member or element."""
    ours, theirs = json_values(raw), json_values(other)
    if not ours or not theirs:
        return raw
    start, end = chance.choice(ours)
    value = other[slice(*chance.choice(theirs))]
    match chance.randrange(4):
        case 0 if raw[start : start + 1] == b"{" and end - start > 2:
            names = [token for token in json_tokens(raw) if token.startswith(b'"')]
            name = chance.choice([*names, b'"type"'])
            return raw[: start + 1] + name + b":" + value + b"," + raw[start + 1 :]
        case 1 if raw[start : start + 1] == b"[" and end - start > 2:
            return raw[: start + 1] + value + b"," + raw[start + 1 :]
        case _:
            return raw[:start] + value + raw[end:]


class Mutator:
    """Draws inputs from seeds; the same `chance` and seeds give the same inputs."""

    def __init__(self, grammar: Grammar, seeds: Sequence[bytes], chance: random.Random) -> None:
        self._grammar, self._seeds, self._chance = grammar, seeds, chance
        self._spice = [*grammar.words, *grammar.words, b"\0", b"\xff", b"\r\n", b'"', b"\xed\xa0"]
        self._ways = (
            self._with_other_bit,
            self._with_other_byte,
            self._with_word,
            self._with_other_number,
            self._with_range_moved,
            self._spliced,
            *(3 * [self._with_other_pieces]),
            *(8 * [self._reshaped]),
        )

    def draw(self) -> bytes:
        """The next input."""
        raw = self._chance.choice(self._seeds)
        for _ in range(self._chance.choice(CHANGES)):
            raw = self._chance.choice(self._ways)(raw)[:MAX_BYTES]
        return raw

    # -- by bytes -------------------------------------------------------------------------

    def _place(self, raw: bytes) -> int:
        return self._chance.randrange(len(raw) + 1)

    def _with_other_bit(self, raw: bytes) -> bytes:
        at = self._place(raw)
        return (
            raw[:at]
            + bytes(b ^ 1 << self._chance.randrange(8) for b in raw[at : at + 1])
            + (raw[at + 1 :])
        )

    def _with_other_byte(self, raw: bytes) -> bytes:
        at = self._place(raw)
        return raw[:at] + self._chance.randbytes(1) + raw[at + self._chance.randint(0, 1) :]

    def _with_word(self, raw: bytes) -> bytes:
        at = self._place(raw)
        until = at + self._chance.choice((0, 0, 1, 4, 40))
        return raw[:at] + self._chance.choice(self._spice) + raw[until:]

    def _with_other_number(self, raw: bytes) -> bytes:
        found = list(_NUMBER.finditer(raw))
        if not found:
            return self._with_word(raw)
        number = self._chance.choice(found)
        return raw[: number.start()] + self._chance.choice(NUMBERS) + raw[number.end() :]

    def _with_range_moved(self, raw: bytes) -> bytes:
        """Bytes left out, said again or said elsewhere."""
        at, to = self._place(raw), self._place(raw)
        part = raw[at : at + self._chance.choice((1, 2, 8, 64, 1024))]
        rest = self._chance.choice((raw, raw[:at] + raw[at + len(part) :]))
        return rest[:to] + self._chance.choice((b"", part)) + rest[to:]

    def _spliced(self, raw: bytes) -> bytes:
        other = self._chance.choice(self._seeds)
        return raw[: self._place(raw)] + other[self._place(other) :]

    # -- by pieces ------------------------------------------------------------------------

    def _with_other_pieces(self, raw: bytes) -> bytes:
        pieces = list(self._grammar.pieces(raw))
        if not pieces:
            return self._with_word(raw)
        at, to = self._chance.randrange(len(pieces)), self._chance.randrange(len(pieces))
        match self._chance.randrange(6):
            case 0:
                del pieces[at]
            case 1:
                pieces.insert(to, pieces[at])
            case 2:
                pieces[at], pieces[to] = pieces[to], pieces[at]
            case 3:
                others = self._grammar.pieces(self._chance.choice(self._seeds))
                pieces[at] = self._chance.choice([*others, b""])
            case _:
                way = self._chance.choice((*self._ways[:5], *(5 * [self._reshaped])))
                pieces[at] = self._grammar.mended(way(pieces[at]))
        return b"".join(pieces)

    def _reshaped(self, raw: bytes) -> bytes:
        other = self._chance.choice((*self._seeds, *self._grammar.words))
        return self._grammar.reshaped(raw, other, self._chance)
