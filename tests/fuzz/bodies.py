"""Coded bodies: what a decoder gives is bounded, and what it takes is whole.

The first byte of an input chooses the coding.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

import zstandard

from tests.fuzz.contract import demand
from wsproxy.downstream.coding import BodyError, decode

CODINGS: Final = ("gzip", "deflate", "zstd")
MAX_BYTES: Final = 2_000_000
STATUSES: Final = frozenset({400, 413})


def recoded(raw: bytes, other: bytes, chance: Random) -> bytes:
    """Another text, rightly coded, and now and then the other input behind it."""
    kind = chance.randrange(len(CODINGS))
    text = chance.choice((raw, other, bytes(chance.choice((100, 100_000)))))
    behind = other[1:] if chance.random() < 0.2 else b""
    return bytes([kind]) + _ENCODERS[kind](text) + behind


_ENCODERS: Final[Sequence[Callable[[bytes], bytes]]] = (
    gzip.compress,
    zlib.compress,
    zstandard.ZstdCompressor().compress,
)


def check_coded(raw: bytes) -> None:
    """See the head of this file."""
    coding = CODINGS[(raw[:1] or b"\0")[0] % len(CODINGS)]
    try:
        decoded = decode(raw[1:], coding, max_bytes=MAX_BYTES)
    except BodyError as error:
        demand(error.status in STATUSES, "status", error.status)
        return
    demand(len(decoded) <= MAX_BYTES, "expanded beyond the limit")
    if coding == "gzip":
        demand(gzip.decompress(raw[1:]) == decoded, "another text than gzip's own")
    elif coding == "deflate":
        firsts = tuple(_inflated(raw[1:]))  # zlib itself stops behind the first stream
        demand(decoded.startswith(firsts), "another text than zlib's own")


def _inflated(raw: bytes) -> list[bytes]:
    found = []
    for wbits in (zlib.MAX_WBITS, -zlib.MAX_WBITS):
        try:
            found.append(zlib.decompress(raw, wbits))
        except zlib.error:
            continue
    return found
