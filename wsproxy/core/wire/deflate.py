"""permessage-deflate (RFC 7692), bounded: what was agreed, and both directions of it.

wsproto's own extension inflates without a limit (65 KB became 64 MiB, measured) and reads the
agreed parameters without checking them, so neither is used.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from io import BytesIO
from typing import Final

#: What is offered: the server may choose our window, and both sides keep their context.
OFFER: Final = b"permessage-deflate; client_max_window_bits"

#: Level 3 makes frames 4–7 % larger than level 6 in 60 % of the time, and a repeated frame of
#: 20 KB takes a fifth of the time (docs/decisions/frame-reading.md).
LEVEL: Final = 3

#: Output that may always be had: below it a tiny frame that repeats the previous message whole
#: (ratio 164 was measured, deflate's own limit is 1,032) is not a bomb.
FREE_BYTES: Final = 1024 * 1024

#: RFC 7692 §7.2.1: the end of every sync flush, left off the wire.
_TAIL: Final = b"\x00\x00\xff\xff"

#: Deflated in one go; the output buffer of one call is a copy besides what is kept.
_SLICE_BYTES: Final = 128 * 1024

_WINDOW_BITS: Final = {str(bits): bits for bits in range(8, 16)}
_SMALLEST_ZLIB_WINDOW: Final = 9  # zlib cannot deflate raw streams with a window of 2^8


class DeflateError(Exception):
    """The peer's parameters or data are not what RFC 7692 allows."""


class TooBigError(Exception):
    """A message inflates beyond the limit or the ratio."""


@dataclass(frozen=True, slots=True)
class DeflateParameters:
    """What the 101 agreed on. "client" is us; window bits are 8–15."""

    client_max_window_bits: int = 15
    server_max_window_bits: int = 15
    client_no_context_takeover: bool = False
    server_no_context_takeover: bool = False


def parse_agreement(value: bytes) -> DeflateParameters:
    """Read the `Sec-WebSocket-Extensions` of a 101 that answers `OFFER`.

    Raises `DeflateError` on anything but one permessage-deflate whose parameters are known,
    complete, in range and there once (RFC 7692 §7.1).
    """
    try:
        name, *parameters = [part.strip() for part in value.decode("ascii").split(";")]
    except UnicodeDecodeError:
        raise DeflateError("extension parameters are not ASCII") from None
    if name.lower() != "permessage-deflate":
        raise DeflateError(f"unasked extension {name[:80]!r}")
    agreed: dict[str, int | bool] = {}
    for key, setting in map(_parameter, parameters):
        if key in agreed:
            raise DeflateError(f"parameter {key} is there twice")
        agreed[key] = setting
    return DeflateParameters(**agreed)  # type: ignore[arg-type]  # checked by _parameter


def _parameter(part: str) -> tuple[str, int | bool]:
    name, equals, value = (piece.strip() for piece in part.partition("="))
    name = name.lower()
    if name in ("client_no_context_takeover", "server_no_context_takeover") and not equals:
        return name, True
    if len(value) > 1 and value[0] == value[-1] == '"':  # RFC 6455 §9.1 allows a quoted token
        value = value[1:-1]
    if name in ("client_max_window_bits", "server_max_window_bits") and value in _WINDOW_BITS:
        return name, _WINDOW_BITS[value]
    raise DeflateError(f"odd extension parameter {part[:80]!r}")


class Inflater:
    """The peer's messages, one after another, each within its bounds."""

    def __init__(self, parameters: DeflateParameters, max_bytes: int, max_ratio: int) -> None:
        self._window_bits = parameters.server_max_window_bits
        self._is_kept = not parameters.server_no_context_takeover
        self._max_bytes = max_bytes
        self._max_ratio = max_ratio
        self._free_bytes = min(FREE_BYTES, max_bytes)
        self._stream = zlib.decompressobj(-self._window_bits)

    def inflate(self, payload: bytes) -> bytes:
        """One whole message; raises `TooBigError` or `DeflateError`, after which it is over."""
        limit = self._free_bytes
        if len(payload) * self._max_ratio > limit:
            limit = min(len(payload) * self._max_ratio, self._max_bytes)
        try:
            inflated = self._stream.decompress(payload + _TAIL, limit + 1)
        except zlib.error as error:
            raise DeflateError(str(error)) from None
        if len(inflated) > limit:
            raise TooBigError(f"{len(payload)} compressed bytes inflate to more than {limit}")
        if self._stream.eof:
            self._check_end()
        if self._stream.eof or not self._is_kept:
            self._stream = zlib.decompressobj(-self._window_bits)
        return inflated

    def _check_end(self) -> None:
        # RFC 7692 §7.2.3.4: a sender may end its stream with every message; then an empty block
        # (its first byte on the wire, the rest in the tail) follows and the window starts anew.
        if self._stream.unused_data not in (_TAIL, b"\x00" + _TAIL):
            raise DeflateError("data after the last block of a message")


def can_deflate(parameters: DeflateParameters) -> bool:
    """Whether we can compress as agreed; if not we send plain messages, as is always allowed."""
    return parameters.client_max_window_bits >= _SMALLEST_ZLIB_WINDOW


class Deflater:
    """Our messages, one after another, in the order in which they are sent."""

    def __init__(self, parameters: DeflateParameters) -> None:
        self._window_bits = parameters.client_max_window_bits
        self._is_kept = not parameters.client_no_context_takeover
        self._stream = self._fresh()

    def deflate(self, payload: bytes) -> bytes:
        """One whole message. Text that cannot shrink grows by at most 5 bytes in 16 KiB."""
        deflated = BytesIO()  # grows in place: joined and cut, a large one would be there twice
        view = memoryview(payload)
        for start in range(0, len(payload), _SLICE_BYTES):
            deflated.write(self._stream.compress(view[start : start + _SLICE_BYTES]))
        deflated.write(self._stream.flush(zlib.Z_SYNC_FLUSH))
        deflated.truncate(deflated.tell() - len(_TAIL))
        if not self._is_kept:
            self._stream = self._fresh()
        return deflated.getvalue()

    def _fresh(self) -> zlib._Compress:
        return zlib.compressobj(LEVEL, zlib.DEFLATED, -self._window_bits)
