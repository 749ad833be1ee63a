"""After upstream's own 101 two sockets are one."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from aiohttp import web

from tests.downstream.downstream_stage import Seen, Upstream, saying, stage

SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: foo\r\nConnection: Upgrade\r\n"
    b"X-Odd: caf\xe9\r\n\r\n"
)


def asking(target: str = "/v1/realtime?model=m&&x", protocol: str = "foo") -> tuple[str, ...]:
    return (f"GET {target}", f"Upgrade: {protocol}", "Connection: Upgrade", "X-Two: 1", "x-two: 2")


async def echo(_: Seen, reader: asyncio.StreamReader, w: asyncio.StreamWriter) -> None:
    w.write(SWITCH + b"early")
    while data := await reader.read(65_536):
        w.write(data)
        await w.drain()
    w.write(b"<bye>")
    w.close()
    await w.wait_closed()


@pytest.mark.parametrize("protocol", ["foo", "websocket"])
async def test_bytes_flow_both_ways_with_half_close(protocol: str) -> None:
    async with stage(Upstream(echo)) as s:
        client = await s.connect()
        client.send(s.head(*asking(protocol=protocol), closes=False) + b"with the head,")
        assert await client.until(b"early") == SWITCH + b"early"
        block = bytes(range(256)) * 1000
        client.send(block)
        assert await client.exactly(14 + len(block)) == b"with the head," + block
        client.writer.write_eof()
        assert await client.rest() == b"<bye>"


async def test_the_upgrade_reaches_upstream_as_the_client_wrote_it() -> None:
    async with stage(Upstream(echo)) as s:
        client = await s.connect()
        client.send(s.head(*asking(), closes=False))
        await client.until(b"early")
        seen = s.upstream.seen[0]
        assert seen.line == b"GET /v1/realtime?model=m&&x HTTP/1.1"
        assert seen.values(b"upgrade") == [b"foo"]
        assert seen.values(b"connection") == [b"Upgrade"]
        assert seen.values(b"x-two") == [b"1", b"2"]
        assert seen.values(b"host") == [b"127.0.0.1:%d" % s.upstream.port]


async def test_a_refused_upgrade_is_an_ordinary_answer() -> None:
    answer = b"HTTP/1.1 403 Forbidden\r\nX-Why: plan\r\nContent-Length: 2\r\n\r\nno"
    async with stage(Upstream(saying(answer))) as s:
        got = await s.ask(s.head(*asking(), closes=False))
        assert got == answer.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")


async def test_a_client_that_leaves_ends_the_upstream_socket() -> None:
    async with stage(Upstream(echo)) as s:
        client = await s.connect()
        client.send(s.head(*asking(), closes=False))
        await client.until(b"early")
        client.writer.transport.abort()
        await asyncio.wait_for(s.upstream.ended.wait(), 5)


async def test_upstreams_end_reaches_the_client_while_it_may_still_send() -> None:
    received = bytearray()

    async def reply(_: Seen, reader: asyncio.StreamReader, w: asyncio.StreamWriter) -> None:
        w.write(SWITCH)
        w.write_eof()
        received.extend(await reader.read())
        w.close()

    async with stage(Upstream(reply)) as s:
        client = await s.connect()
        client.send(s.head(*asking(), closes=False))
        assert await client.rest() == SWITCH
        client.send(b"after the end")
        client.writer.write_eof()
        await asyncio.wait_for(s.upstream.ended.wait(), 5)
        assert received == b"after the end"


async def test_a_slow_reader_holds_the_sender_back() -> None:
    sent = 0

    async def reply(_: Seen, __: asyncio.StreamReader, w: asyncio.StreamWriter) -> None:
        nonlocal sent
        w.write(SWITCH)
        for _round in range(1000):
            w.write(b"x" * 100_000)
            await w.drain()
            sent += 100_000
        w.close()

    async with stage(Upstream(reply)) as s:
        client = await s.connect()
        client.reader._limit = 0  # type: ignore[attr-defined]
        client.send(s.head(*asking(), closes=False))
        await asyncio.sleep(0.5)
        assert 0 < sent < 50_000_000
        client.reader._limit = 1_000_000  # type: ignore[attr-defined]
        assert len(await client.rest()) == len(SWITCH) + 100_000_000


async def test_a_real_websocket_runs_through() -> None:
    async def serve(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data.upper())
        return socket

    app = web.Application()
    app.router.add_get("/v1/realtime", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    async with stage() as s, aiohttp.ClientSession() as session:
        s.app.rest._origin = s.app.rest._origin.with_port(port)  # type: ignore[attr-defined]
        async with session.ws_connect(f"http://127.0.0.1:{s.port}/v1/realtime") as socket:
            await socket.send_str("hello" * 20_000)
            assert await socket.receive_str() == "HELLO" * 20_000
    await runner.cleanup()
