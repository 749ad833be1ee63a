"""The HTTPS client's own failures: TLS, proxies, limits."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trustme

from tests.downstream.downstream_stage import Upstream, saying
from wsproxy.ports import RestError
from wsproxy.upstream.proxy import choose_proxy
from wsproxy.upstream.rest import HttpsClient, end_to_end


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@asynccontextmanager
async def client_of(origin: str, **options: Any) -> AsyncIterator[HttpsClient]:
    rest = HttpsClient(origin, **options)
    try:
        yield rest
    finally:
        await rest.close()


async def failure_of(rest: HttpsClient) -> tuple[int, str]:
    """Status and code of a request that gets no answer."""
    with pytest.raises(RestError) as caught:
        await asyncio.wait_for(rest.send("GET", "/v1/x", [], None), 5)
    return caught.value.status, caught.value.code


@pytest.mark.parametrize(
    ("name", "is_trusted"),
    [("localhost", False), ("other.example", True)],
    ids=["unknown authority", "another host's certificate"],
)
async def test_a_certificate_that_does_not_fit_is_named(
    authority: trustme.CA, name: str, is_trusted: bool
) -> None:
    own, trust = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert(name).configure_cert(own)
    if is_trusted:
        authority.configure_trust(trust)
    upstream = Upstream()
    async with (
        upstream.serving(own),
        client_of(f"https://localhost:{upstream.port}", tls=trust) as rest,
    ):
        assert await failure_of(rest) == (502, "upstream_tls")


async def test_a_sound_certificate_is_enough(authority: trustme.CA) -> None:
    own, trust = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(own)
    authority.configure_trust(trust)
    upstream = Upstream()
    async with (
        upstream.serving(own),
        client_of(f"https://localhost:{upstream.port}", tls=trust) as rest,
    ):
        response = await rest.send("GET", "/v1/x", [], None)
        assert [chunk async for chunk in response.chunks()] == [b"ok"]


async def test_a_proxy_is_asked_for_a_tunnel_and_told_who_asks() -> None:
    refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
    proxy = Upstream(saying(refusal))
    async with proxy.serving():
        asked = choose_proxy(
            "https://api.example", f"http://me:word@127.0.0.1:{proxy.port}", environment={}
        )
        async with client_of("https://api.example", proxy=asked) as rest:
            assert await failure_of(rest) == (502, "upstream_unreachable")
    assert [seen.line for seen in proxy.seen] == [b"CONNECT api.example:443 HTTP/1.1"]
    assert proxy.seen[0].values(b"proxy-authorization") == [b"Basic bWU6d29yZA=="]


async def test_a_silent_handshake_ends_at_the_connect_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        origin = f"https://127.0.0.1:{deaf.getsockname()[1]}"
        async with client_of(origin, connect_timeout_s=0.2) as rest:
            assert await failure_of(rest) == (504, "upstream_timeout")


async def test_silence_in_a_body_is_a_timeout() -> None:
    upstream = Upstream(saying(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"))
    async with (
        upstream.serving(),
        client_of(f"http://127.0.0.1:{upstream.port}", idle_timeout_s=0.3) as rest,
    ):
        response = await rest.send("GET", "/v1/x", [], None)
        chunks = response.chunks()
        assert await anext(chunks) == b"half"
        with pytest.raises(RestError) as caught:
            await anext(chunks)
        assert (caught.value.status, caught.value.code) == (504, "upstream_timeout")
        response.close()


@pytest.mark.parametrize("fields", [[], [(b"Content-Length", b"999")]], ids=["none", "wrong"])
async def test_a_body_in_hand_is_sent_with_its_own_length(
    fields: list[tuple[bytes, bytes]],
) -> None:
    upstream = Upstream()
    async with upstream.serving(), client_of(f"http://127.0.0.1:{upstream.port}") as rest:
        response = await rest.send("POST", "/v1/responses", fields, b'{"model":1}')
        assert upstream.seen[0].values(b"content-length") == [b"11"]
        assert upstream.seen[0].body == b'{"model":1}'
        assert [chunk async for chunk in response.chunks()] == [b"ok"]


async def test_a_body_that_fails_leaves_upstream_without_an_end() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        raise ValueError("source broke")

    upstream = Upstream()
    async with upstream.serving(), client_of(f"http://127.0.0.1:{upstream.port}") as rest:
        with pytest.raises(RestError):
            await rest.send("POST", "/v1/files", [], broken())
        await asyncio.wait_for(upstream.ended.wait(), 5)
        assert upstream.seen[0].body == b""


def test_fields_that_connection_names_are_hop_by_hop() -> None:
    fields = [(b"Connection", b"X-A , close"), (b"x-a", b"1"), (b"X-B", b"2"), (b"TE", b"x")]
    assert end_to_end(fields) == [(b"X-B", b"2")]
