"""What is not a turn reaches upstream and comes back as it was."""

from __future__ import annotations

import asyncio

import pytest

from tests.downstream.downstream_stage import KEY, OK, Seen, Upstream, saying, stage


@pytest.mark.parametrize(
    "target",
    [
        "/v1/files?a=b&&c",
        "/v1/a%2Fb%2e%2e/c",
        "//evil.example/x",
        "/v1/../admin",
        "/v1/files?",
        "/v1/files?q=%zz+1'\"<>|",
        "/v1/x;y=1,2/~!@$*()",
        "/v1/files/./x",
    ],
)
async def test_the_target_reaches_upstream_byte_for_byte(target: str) -> None:
    async with stage() as s:
        assert (await s.get(target)).startswith(b"HTTP/1.1 200 OK")
        assert s.upstream.seen[0].line == f"GET {target} HTTP/1.1".encode()


async def test_request_headers_keep_case_order_and_duplicates() -> None:
    async with stage() as s:
        await s.get("/v1/files", "X-one: 1", KEY, "cookie: a", "x-ONE: 2")
        seen = s.upstream.seen[0]
        assert seen.fields == [
            b"Host: 127.0.0.1:%d" % s.upstream.port,
            b"X-one: 1",
            KEY.encode(),
            b"cookie: a",
            b"X-one: 2",
        ]


async def test_hop_by_hop_headers_stay_on_their_side() -> None:
    answer = (
        b"HTTP/1.1 200 OK\r\nConnection: X-Mine\r\nX-Mine: 1\r\nKeep-Alive: timeout=5\r\n"
        b"X-Yours: 2\r\nContent-Length: 0\r\n\r\n"
    )
    async with stage(Upstream(saying(answer))) as s:
        raw = s.head(
            "GET /v1/x",
            "Connection: close, X-Secret",
            "X-Secret: 1",
            "TE: trailers",
            "Proxy-Authorization: Basic eA==",
            "Proxy-Connection: keep-alive",
            closes=False,
        )
        got = await s.ask(raw)
        assert [f.split(b":")[0] for f in s.upstream.seen[0].fields] == [b"Host", b"Authorization"]
        assert got == (
            b"HTTP/1.1 200 OK\r\nX-Yours: 2\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )


async def test_response_head_and_bytes_are_upstreams_own() -> None:
    answer = (
        b"HTTP/1.1 299 Quite Fine\r\nset-cookie: a=1\r\nSet-Cookie: b=2; Path=/\r\n"
        b"Content-Encoding: gzip\r\nX-Latin: caf\xe9\r\nContent-Length: 5\r\n\r\n\x00\xff\x1f\x8b\n"
    )
    async with stage(Upstream(saying(answer))) as s:
        got = await s.get("/v1/x")
        assert got == answer.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\n\r\n'),
        ("GET", b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n"),
    ],
    ids=["head", "204", "304", "redirect"],
)
async def test_answers_without_a_body_keep_the_connection(method: str, answer: bytes) -> None:
    async with stage(Upstream(saying(answer))) as s:
        client = await s.connect()
        for _ in range(2):
            client.send(s.head(f"{method} /v1/x", closes=False))
            assert await client.until(b"\r\n\r\n") == answer
        assert len(s.upstream.seen) == 2


