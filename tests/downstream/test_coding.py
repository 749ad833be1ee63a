"""Request bodies are read and decoded within bounds."""

from __future__ import annotations

import gzip
import json
import random
import tracemalloc
import zlib

import pytest
import zstandard

from tests.canary import TEXT as SAID
from tests.downstream.downstream_stage import BODY, stage
from wsproxy.downstream.coding import BodyError, decode

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
