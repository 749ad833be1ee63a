"""Which request goes where is decided by its raw path."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.downstream.downstream_stage import BODY, CANARY, Upstream, saying, stage
from wsproxy.downstream.ops import Ops
from wsproxy.downstream.server import ConnectionLimits


def post(target: str, body: bytes = BODY) -> tuple[str, str, bytes]:
    return f"POST {target}", f"Content-Length: {len(body)}", body


@pytest.mark.parametrize("target", ["/v1/responses", "/v1/responses?x=%2F&&"])
async def test_a_turn_is_exactly_post_base_responses(target: str) -> None:
    async with stage() as s:
        line, length, body = post(target, b'{"model":"m"}')
        got = await s.ask(s.head(line, length) + body)
        assert b"x-route: turn\r\n" in got
        assert got.endswith(b'{"model":"m"}')
        assert s.upstream.seen == []


@pytest.mark.parametrize(
    "target",
    [
        "/v1/%72esponses",
        "/v1/./responses",
        "/v1/../v1/responses",
        "/v1/responses/r1/cancel",
        "/v1/Responses",
        "/v1/responses%2F",
        "/v1/responsesx",
        "/other/responses",
    ],
)
async def test_what_only_resembles_a_turn_goes_upstream(target: str) -> None:
    async with stage() as s:
        line, length, body = post(target)
        assert (await s.ask(s.head(line, length) + body)).endswith(b"ok")
        assert s.upstream.seen[0].line == f"POST {target} HTTP/1.1".encode()


@pytest.mark.parametrize(
    ("base", "target"),
    [
        ("/v1", "/responses"),
        ("/v1", "/v1/responses/"),
        ("/v1", "/v1//responses"),
        ("/v1", "//v1/responses"),
        ("/v1", "/v1/v1/responses"),
        ("/v1", "/responses/?a=b"),
        ("/backend-api/codex", "/v1/responses"),
        ("/backend-api/codex", "/responses"),
        ("", "/v1/responses"),
    ],
)
async def test_a_near_miss_is_told_the_right_base_url(base: str, target: str) -> None:
    async with stage(base=base) as s:
        line, length, body = post(target)
        got = await s.ask(s.head(line, length) + body)
        head, _, content = got.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 404 Not Found\r\n")
        error = json.loads(content)["error"]
        assert error["code"] == "wrong_base_url"
        assert error["message"].endswith(f"http://127.0.0.1:{s.port}{base}")
        is_base_right = target in ("/v1/responses/", "/v1//responses", "//v1/responses")
        assert ("drop the extra slash" in error["message"]) is is_base_right
        assert s.upstream.seen == []


async def test_websocket_on_the_turn_path_is_told_to_use_http() -> None:
    async with stage() as s:
        head = s.head(
            "GET /v1/responses", "Upgrade: websocket", "Connection: Upgrade", closes=False
        )
        got = await s.ask(head)
        assert got.startswith(b"HTTP/1.1 426 Upgrade Required\r\n")
        assert b'"code": "websocket_not_served"' in got
        assert b"\r\nUpgrade: HTTP/1.1\r\n" in got
        assert s.upstream.seen == []


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/v1/responses"),
        ("GET", "/v1/responses/r1?stream=true"),
        ("DELETE", "/v1/responses/r1"),
        ("OPTIONS", "/v1/responses"),
        ("PATCH", "/anything/at/all"),
        ("GET", "/"),
    ],
)
async def test_everything_unknown_goes_upstream(method: str, target: str) -> None:
    async with stage() as s:
        assert (await s.ask(s.head(f"{method} {target}"))).endswith(b"ok")
        assert s.upstream.seen[0].line == f"{method} {target} HTTP/1.1".encode()


OPS = Ops(
    is_ready=lambda: False, pools=lambda: {"pools": []}, metrics=lambda: "wsproxy_turns_total 1\n"
)


@pytest.mark.parametrize(
    ("line", "status", "content"),
    [
        ("GET /_wsproxy/healthz", 200, b"ok\n"),
        ("HEAD /_wsproxy/healthz", 200, b""),
        ("GET /_wsproxy/readyz", 503, b"not ready\n"),
        ("GET /_wsproxy/metrics", 200, b"wsproxy_turns_total 1\n"),
        ("GET /_wsproxy/pools?a", 200, b'{"pools": []}'),
    ],
)
async def test_operations_answer_from_what_is_injected(
    line: str, status: int, content: bytes
) -> None:
    async with stage(ops=OPS) as s:
        got = await s.ask(s.head(line))
        assert got.startswith(b"HTTP/1.1 %d " % status)
        assert got.partition(b"\r\n\r\n")[2] == content


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("POST /_wsproxy/healthz", 405),
        ("DELETE /_wsproxy/pools", 405),
        ("GET /_wsproxy/nothing", 404),
        ("GET /_wsproxy", 404),
        ("GET /_wsproxy/healthz/", 404),
    ],
)
async def test_operations_are_read_only_and_never_forwarded(line: str, status: int) -> None:
    async with stage() as s:
        assert (await s.ask(s.head(line))).startswith(b"HTTP/1.1 %d " % status)
        assert s.upstream.seen == []


async def test_a_crash_is_told_without_its_text_and_reported() -> None:
    async def broken(_request: object) -> None:
        raise ValueError(CANARY)

    async with stage(turn=broken) as s:  # type: ignore[arg-type]
        line, length, body = post("/v1/responses")
        got = await s.ask(s.head(line, length) + body)
        assert got.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
        assert CANARY.encode() not in got
        assert s.crashes[0]["error"] == "ValueError"
        assert CANARY not in str(s.crashes)


async def test_a_connection_ends_after_its_share_of_requests() -> None:
    async with stage(limits=ConnectionLimits(max_requests=3)) as s:
        client = await s.connect()
        client.send(*[s.head("GET /_wsproxy/healthz", closes=False)] * 3)
        got = await client.rest()
        assert got.count(b"HTTP/1.1 200 OK") == 3
        assert got.count(b"Connection: close") == 1


async def test_draining_ends_idle_connections_and_finishes_busy_ones() -> None:
    may_answer = asyncio.Event()

    async def reply(_: object, __: object, w: asyncio.StreamWriter) -> None:
        await may_answer.wait()
        w.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with stage(Upstream(reply)) as s:
        idle, busy = await s.connect(), await s.connect()
        busy.send(s.head("GET /v1/x", closes=False))
        await s.upstream.arrived.wait()
        s.front.stop_listening()
        assert await idle.rest() == b""
        with pytest.raises(ConnectionRefusedError):
            await s.connect()
        may_answer.set()
        assert (await busy.until(b"ok")).startswith(b"HTTP/1.1 200 OK")


async def test_closing_cuts_what_never_ends() -> None:
    async def reply(_: object, __: object, w: asyncio.StreamWriter) -> None:
        w.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
        await asyncio.Event().wait()

    async with stage(Upstream(reply)) as s:
        client = await s.connect()
        client.send(s.head("GET /v1/x", closes=False))
        await client.until(b"ok\r\n")
        await asyncio.wait_for(s.front.close(), 3)
        assert await client.rest() == b""
        assert s.front.connection_count == 0


async def test_an_answer_for_an_old_client_names_its_end() -> None:
    answer = saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
    async with stage(Upstream(answer)) as s:
        got = await s.ask(b"GET /v1/x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert got == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok"
