"""From a URL to an open WebSocket, over real sockets: what succeeds, what fails and how."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from tests.canary import SECRET, WATCH
from tests.core.wire.peer_frames import TEXT, frame
from tests.upstream.raw_upstream import Peer, dial, send, serving
from wsproxy.core.multiplex.recovery import Fault
from wsproxy.upstream.dialer import USER_TIMEOUT_S, _tune
from wsproxy.upstream.tls import client_context

PATH = "/v1/responses?api-version=%2F"
LARGE = random.Random(1).randbytes(10_000_000).hex().encode()


@dataclass(frozen=True)
class Authority:
    """A throw-away CA, and servers that it vouches for: this one, and one of another name."""

    ca_file: Path
    server: ssl.SSLContext
    elsewhere: ssl.SSLContext


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    ca = trustme.CA()
    here = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1", "localhost", "api.example.test").configure_cert(here)
    elsewhere = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("elsewhere.example.test").configure_cert(elsewhere)
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return Authority(path, here, elsewhere)


async def echo_once(peer: Peer) -> None:
    await peer.accept()
    text = await peer.text()
    peer.writer.write(frame(TEXT, text.encode()))
    await peer.reader.read()


async def wait_for_the_end(peer: Peer) -> None:
    await peer.reader.read()


# ---- The upgrade -----------------------------------------------------------------------------


async def test_the_request_names_the_origin_and_carries_the_identity() -> None:
    requests: list[bytes] = []

    async def script(peer: Peer) -> None:
        requests.append(await peer.accept())

    async with serving(script) as port:
        link, noted = dial(f"ws://localhost:{port}{PATH}", headers=[(b"api-key", b"k")])
        await noted.until("opened")
        link.abort()
    lines = requests[0].split(b"\r\n")
    assert lines[0] == f"GET {PATH} HTTP/1.1".encode()
    assert f"Host: localhost:{port}".encode() in lines
    assert b"api-key: k" in lines


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        (302, Fault.UPGRADE_UNSUPPORTED),
        (401, Fault.UPGRADE_UNAUTHORIZED),
        (426, Fault.UPGRADE_UNSUPPORTED),
        (429, Fault.UPGRADE_RATE_LIMITED),
        (503, Fault.UPGRADE_FAILED),
    ],
)
async def test_a_refused_upgrade_brings_its_status_and_body(status: int, fault: Fault) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        head = b"HTTP/1.1 %d X\r\nLocation: /x\r\nContent-Length: 5\r\n\r\n" % status
        peer.writer.write(head + b"{}")
        await peer.writer.drain()
        peer.writer.write(b"   ")
        await peer.reader.read()

    async with serving(script) as port:
        _, noted = dial(f"ws://127.0.0.1:{port}{PATH}")
        refused = await noted.until("refused")
    assert refused[1:4] == (fault, status, b"{}   ")
    assert noted.names == ["refused"]


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 101 Switching"], ids=["silence", "half-a-head"])
async def test_a_server_that_hangs_is_given_up_in_time(said: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        peer.writer.write(said)
        await peer.reader.read()

    async with serving(script) as port:
        _, noted = dial(f"ws://127.0.0.1:{port}{PATH}", dial_timeout_s=0.1)
        refused = await noted.until("refused")
    assert refused[1:3] == (Fault.UNREACHABLE, None)
    assert refused[4] == "no WebSocket in time: waiting for the upgrade's answer"


async def test_an_odd_101_is_refused_and_dropped() -> None:
    async def script(peer: Peer) -> None:
        await peer.accept(b"Sec-WebSocket-Extensions: permessage-deflate; x\r\n")
        assert await peer.reader.read() == b""

    async with serving(script) as port:
        _, noted = dial(f"ws://127.0.0.1:{port}{PATH}")
        refused = await noted.until("refused")
    assert refused[1:3] == (Fault.UPGRADE_UNSUPPORTED, 101)


async def test_a_header_that_http_does_not_allow_is_never_sent() -> None:
    _, noted = dial("ws://127.0.0.1:1/v1/responses", headers=[(b"x", b"a\r\nb: c")])
    assert (await noted.until("refused"))[1] is Fault.UPGRADE_FAILED


# ---- Reaching it -----------------------------------------------------------------------------


async def test_a_port_where_nobody_listens_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    _, noted = dial(f"ws://127.0.0.1:{port}{PATH}")
    refused = await noted.until("refused")
    assert refused[1:4] == (Fault.UNREACHABLE, None, b"")
    assert refused[4].startswith(f"connecting to 127.0.0.1:{port}: ")


async def test_a_connection_that_ends_before_its_answer_is_unreachable() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()

    async with serving(script) as port:
        _, noted = dial(f"ws://127.0.0.1:{port}{PATH}")
        assert (await noted.until("refused"))[1] is Fault.UNREACHABLE


@pytest.mark.parametrize("url", ["ws:///x", "ftp://127.0.0.1/x", "ws://127.0.0.1:port/x"])
async def test_a_url_that_leads_nowhere_is_unreachable(url: str) -> None:
    _, noted = dial(url)
    assert (await noted.until("refused"))[1] is Fault.UNREACHABLE


async def test_an_aborted_dial_ends_in_silence() -> None:
    is_dropped = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        link.abort()
        assert await peer.reader.read() == b""
        is_dropped.set()

    async with serving(script) as port:
        link, noted = dial(f"ws://127.0.0.1:{port}{PATH}")
        async with asyncio.timeout(5):
            await is_dropped.wait()
    assert noted.events == []


async def test_a_dial_that_is_closed_is_told_as_lost() -> None:
    async with serving(wait_for_the_end) as port:
        link, noted = dial(f"ws://127.0.0.1:{port}{PATH}")
        send(link, noted, b"turn", 1)
        link.close(1001)
        lost = await noted.until("lost")
    assert (lost[1], lost[3]) == (Fault.CLOSED_NORMALLY, [1])
    assert noted.names == ["lost"]


def test_a_silent_path_is_told_by_the_kernel_within_20_seconds() -> None:
    with socket.socket() as tcp:
        _tune(tcp)
        assert tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            told = tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            assert told == USER_TIMEOUT_S * 1000


# ---- TLS -------------------------------------------------------------------------------------


async def test_a_certificate_of_the_given_authority_is_trusted(authority: Authority) -> None:
    async with serving(echo_once, context=authority.server) as port:
        link, noted = dial(f"wss://localhost:{port}{PATH}", ca_file=authority.ca_file)
        send(link, noted, LARGE, 1)
        await noted.until_heard(LARGE)
        assert ("sent", 1) in noted.events
        link.abort()


async def test_over_tls_too_what_the_peer_does_not_take_is_not_sent(authority: Authority) -> None:
    is_given = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.accept()
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await is_given.wait()
        peer.writer.transport.abort()

    async with serving(script, context=authority.server, receive_buffer=8192) as port:
        link, noted = dial(f"wss://127.0.0.1:{port}{PATH}", ca_file=authority.ca_file)
        await noted.until("opened")
        send(link, noted, LARGE, 1)
        send(link, noted, b"behind", 2)
        is_given.set()
        lost = await noted.until("lost")
    assert lost[3] == [1, 2]
    assert "sent" not in noted.names


async def test_the_end_of_tls_is_the_end_of_the_connection(authority: Authority) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept()
        peer.writer.write(frame(TEXT, b"last"))
        peer.writer.close()  # close_notify
        await peer.writer.wait_closed()

    async with serving(script, context=authority.server) as port:
        _, noted = dial(f"wss://127.0.0.1:{port}{PATH}", ca_file=authority.ca_file)
        lost = await noted.until("lost")
    assert lost[1] is Fault.CONNECTION_ENDED
    assert ("received", [b"last"]) in noted.events


async def test_an_unknown_authority_is_not_trusted(authority: Authority) -> None:
    async with serving(wait_for_the_end, context=authority.server) as port:
        _, noted = dial(f"wss://localhost:{port}{PATH}")
        refused = await noted.until("refused")
    assert refused[1] is Fault.TLS_FAILED
    assert "CERTIFICATE_VERIFY_FAILED" in refused[4]


async def test_a_certificate_for_another_name_is_not_trusted(authority: Authority) -> None:
    async with serving(wait_for_the_end, context=authority.elsewhere) as port:
        _, noted = dial(f"wss://localhost:{port}{PATH}", ca_file=authority.ca_file)
        refused = await noted.until("refused")
    assert refused[1] is Fault.TLS_FAILED
    assert "CERTIFICATE_VERIFY_FAILED" in refused[4]


async def test_a_server_without_tls_is_a_failure_of_tls(authority: Authority) -> None:
    async def script(peer: Peer) -> None:
        peer.writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await peer.reader.read()

    async with serving(script) as port:
        _, noted = dial(f"wss://127.0.0.1:{port}{PATH}", ca_file=authority.ca_file)
        assert (await noted.until("refused"))[1] is Fault.TLS_FAILED


async def test_a_ca_file_that_cannot_be_read_is_a_failure_of_tls(tmp_path: Path) -> None:
    async with serving(wait_for_the_end) as port:
        _, noted = dial(f"wss://127.0.0.1:{port}{PATH}", ca_file=tmp_path / "absent.pem")
        assert (await noted.until("refused"))[1] is Fault.TLS_FAILED


async def test_a_connection_that_ends_in_the_tls_handshake_is_unreachable() -> None:
    async def script(peer: Peer) -> None:
        await peer.reader.read(1)

    async with serving(script) as port:
        _, noted = dial(f"wss://127.0.0.1:{port}{PATH}")
        assert (await noted.until("refused"))[1] is Fault.UNREACHABLE


def test_tls_is_verified_and_at_least_1_2() -> None:
    context = client_context()
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


# ---- Through a proxy -------------------------------------------------------------------------


@asynccontextmanager
async def tunnelling(
    upstream_port: int, heard: list[bytes], *, context: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """A proxy that connects everybody to one port, whatever name they ask for."""

    async def script(peer: Peer) -> None:
        heard.append(await peer.request())
        reader, writer = await asyncio.open_connection("127.0.0.1", upstream_port)
        peer.writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        try:
            await asyncio.gather(_copy(peer.reader, writer), _copy(reader, peer.writer))
        finally:
            writer.transport.abort()

    async with serving(script, context=context) as port:
        yield port


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.transport.abort()


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_tls_goes_through_a_proxy_that_is_asked_to_connect(
    authority: Authority, scheme: str
) -> None:
    heard: list[bytes] = []
    context = authority.server if scheme == "https" else None
    async with (
        serving(echo_once, context=authority.server) as port,
        tunnelling(port, heard, context=context) as proxy_port,
    ):
        link, noted = dial(
            f"wss://api.example.test{PATH}",
            ca_file=authority.ca_file,
            environment={"HTTPS_PROXY": f"{scheme}://me:pass%20word@localhost:{proxy_port}"},
        )
        send(link, noted, b"through", 1)
        await noted.until_heard(b"through")
        link.abort()
    lines = heard[0].split(b"\r\n")
    assert lines[0] == b"CONNECT api.example.test:443 HTTP/1.1"
    assert b"Proxy-Authorization: Basic bWU6cGFzcyB3b3Jk" in lines


async def test_a_proxy_that_refuses_makes_upstream_unreachable() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        peer.writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
        await peer.reader.read()

    async with serving(script) as port:
        proxy = f"http://user:{SECRET}@127.0.0.1:{port}"
        _, noted = dial(f"wss://api.example.test{PATH}", proxy=proxy)
        refused = await noted.until("refused")
    assert refused[1] is Fault.UNREACHABLE
    assert refused[4].endswith(f"the proxy at 127.0.0.1:{port} refused CONNECT with 407")
    WATCH.look("what became of a dial", repr(refused))


@pytest.mark.parametrize("said", [b"", b"SSH-2.0-x\r\n\r\n"], ids=["end", "not-http"])
async def test_a_proxy_that_is_none_makes_upstream_unreachable(said: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        peer.writer.write(said)
        await peer.writer.drain()

    async with serving(script) as port:
        _, noted = dial(f"wss://api.example.test{PATH}", proxy=f"http://127.0.0.1:{port}")
        refused = await noted.until("refused")
    assert refused[1] is Fault.UNREACHABLE
