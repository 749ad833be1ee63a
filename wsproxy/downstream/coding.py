"""Request bodies: read to their end within bounds, and one Content-Encoding undone.

Rules of this file
------------------
1. Nothing is read without a size, an idle deadline and a least rate (threats 11, 12, 14).
2. A decoder is fed slices so small that one of them cannot burst the bounds by much.
3. The bytes as they came are kept: over HTTPS they are relayed verbatim.
4. Decoding is work for a thread of its own, step by step: neither what came nor what comes of it
   says how much work lies between. A step ends after so much of either, and none follows when the
   client has left.
5. Bytes are counted before they are kept, and kept once: `BytesIO` grows in place and gives its
   bytes away, where joining parts holds them twice.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO
from itertools import islice
from typing import Final, NamedTuple, Protocol

import zstandard
from aiohttp import web
from aiohttp.web_protocol import RequestPayloadError

from wsproxy.downstream.answers import TRY_AGAIN, RawAnswer, refusal, send_continue
from wsproxy.downstream.room import NoRoomError, Room, Share
from wsproxy.ports import Headers

MAX_BODY_BYTES: Final = 67_108_864  # 64 MiB; faults.md §7
IDLE_TIMEOUT_S: Final = 30.0
MIN_BYTES_PER_S: Final = 1_024  # an honest modem of 1995 is twice as fast
RATE_GRACE_S: Final = 10.0
#: JSON of real agents shrinks 5 to 30 times; a bomb 1,000 (deflate) to 30,000 (zstd) times.
MAX_RATIO: Final = 100
RATIO_FREE_BYTES: Final = 1_048_576  # below this the ratio proves nothing and costs nothing
#: Sent on in one go; as much as the sockets' buffers take, so that nothing waits.
PART_BYTES: Final = 131_072
#: What may come of a step before it ends; it is counted before the next.
_STEP_BYTES: Final = 1_048_576
#: What a step may take in: 7 ms of work at worst (deflate blocks that are all tables, no text).
_STEP_TAKEN_BYTES: Final = 65_536
_GZIP_WBITS: Final = 31
_ZSTD_WINDOW_BYTES: Final = 8_388_608  # what RFC 8878 §3.1.1.1.2 asks decoders to support
#: Members (RFC 1952 §2.2) or frames (RFC 8878 §3.1) of one body: HTTP clients write one, and each
#: costs a decoder, for 8 bytes of which nothing comes.
_MAX_MEMBERS: Final = 64
#: Where steps of decoding run. Not asyncio's own threads: there upstream's frames are compressed,
#: and they must not wait for what a client sends. One: decoding takes one core at most, and bodies
#: have their steps in turn. Never closed: the interpreter's end waits for one step at most.
DECODING: Final = ThreadPoolExecutor(1, thread_name_prefix="wsproxy-decoding")


class BodyError(Exception):
    """The body cannot be had; `status` and `code` are for the client."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    def answer(self, headers: Headers = ()) -> RawAnswer:
        """The refusal to send; the connection ends with it."""
        fields = [*headers, *TRY_AGAIN] if self.status == 503 else headers
        return refusal(self.status, self.code, str(self), headers=fields, is_last=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyLimits:
    """How long and how large; `max_bytes` holds for the coded and for the decoded body."""

    max_bytes: int = MAX_BODY_BYTES
    idle_timeout_s: float = IDLE_TIMEOUT_S
    min_bytes_per_s: int = MIN_BYTES_PER_S
    rate_grace_s: float = RATE_GRACE_S


@dataclass(slots=True)
class Body:
    """A whole request body: as it came, decoded, and the coding between the two (or None).

    `share` counts it, as long as it is kept.
    """

    raw: bytes = field(repr=False)
    decoded: bytes = field(repr=False)
    coding: str | None
    share: Share

    def let_go(self) -> None:
        """Nobody will read it again."""
        self.raw = self.decoded = b""
        self.share.give_back()

    async def parts(self) -> AsyncIterator[bytes]:
        """As it came, part by part, then let go of: whoever writes it holds no second copy."""
        self.decoded = b""
        for start in range(0, len(self.raw), PART_BYTES):
            yield self.raw[start : start + PART_BYTES]
        self.let_go()


DEFAULT_LIMITS: Final = BodyLimits()


async def read_body(
    request: web.BaseRequest, *, limits: BodyLimits = DEFAULT_LIMITS, share: Share | None = None
) -> Body:
    """Read a turn's body to its end and undo its coding; its bytes are counted in `share`.

    Raises `BodyError`: 400 (broken framing or coding), 408 (too slow), 413 (too large), 415 (a
    coding we do not undo), 503 (with all other bodies there would be too many bytes).
    """
    share = share if share is not None else Share(Room())
    coding = content_coding(request)
    announced = request.content_length or 0
    if announced > limits.max_bytes:
        raise _too_large(limits.max_bytes)
    try:
        share.check(announced)
        raw = await _read_whole(request, limits, share)
        if coding is None:
            return Body(raw, raw, None, share)
        parts = _decoded(raw, coding, limits.max_bytes)
        step_parts = _STEP_TAKEN_BYTES // _CODINGS[coding].slice_bytes
        return Body(raw, await collected(parts, share, step_parts), coding, share)
    except NoRoomError as error:
        message = "wsproxy holds as much of request bodies as it may (request_bodies_total_bytes)."
        raise BodyError(503, "proxy_overloaded", message) from error


async def body_chunks(
    request: web.BaseRequest, *, idle_timeout_s: float = IDLE_TIMEOUT_S
) -> AsyncIterator[bytes]:
    """A body of any size as it comes, for relaying. Raises `BodyError` 400 or 408."""
    await send_continue(request)
    while chunk := await _next_chunk(request, idle_timeout_s):
        yield chunk


def content_coding(request: web.BaseRequest) -> str | None:
    """The one coding of the body, None for identity. Raises `BodyError` 415."""
    listed = ",".join(request.headers.getall("Content-Encoding", []))
    codings = [coding.strip().lower() for coding in listed.split(",")]
    layers = [coding for coding in codings if coding not in ("", "identity")]
    if not layers:
        return None
    coding = {"x-gzip": "gzip"}.get(layers[0], layers[0])
    if len(layers) > 1 or coding not in _CODINGS:
        raise BodyError(
            415,
            "unsupported_content_encoding",
            "A request body may have one Content-Encoding: gzip, deflate or zstd.",
        )
    return coding


def decode(raw: bytes, coding: str, *, max_bytes: int = MAX_BODY_BYTES) -> bytes:
    """Undo `coding` ("gzip", "deflate" or "zstd") within `max_bytes` and `MAX_RATIO`.

    Raises `BodyError` 400 if the bytes are not of that coding or break off, 413 past a bound.
    """
    whole = BytesIO()
    whole.writelines(_decoded(raw, coding, max_bytes))
    return whole.getvalue()


def _decoded(raw: bytes, coding: str, max_bytes: int) -> Iterator[bytes]:
    """What comes of each slice, b"" too: whoever counts parts counts the work."""
    begin, slice_bytes, max_members = _CODINGS[coding]
    decoded_bytes = consumed = 0
    for _ in range(max_members):
        decoder = begin(raw[consumed : consumed + 2])
        while consumed < len(raw) and not decoder.eof:
            piece = raw[consumed : consumed + slice_bytes]
            consumed += len(piece)
            part = _decoded_part(decoder, piece)
            decoded_bytes += len(part)
            _check_growth(decoded_bytes, consumed, max_bytes)
            yield part
        if not decoder.eof:
            break
        consumed -= len(decoder.unused_data)
        if consumed == len(raw):
            return
    raise _corrupt()


async def collected(parts: Iterator[bytes], share: Share, step_parts: int) -> bytes:
    """All parts in one, counted step by step: nobody knows before how much they will be.

    A step takes at most `step_parts` of them. Cancelled, it takes none after the step that runs.
    """
    whole = BytesIO()
    loop = asyncio.get_running_loop()
    while True:
        step = await loop.run_in_executor(DECODING, _step, parts, step_parts)
        size = sum(map(len, step))
        share.take(size)
        whole.writelines(step)
        if len(step) < step_parts and size < _STEP_BYTES:
            return whole.getvalue()


def _step(parts: Iterator[bytes], step_parts: int) -> list[bytes]:
    """The next parts, until they have `_STEP_BYTES` or are so many; else they were the last."""
    step: list[bytes] = []
    size = 0
    for part in islice(parts, step_parts):
        step.append(part)
        size += len(part)
        if size >= _STEP_BYTES:
            break
    return step


class _Decoder(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


def _gzip(_start: bytes) -> _Decoder:
    return zlib.decompressobj(_GZIP_WBITS)


def _deflate(start: bytes) -> _Decoder:
    # RFC 9110 §8.4.1.2: zlib format; some senders omit its header all the same.
    has_zlib_head = len(start) >= 2 and start[0] & 0x0F == 8 and int.from_bytes(start[:2]) % 31 == 0
    return zlib.decompressobj(zlib.MAX_WBITS if has_zlib_head else -zlib.MAX_WBITS)


def _zstd(_start: bytes) -> _Decoder:
    return zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES).decompressobj()


class _Coding(NamedTuple):
    begin: Callable[[bytes], _Decoder]
    slice_bytes: int
    max_members: int


#: A slice's worst output is 4 to 16 MiB: deflate makes at most 1,032 bytes of one, zstd a block of
#: 128 KiB of four. Deflate has no members: what is behind its one stream is an error (RFC 1950).
_CODINGS: Final = {
    "gzip": _Coding(_gzip, 4_096, _MAX_MEMBERS),
    "deflate": _Coding(_deflate, 4_096, 1),
    "zstd": _Coding(_zstd, 512, _MAX_MEMBERS),
}


def _decoded_part(decoder: _Decoder, piece: bytes) -> bytes:
    try:
        return decoder.decompress(piece)
    except (zlib.error, zstandard.ZstdError) as error:
        raise _corrupt() from error


def _check_growth(decoded_bytes: int, consumed: int, max_bytes: int) -> None:
    if decoded_bytes > max_bytes:
        raise _too_large(max_bytes)
    if decoded_bytes > RATIO_FREE_BYTES and decoded_bytes > MAX_RATIO * consumed:
        raise BodyError(413, "body_too_large", f"The body expands over {MAX_RATIO} times.")


async def _read_whole(request: web.BaseRequest, limits: BodyLimits, share: Share) -> bytes:
    await send_continue(request)
    loop = asyncio.get_running_loop()
    began = loop.time()
    whole = BytesIO()
    received = 0
    while True:
        too_slow_at = began + max(limits.rate_grace_s, received / limits.min_bytes_per_s)
        patience = min(limits.idle_timeout_s, too_slow_at - loop.time())
        part = await _next_chunk(request, patience)
        if not part:
            return whole.getvalue()
        received += len(part)
        if received > limits.max_bytes:
            raise _too_large(limits.max_bytes)
        share.take(len(part))
        whole.write(part)


async def _next_chunk(request: web.BaseRequest, patience_s: float) -> bytes:
    try:
        if request.content.is_eof():
            return request.content.read_nowait()
        async with asyncio.timeout(patience_s):
            return await request.content.readany()
    except TimeoutError as error:
        raise BodyError(408, "body_timeout", "The request body came too slowly.") from error
    except (RequestPayloadError, ConnectionError) as error:
        raise BodyError(400, "invalid_body", "The request body is not framed as HTTP.") from error


def _too_large(max_bytes: int) -> BodyError:
    return BodyError(413, "body_too_large", f"The request body is over {max_bytes} bytes.")


def _corrupt() -> BodyError:
    return BodyError(400, "invalid_content_encoding", "The body is not what Content-Encoding says.")
