"""Allowed hosts, allowed origins and the token of remote binds."""

from __future__ import annotations

import logging

import pytest

from tests.downstream.downstream_stage import BODY, CANARY, Upstream, saying, stage
from wsproxy.downstream.guard import Guard

PAGE = "https://app.example"
OPEN = Guard(
    allowed_hosts=frozenset({"proxy.lan", "docker.host:9000"}), allowed_origins=frozenset({PAGE})
)
REMOTE = Guard(token="T0ken-" + CANARY)


@pytest.mark.parametrize(
    ("host", "is_served"),
    [
        ("proxy.lan:{port}", True),
        ("PROXY.lan:{port}", True),
        ("docker.host:9000", True),
        ("proxy.lan", False),
        ("proxy.lan:1", False),
        ("docker.host:{port}", False),
        ("docker.host:9000:{port}", False),
    ],
)
async def test_configured_hosts_are_matched_exactly(host: str, is_served: bool) -> None:
    async with stage(guard=OPEN) as s:
        name = host.format(port=s.port)
        got = await s.ask(
            f"GET /v1/x HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode()
        )
        assert got.startswith(b"HTTP/1.1 200 " if is_served else b"HTTP/1.1 403 ")


@pytest.mark.parametrize("site", ["cross-site", "same-site", "same-origin"])
async def test_an_allowed_page_is_served_and_may_read(site: str) -> None:
    cors = b"Access-Control-Allow-Origin: *\r\n"
    answer = b"HTTP/1.1 200 OK\r\n" + cors + b"X-A: b\r\nContent-Length: 2\r\n\r\nok"
    async with stage(Upstream(saying(answer)), guard=OPEN) as s:
        got = await s.get("/v1/x", f"Origin: {PAGE}", f"Sec-Fetch-Site: {site}")
        assert got.count(b"Access-Control-Allow-Origin: ") == 1
        assert f"Access-Control-Allow-Origin: {PAGE}\r\n".encode() in got
        assert b"\r\nVary: Origin\r\n" in got
        assert got.endswith(b"ok")


@pytest.mark.parametrize(
    "fields",
    [
        ("Origin: https://app.example.evil",),
        ("Origin: http://app.example",),
        (f"Origin: {PAGE}", "Origin: https://evil.example"),
    ],
)
async def test_an_origin_must_be_allowed_to_the_letter(fields: tuple[str, ...]) -> None:
    async with stage(guard=OPEN) as s:
        got = await s.get("/v1/x", *fields)
        assert got.startswith(b"HTTP/1.1 403 ")
        assert b"Access-Control" not in got


async def test_without_a_page_upstreams_cors_headers_are_untouched() -> None:
    answer = b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nContent-Length: 0\r\n\r\n"
    async with stage(Upstream(saying(answer)), guard=OPEN) as s:
        assert b"Access-Control-Allow-Origin: *\r\n" in await s.get("/v1/x")


async def test_a_preflight_of_an_allowed_page_is_answered_here() -> None:
    async with stage(guard=OPEN) as s:
        got = await s.ask(
            s.head(
                "OPTIONS /v1/responses",
                f"Origin: {PAGE}",
                "Access-Control-Request-Method: POST",
                "Access-Control-Request-Headers: authorization, content-type",
            )
        )
        assert got.startswith(b"HTTP/1.1 204 No Content\r\n")
        assert b"Access-Control-Allow-Methods: POST\r\n" in got
        assert b"Access-Control-Allow-Headers: authorization, content-type\r\n" in got
        assert f"Access-Control-Allow-Origin: {PAGE}\r\n".encode() in got
        assert s.upstream.seen == []


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/v1/x", 401),
        ("/t/wrong/v1/x", 401),
        ("/t//v1/x", 401),
        ("/t/{token}", 401),
        ("/t/{token}x/v1/x", 401),
        ("/T/{token}/v1/x", 401),
        ("/v1/x/t/{token}/", 401),
        ("/_wsproxy/pools", 401),
        ("/t/{token}/v1/x", 200),
        ("/t/{token}/_wsproxy/pools", 200),
        ("/t/{token}/v1/models", 200),
    ],
)
async def test_a_remote_bind_serves_only_behind_its_token(
    target: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with stage(guard=REMOTE) as s:
        got = await s.get(target.format(token=REMOTE.token))
        assert got.startswith(b"HTTP/1.1 %d " % status)
        assert CANARY not in got.decode() + caplog.text + repr(REMOTE) + repr(s.crashes)
        assert all(CANARY.encode() not in seen.line for seen in s.upstream.seen)


async def test_the_token_is_stripped_and_the_rest_kept_as_it_is() -> None:
    async with stage(guard=REMOTE) as s:
        await s.get(f"/t/{REMOTE.token}/v1/a%2Fb//?x=1&&")
        assert s.upstream.seen[0].line == b"GET /v1/a%2Fb//?x=1&& HTTP/1.1"


async def test_a_near_miss_behind_the_token_is_told_where_the_token_goes() -> None:
    async with stage(guard=REMOTE) as s:
        head = s.head(f"POST /t/{REMOTE.token}/responses", f"Content-Length: {len(BODY)}")
        got = await s.ask(head + BODY)
        assert f"http://127.0.0.1:{s.port}/t/TOKEN/v1".encode() in got


async def test_a_turn_behind_the_token_is_a_turn() -> None:
    async with stage(guard=REMOTE) as s:
        head = s.head(f"POST /t/{REMOTE.token}/v1/responses?a", f"Content-Length: {len(BODY)}")
        assert (await s.ask(head + BODY)).endswith(b"\r\n\r\n" + BODY)