@pytest.mark.parametrize("field", [b"X-A: a\x01b", b"X-A: a\rb", b"X-A: a\x7fb", b"X-A : b"])
async def test_a_head_that_is_not_http_stays_outside(field: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\n" + field + b"\r\nContent-Length: 0\r\n\r\n"
    async with stage(Upstream(saying(answer))) as s:
        got = await s.get("/v1/x")
        assert got.startswith(b"HTTP/1.1 502 ")
        assert b"X-A" not in got


async def test_interim_responses_do_not_end_the_wait() -> None:
    answer = (
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    )
    async with stage(Upstream(saying(answer))) as s:
        assert (await s.get("/v1/x")).endswith(b"Content-Length: 2\r\nConnection: close\r\n\r\nok")


async def test_server_sent_events_arrive_one_by_one() -> None:
    told = asyncio.Event()

    async def reply(_: Seen, __: asyncio.StreamReader, w: asyncio.StreamWriter) -> None:
        w.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
        w.write(b"Transfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n")
        await told.wait()
        w.write(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")

    async with stage(Upstream(reply)) as s:
        client = await s.connect()
        client.send(s.head("GET /v1/responses/r1?stream=true"))
        assert (await client.until(b"data: 1\n\n\r\n")).endswith(b"9\r\ndata: 1\n\n\r\n")
        told.set()
        assert await client.rest() == b"9\r\ndata: 2\n\n\r\n0\r\n\r\n"


@pytest.mark.parametrize("is_chunked", [False, True], ids=["content-length", "chunked"])
async def test_uploads_stream_with_the_framing_the_client_chose(is_chunked: bool) -> None:
    async with stage() as s:
        client = await s.connect()
        size = 5_000_000
        how = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {size}"
        client.send(s.head("POST /v1/files", how))
        block = b"x" * 100_000
        for _ in range(size // len(block)):
            client.send(b"%x\r\n%b\r\n" % (len(block), block) if is_chunked else block)
            await client.writer.drain()
        client.send(b"0\r\n\r\n" if is_chunked else b"")
        assert (await client.rest()).endswith(b"ok")
        seen = s.upstream.seen[0]
        assert len(seen.body) == size
        assert seen.values(b"content-length") == ([] if is_chunked else [b"5000000"])


async def test_a_large_upload_waits_for_upstream() -> None:
    may_read = asyncio.Event()

    async def reply(_: Seen, reader: asyncio.StreamReader, w: asyncio.StreamWriter) -> None:
        await may_read.wait()
        await reader.readexactly(50_000_000)
        w.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with stage(Upstream(reply, reads_body=False)) as s:
        client = await s.connect()
        client.send(s.head("POST /v1/files", "Content-Length: 50000000"))
        client.send(b"x" * 50_000_000)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.writer.drain(), 0.5)
        assert client.writer.transport.get_write_buffer_size() > 20_000_000
        may_read.set()
        assert (await client.rest()).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "broken",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ],
    ids=["content-length", "chunked"],
)
async def test_a_body_cut_upstream_is_cut_downstream(broken: bytes) -> None:
    async with stage(Upstream(saying(broken, close=True))) as s:
        got = await s.get("/v1/x")
        assert b"half" in got
        assert not got.endswith(b"0\r\n\r\n")


async def test_a_cut_body_without_framing_ends_in_a_reset() -> None:
    broken = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"
    async with stage(Upstream(saying(broken, close=True))) as s:
        client = await s.connect()
        client.send(b"GET /v1/x HTTP/1.0\r\nHost: 127.0.0.1:%d\r\n\r\n" % s.port)
        with pytest.raises(ConnectionResetError):
            await client.rest()


async def test_a_body_that_ends_with_the_connection_is_whole() -> None:
    answer = b"HTTP/1.1 200 OK\r\n\r\nall of it"
    async with stage(Upstream(saying(answer, close=True))) as s:
        got = await s.get("/v1/x")
        assert got.endswith(b"9\r\nall of it\r\n0\r\n\r\n")


