"""Request bodies are read and decoded within bounds."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import sys
import threading
import tracemalloc
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import zstandard

from tests.canary import TEXT as SAID
from tests.downstream.downstream_stage import BODY, stage
from wsproxy.downstream.coding import DECODING, BodyError, collected, decode
from wsproxy.downstream.room import Room, Share

TEXT = json.dumps({"input": SAID + random.Random(1).randbytes(3_000).hex()}).encode()


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def zstd_stream(data: bytes) -> bytes:
    packer = zstandard.ZstdCompressor().compressobj()
    return packer.compress(data) + packer.flush()


CODED = {
    "gzip": ("gzip", gzip.compress(TEXT)),
    "gzip, two members": ("gzip", gzip.compress(TEXT[:99]) + gzip.compress(TEXT[99:])),
    "deflate with zlib head": ("deflate", zlib.compress(TEXT)),
    "deflate without": ("deflate", raw_deflate(TEXT)),
    "zstd": ("zstd", zstandard.ZstdCompressor().compress(TEXT)),
    "zstd without a size": ("zstd", zstd_stream(TEXT)),
    "zstd, two frames": ("zstd", zstd_stream(TEXT[:5]) + zstd_stream(TEXT[5:])),
}


@pytest.mark.parametrize(("coding", "coded"), CODED.values(), ids=CODED.keys())
async def test_a_coded_turn_is_decoded(coding: str, coded: bytes) -> None:
    async with stage() as s:
        fields = (f"Content-Encoding: {coding}", f"Content-Length: {len(coded)}")
        got = await s.ask(s.head("POST /v1/responses", *fields) + coded)
        assert got.endswith(b"\r\n\r\n" + TEXT)


NOISE = random.Random(4).randbytes(300_000)
REPEATED = b"".join(NOISE[start : start + 100] * 60 for start in range(0, 100_000, 100))
STEPS = {"that take in their fill": NOISE, "that give their fill": REPEATED}


@pytest.mark.parametrize("text", STEPS.values(), ids=STEPS.keys())
@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd"])
async def test_a_coded_turn_of_many_steps_is_decoded_whole(coding: str, text: bytes) -> None:
    encode = {"gzip": gzip.compress, "deflate": zlib.compress}.get(coding, zstd_stream)
    coded = encode(text)
    async with stage() as s:
        fields = (f"Content-Encoding: {coding}", f"Content-Length: {len(coded)}")
        got = await s.ask(s.head("POST /v1/responses", *fields) + coded)
        assert got.partition(b"\r\n\r\n")[2] == text


@pytest.mark.parametrize("coding", ["identity", "GZIP", "x-gzip", "identity, gzip", ""])
async def test_coding_names_are_read_as_http_means_them(coding: str) -> None:
    async with stage() as s:
        coded = gzip.compress(TEXT) if "gzip" in coding.lower() else TEXT
        fields = (f"Content-Encoding: {coding}", f"Content-Length: {len(coded)}")
        assert (await s.ask(s.head("POST /v1/responses", *fields) + coded)).endswith(TEXT)


@pytest.mark.parametrize(("coding", "coded"), CODED.values(), ids=CODED.keys())
def test_a_coded_body_that_breaks_off_is_corrupt(coding: str, coded: bytes) -> None:
    for size in (0, 1, len(coded) // 3, len(coded) - 1):
        with pytest.raises(BodyError) as caught:
            decode(coded[:size], coding)
        assert (caught.value.status, caught.value.code) == (400, "invalid_content_encoding")


@pytest.mark.parametrize(("coding", "coded"), CODED.values(), ids=CODED.keys())
def test_bytes_behind_a_coded_body_are_corrupt(coding: str, coded: bytes) -> None:
    with pytest.raises(BodyError, match="not what Content-Encoding says"):
        decode(coded + b"\0tail", coding)


ZEROS = bytes(200_000_000)
BOMBS = {
    "gzip": gzip.compress(ZEROS),
    "deflate": zlib.compress(ZEROS),
    "zstd": zstandard.ZstdCompressor().compress(ZEROS),
}


@pytest.mark.parametrize(("coding", "bomb"), BOMBS.items(), ids=BOMBS.keys())
def test_a_bomb_is_stopped_while_it_is_small(coding: str, bomb: bytes) -> None:
    tracemalloc.start()
    with pytest.raises(BodyError) as caught:
        decode(bomb, coding)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (caught.value.status, caught.value.code) == (413, "body_too_large")
    assert peak < 40_000_000


EMPTY = {"gzip": gzip.compress(b""), "deflate": zlib.compress(b""), "zstd": zstd_stream(b"")}
#: 500,000 members or frames of which nothing comes, and how many decoders they may cost.
HOLLOW = {
    "gzip": ("gzip", EMPTY["gzip"] * 500_000, 64),
    "deflate": ("deflate", b"\3\0" * 500_000, 1),
    "deflate with zlib head": ("deflate", EMPTY["deflate"] * 500_000, 1),
    "zstd": ("zstd", EMPTY["zstd"] * 500_000, 64),
    "zstd, frames to be skipped": ("zstd", (b"\x50\x2a\x4d\x18" + bytes(4)) * 500_000, 64),
}


def decoders_begun(coded: bytes, coding: str) -> int:
    """How many it takes until the body is refused as corrupt."""
    begun = 0

    def count(_frame: object, event: str, called: object) -> None:
        nonlocal begun
        begun += event == "c_call" and getattr(called, "__name__", "") == "decompressobj"

    sys.setprofile(count)
    try:
        with pytest.raises(BodyError, match="not what Content-Encoding says"):
            decode(coded, coding)
    finally:
        sys.setprofile(None)
    return begun


@pytest.mark.parametrize(("coding", "coded", "most"), HOLLOW.values(), ids=HOLLOW.keys())
def test_members_without_text_are_given_up_after_a_few(
    coding: str, coded: bytes, most: int
) -> None:
    assert decoders_begun(coded, coding) == most


@pytest.mark.parametrize(("coding", "coded", "most"), HOLLOW.values(), ids=HOLLOW.keys())
async def test_a_turn_of_members_without_text_is_refused(
    coding: str, coded: bytes, most: int
) -> None:
    async with stage() as s:
        fields = (f"Content-Encoding: {coding}", f"Content-Length: {len(coded)}")
        got = await s.ask(s.head("POST /v1/responses", *fields) + coded)
        assert got.startswith(b"HTTP/1.1 400 ")
        assert b"invalid_content_encoding" in got


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_as_many_members_as_are_allowed_are_decoded(coding: str) -> None:
    last = gzip.compress(TEXT) if coding == "gzip" else zstd_stream(TEXT)
    assert decode(EMPTY[coding] * 63 + last, coding) == TEXT
    assert decoders_begun(EMPTY[coding] * 64 + last, coding) == 64


async def test_a_body_is_decoded_no_further_when_its_client_has_left() -> None:
    loop = asyncio.get_running_loop()
    begun, left = asyncio.Event(), threading.Event()
    taken: list[int] = []

    def hollow() -> Iterator[bytes]:
        for number in range(100_000):
            taken.append(number)
            loop.call_soon_threadsafe(begun.set)
            left.wait(10)
            yield b""

    decoding = asyncio.create_task(collected(hollow(), Share(Room()), 16))
    await begun.wait()
    decoding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await decoding
    left.set()
    for _ in range(3):  # each waits for the steps before it
        await loop.run_in_executor(DECODING, int)
    assert len(taken) == 16, "the step that ran, although nothing came of it"


async def test_decoding_waits_for_none_of_asyncios_own_threads() -> None:
    free = threading.Event()
    coded = gzip.compress(random.Random(3).randbytes(200_000))
    async with stage() as s:
        with ThreadPoolExecutor(1) as others:
            asyncio.get_running_loop().set_default_executor(others)
            held = others.submit(free.wait, 30)
            try:
                fields = ("Content-Encoding: gzip", f"Content-Length: {len(coded)}")
                got = await s.ask(s.head("POST /v1/responses", *fields) + coded)
                assert got.startswith(b"HTTP/1.1 200 ")
                assert not held.done()
            finally:
                free.set()


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd"])
def test_a_small_body_may_shrink_as_it_likes(coding: str) -> None:
    zeros = bytes(1_000_000)
    coded = {"gzip": gzip.compress(zeros), "deflate": zlib.compress(zeros)}.get(coding)
    assert decode(coded or zstd_stream(zeros), coding) == zeros


def test_a_decoded_body_over_the_limit_is_too_large() -> None:
    with pytest.raises(BodyError, match="over 1000 bytes"):
        decode(gzip.compress(TEXT), "gzip", max_bytes=1_000)


async def test_a_chunked_body_over_the_limit_is_refused_as_it_grows() -> None:
    async with stage() as s:
        client = await s.connect()
        client.send(s.head("POST /v1/responses", "Transfer-Encoding: chunked"))
        block = b"100000\r\n" + BODY.ljust(0x100000) + b"\r\n"
        client.send(*[block] * 65)
        assert (await client.until(b"}}")).startswith(b"HTTP/1.1 413 ")


async def test_a_large_turn_is_read_whole() -> None:
    body = random.Random(2).randbytes(20_000_000)
    async with stage() as s:
        got = await s.ask(s.head("POST /v1/responses", f"Content-Length: {len(body)}") + body)
        assert got.endswith(body)


async def test_a_turn_that_expects_to_be_asked_is_asked() -> None:
    async with stage() as s:
        client = await s.connect()
        length = f"Content-Length: {len(BODY)}"
        client.send(s.head("POST /v1/responses", length, "Expect: 100-continue"))
        assert await client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(BODY)
        assert (await client.rest()).endswith(BODY)
