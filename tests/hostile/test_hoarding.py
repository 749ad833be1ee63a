"""Clients that take their time: each wait has a deadline, each crowd a bound."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from tests.downstream.downstream_stage import BODY, Client, Seen, Upstream, eventually, stage
from wsproxy.downstream.answers import RawAnswer
from wsproxy.downstream.coding import BodyError, BodyLimits, read_body
from wsproxy.downstream.server import ConnectionLimits

SOON = ConnectionLimits(head_timeout_s=0.2, keepalive_timeout_s=0.6)


async def impatient_turn(request: web.Request) -> web.StreamResponse:
    limits = BodyLimits(idle_timeout_s=0.4, rate_grace_s=0.4, min_bytes_per_s=1_000)
    try:
        return RawAnswer(200, [], body=(await read_body(request, limits=limits)).raw)
    except BodyError as error:
        return error.answer()


@pytest.mark.parametrize(
    "half",
    [b"G", b"GET /v1/x HT", b"GET /v1/x HTTP/1.1\r\nHost: x\r\nX-Slow: ", b"GET /v1/x\r\n"],
    ids=["one byte", "half a line", "half a field", "HTTP/0.9 without an end"],
)
async def test_half_a_head_is_given_up_at_its_deadline(half: bytes) -> None:
    async with stage(limits=SOON) as s:
        began = asyncio.get_running_loop().time()
        assert (await s.ask(half)).startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert asyncio.get_running_loop().time() - began < 0.5


async def test_a_dripping_head_wins_no_time() -> None:
    async with stage(limits=SOON) as s:
        client = await s.connect()
        drip = asyncio.create_task(dripping(client, s.head("GET /v1/x")))
        assert (await client.rest()).startswith(b"HTTP/1.1 408 ")
        drip.cancel()


async def test_the_head_deadline_holds_on_a_reused_connection() -> None:
    async with stage(limits=SOON) as s:
        client = await s.connect()
        client.send(s.head("GET /v1/x", closes=False))
        await client.until(b"ok")
        client.send(b"GET /v1/")
        assert (await client.rest()).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("has_asked", [False, True], ids=["never asked", "after an answer"])
async def test_an_idle_connection_is_closed(has_asked: bool) -> None:
    async with stage(limits=SOON) as s:
        client = await s.connect()
        if has_asked:
            client.send(s.head("GET /v1/x", closes=False))
            await client.until(b"ok")
        assert await client.rest() == b""


async def test_an_endless_head_is_refused_before_it_ends() -> None:
    async with stage() as s:
        client = await s.connect()
        client.send(s.head("GET /v1/x")[:-2])
        for number in range(60):
            client.send(b"X-%d: %b\r\n" % (number, b"a" * 2000))
            await asyncio.sleep(0)
        got = await client.until(b"\r\n\r\n")
        assert got.startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("first", [b"", b"{"], ids=["no byte", "one byte"])
async def test_a_body_that_stops_is_given_up(first: bytes) -> None:
    async with stage(turn=impatient_turn) as s:
        client = await s.connect()
        client.send(s.head("POST /v1/responses", "Content-Length: 99") + first)
        got = await client.until(b"}}")
        assert got.startswith(b"HTTP/1.1 408 ")
        assert b'"code": "body_timeout"' in got


async def test_a_body_that_drips_is_given_up() -> None:
    async with stage(turn=impatient_turn) as s:
        client = await s.connect()
        client.send(s.head("POST /v1/responses", "Content-Length: 10000"))
        drip = asyncio.create_task(dripping(client, BODY.ljust(10_000)))
        assert (await client.until(b"}}")).startswith(b"HTTP/1.1 408 ")
        drip.cancel()


async def test_a_slow_but_honest_body_is_taken() -> None:
    async with stage(turn=impatient_turn) as s:
        client = await s.connect()
        client.send(s.head("POST /v1/responses", "Content-Length: 4000"))
        for _ in range(8):
            client.send(b"x" * 500)
            await asyncio.sleep(0.1)
        assert (await client.rest()).endswith(b"x" * 4000)


async def test_one_connection_too_many_is_told_to_come_back() -> None:
    async with stage(limits=ConnectionLimits(max_connections=2)) as s:
        held = [await s.connect(), await s.connect()]
        for client in held:
            client.send(s.head("GET /v1/x", closes=False))
            await client.until(b"ok")
        got = await s.get("/v1/x")
        assert got.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b"\r\nRetry-After: 1\r\n" in got
        held[0].writer.transport.abort()
        await eventually(lambda: s.front.connection_count == 1)
        assert (await s.get("/v1/x")).startswith(b"HTTP/1.1 200 ")


async def test_a_client_that_closes_its_sending_side_gets_what_is_at_hand() -> None:
    async with stage() as s:
        client = await s.connect()
        client.send(s.head("GET /_wsproxy/healthz", closes=False))
        client.writer.write_eof()
        assert (await client.rest()).endswith(b"ok\n")


async def test_a_body_that_ends_before_its_length_is_no_turn() -> None:
    async with stage() as s:
        client = await s.connect()
        client.send(s.head("POST /v1/responses", "Content-Length: 99") + BODY)
        client.writer.write_eof()
        assert (await client.rest()).startswith(b"HTTP/1.1 400 ")


async def test_a_client_that_takes_nothing_of_a_download_stops_it() -> None:
    sent = 0

    async def reply(_: Seen, __: asyncio.StreamReader, w: asyncio.StreamWriter) -> None:
        nonlocal sent
        w.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        for _round in range(1000):
            w.write(b"x" * 100_000)
            await w.drain()
            sent += 100_000

    async with stage(Upstream(reply), stall_timeout_s=0.5) as s:
        client = await s.connect()
        transport = client.writer.transport
        assert isinstance(transport, asyncio.Transport)
        transport.pause_reading()
        client.send(s.head("GET /v1/x"))
        await asyncio.wait_for(s.upstream.ended.wait(), 5)
        assert 0 < sent < 50_000_000


async def test_an_upload_that_stops_is_given_up_on_both_sides() -> None:
    async with stage(upload_idle_timeout_s=0.3) as s:
        client = await s.connect()
        client.send(s.head("POST /v1/files", "Content-Length: 99") + BODY)
        assert (await client.until(b"}}")).startswith(b"HTTP/1.1 408 ")
        await asyncio.wait_for(s.upstream.ended.wait(), 5)
        assert s.upstream.seen[0].body == b""


async def dripping(client: Client, data: bytes) -> None:
    for position in range(len(data)):
        client.send(data[position : position + 1])
        await asyncio.sleep(0.02)