async def test_a_refused_connection_is_502_and_not_sent() -> None:
    async with stage() as s:
        s.app.rest._origin = s.app.rest._origin.with_port(1)  # type: ignore[attr-defined]
        got = await s.get("/v1/x")
        assert got.startswith(b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: application/json\r\n")
        assert b"x-wsproxy-outcome: not_sent\r\n" in got
        assert b'"code": "upstream_unreachable"' in got


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        (saying(close=True), b"502", b"upstream_disconnected"),
        (saying(b"SMTP ready\r\n\r\n", close=True), b"502", b"upstream_protocol_error"),
        (saying(), b"504", b"upstream_timeout"),
    ],
    ids=["closed", "not http", "silent"],
)
async def test_no_answer_from_upstream_is_told_as_unknown(
    answer: object, status: bytes, code: bytes
) -> None:
    async with stage(Upstream(answer), idle_timeout_s=0.3) as s:  # type: ignore[arg-type]
        got = await s.get("/v1/x")
        assert got.startswith(b"HTTP/1.1 " + status)
        assert b"x-wsproxy-outcome: unknown\r\n" in got
        assert b'"code": "%b"' % code in got
        assert len(s.upstream.seen) == 1


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"])
async def test_a_client_that_leaves_ends_the_upstream_request(sent: bytes) -> None:
    async def reply(_: Seen, reader: asyncio.StreamReader, w: asyncio.StreamWriter) -> None:
        w.write(sent)
        assert await reader.read() == b""
        raise ConnectionError

    async with stage(Upstream(reply)) as s:
        client = await s.connect()
        client.send(s.head("GET /v1/x"))
        if sent:
            await client.until(b"\r\n\r\n")
        await s.upstream.arrived.wait()
        client.writer.close()
        await asyncio.wait_for(s.upstream.ended.wait(), 5)


async def test_a_half_sent_upload_never_looks_whole_upstream() -> None:
    async with stage() as s:
        client = await s.connect()
        client.send(s.head("POST /v1/files", "Transfer-Encoding: chunked"), b"5\r\nhello\r\n")
        await s.upstream.arrived.wait()
        client.writer.close()
        await asyncio.wait_for(s.upstream.ended.wait(), 5)
        assert s.upstream.seen[0].body == b""


async def test_an_early_refusal_reaches_a_client_that_still_uploads() -> None:
    refusal = saying(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno")
    async with stage(Upstream(refusal, reads_body=False)) as s:
        client = await s.connect()
        client.send(s.head("POST /v1/files", "Content-Length: 1000000"), b"x" * 1000)
        assert (await client.until(b"\r\n\r\nno")).startswith(b"HTTP/1.1 401")


async def test_expect_continue_is_answered_when_the_body_is_wanted() -> None:
    async with stage() as s:
        client = await s.connect()
        client.send(s.head("POST /v1/files", "Content-Length: 4", "Expect: 100-continue"))
        assert await client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"body")
        assert (await client.rest()).endswith(b"ok")
        assert s.upstream.seen[0].body == b"body"
        assert s.upstream.seen[0].values(b"expect") == []


async def test_pipelined_requests_are_answered_in_order() -> None:
    async def reply(seen: Seen, _: asyncio.StreamReader, w: asyncio.StreamWriter) -> None:
        number = seen.line.split()[1][-1:]
        w.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n" + number)

    async with stage(Upstream(reply)) as s:
        first = b"".join(s.head(f"GET /v1/{n}", closes=False) for n in range(8))
        got = await s.ask(first + s.head("GET /v1/8"))
        assert [int(part[:1]) for part in got.split(b"\r\n\r\n")[1:]] == list(range(9))


async def test_one_upstream_connection_serves_many_requests_without_sharing_cookies() -> None:
    cookie = saying(b"HTTP/1.1 200 OK\r\nSet-Cookie: s=1\r\nContent-Length: 0\r\n\r\n")
    async with stage(Upstream(cookie)) as s:
        for _ in range(3):
            assert b"Set-Cookie: s=1" in await s.get("/v1/x")
        assert [seen.values(b"cookie") for seen in s.upstream.seen] == [[], [], []]


async def test_an_unmodified_ok_needs_no_header_of_ours() -> None:
    async with stage(Upstream(OK)) as s:
        client = await s.connect()
        client.send(s.head("GET /v1/x", closes=False))
        assert await client.until(b"ok") == b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
