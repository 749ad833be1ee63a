"""From a URL to an open WebSocket: name, TCP, perhaps a proxy, TLS, upgrade; one deadline for all.

A dial is a task that ends in `opened` or `refused` of its link, unless it is cancelled.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import aiohappyeyeballs
import h11

from wsproxy.core.ids import ConnectionId
from wsproxy.core.multiplex.recovery import Fault
from wsproxy.core.wire.handshake import Handshake, HandshakeError, Outcome, Refused
from wsproxy.core.wire.websocket import MAX_INFLATE_RATIO, MAX_MESSAGE_BYTES, WebSocket
from wsproxy.ports import LinkEvents, Target
from wsproxy.upstream.proxy import Address, Proxy, choose_proxy
from wsproxy.upstream.reader import Reader
from wsproxy.upstream.tls import TlsWire, Wire, client_context
from wsproxy.upstream.transport import WebSocketLink

#: TCP, TLS and upgrade in all; a turn waits for only 3 s of it (faults.md §7).
DIAL_TIMEOUT_S: Final = 15.0
#: How long unacknowledged bytes may be on their way before the path counts as dead (F04).
USER_TIMEOUT_S: Final = 20.0
#: When the status of a refusal is known, its body is worth no more than this.
REFUSAL_BODY_TIMEOUT_S: Final = 1.0
#: RFC 8305 §5: how long an address may take before the next one is tried beside it.
HAPPY_EYEBALLS_DELAY_S: Final = 0.25

_TCP_RXT_CONNDROPTIME: Final = 0x80  # macOS <netinet/tcp.h>, seconds; not in Python's `socket`


class Dialer:
    """A `ports.Dialer`.

    `ca_file` takes the place of the system's certificates; `proxy` is "env", "none" or a URL.
    """

    def __init__(
        self,
        *,
        dial_timeout_s: float = DIAL_TIMEOUT_S,
        is_deflate_offered: bool = True,
        ca_file: Path | None = None,
        proxy: str = "env",
        environment: Mapping[str, str] = os.environ,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        max_inflate_ratio: int = MAX_INFLATE_RATIO,
        user_timeout_s: float = USER_TIMEOUT_S,
    ) -> None:
        self._dial_timeout_s = dial_timeout_s
        self._is_deflate_offered = is_deflate_offered
        self._ca_file = ca_file
        self._proxy = proxy
        self._environment = environment
        self._open_websocket = partial(
            WebSocket,
            mask_key=partial(os.urandom, 4),
            max_message_bytes=max_message_bytes,
            max_inflate_ratio=max_inflate_ratio,
        )
        self._user_timeout_s = user_timeout_s
        self._context: ssl.SSLContext | None = None
        self._dials: set[asyncio.Task[None]] = set()  # the loop itself holds tasks weakly

    def dial(self, connection: ConnectionId, target: Target, events: LinkEvents) -> WebSocketLink:
        """Start dialling at once, in the background; the outcome comes through `events`."""
        link = WebSocketLink(connection, events)
        task = asyncio.get_running_loop().create_task(self._dial(link, target))
        link.is_dialled_by(task)
        self._dials.add(task)
        task.add_done_callback(self._dials.discard)
        return link

    async def _dial(self, link: WebSocketLink, target: Target) -> None:
        attempt = _Attempt(self._user_timeout_s)
        try:
            async with asyncio.timeout(self._dial_timeout_s):
                outcome = await self._attempt(attempt, target)
        except asyncio.CancelledError:
            attempt.drop()
            raise
        except Exception as error:  # whatever it was: somebody waits for the outcome
            outcome = _refusal(error, attempt.step)
        if isinstance(outcome, Refused) or attempt.wire is None:
            attempt.drop()
            assert isinstance(outcome, Refused)
            link.refused(outcome)
            return
        websocket = self._open_websocket(deflate=outcome.deflate)
        link.opened(attempt.wire, outcome, websocket, attempt.reader.take())
        attempt.reader.hand_over(link)

    async def _attempt(self, attempt: _Attempt, target: Target) -> Outcome:
        address = Address.of(urlsplit(target.url))
        handshake = self._handshake(address, target)
        proxy = choose_proxy(target.url, self._proxy, self._environment)
        await attempt.connect(proxy.address if proxy else address)
        if proxy is not None:
            if proxy.address.is_tls:
                await attempt.secure(await self._tls_context(), proxy.address.host)
            await attempt.tunnel(proxy, address)
        if address.is_tls:
            await attempt.secure(await self._tls_context(), address.host)
        return await attempt.upgrade(handshake)

    def _handshake(self, address: Address, target: Target) -> Handshake:
        _, _, rest = target.url.partition("://")
        start = next((at for at, char in enumerate(rest) if char in "/?"), len(rest))
        path = rest[start:] if rest[start : start + 1] == "/" else f"/{rest[start:]}"
        is_default_port = address.port == (443 if address.is_tls else 80)
        host = str(address).rpartition(":")[0] if is_default_port else str(address)
        return Handshake(
            target=path.encode(),
            host=host.encode("idna" if not host.isascii() else "ascii"),
            headers=target.headers,
            nonce=os.urandom(16),
            is_deflate_offered=self._is_deflate_offered,
        )

    async def _tls_context(self) -> ssl.SSLContext:
        if self._context is None:
            # Reading the system's certificates takes 10–50 ms, too long for the event loop.
            loop = asyncio.get_running_loop()
            try:
                self._context = await loop.run_in_executor(None, client_context, self._ca_file)
            except OSError as error:
                raise ssl.SSLError(f"no certificates from {self._ca_file}: {error}") from None
        return self._context


class _Attempt:
    """One dial, step by step. Every step raises `OSError` when it fails."""

    def __init__(self, user_timeout_s: float) -> None:
        self._user_timeout_s = user_timeout_s
        self.step = "connecting"
        self.wire: Wire | None = None
        self.reader = Reader()

    def drop(self) -> None:
        """Nothing came of it."""
        if self.wire is not None:
            self.wire.abort()

    async def connect(self, address: Address) -> None:
        """Open a TCP connection to whichever of the addresses answers first (RFC 8305)."""
        loop = asyncio.get_running_loop()
        self.step = f"looking up {address.host}"
        infos = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        self.step = f"connecting to {address}"
        tcp = await aiohappyeyeballs.start_connection(
            infos, happy_eyeballs_delay=HAPPY_EYEBALLS_DELAY_S, loop=loop
        )
        _tune(tcp, self._user_timeout_s)
        transport, _ = await loop.create_connection(lambda: self.reader, sock=tcp)
        transport.set_write_buffer_limits(high=0)  # tell as soon as all has left
        self.wire = transport

    async def tunnel(self, proxy: Proxy, address: Address) -> None:
        """Have the proxy connect us (RFC 9110 §9.3.6)."""
        self.step = f"waiting for the proxy at {proxy.address}"
        assert self.wire is not None
        headers = [(b"Host", str(address).encode())]
        if proxy.authorization is not None:
            headers.append((b"Proxy-Authorization", proxy.authorization))
        http = h11.Connection(h11.CLIENT)
        request = h11.Request(method=b"CONNECT", target=str(address).encode(), headers=headers)
        self.wire.write((http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b""))
        try:
            response = await self._response(http)
        except h11.RemoteProtocolError as error:
            raise ConnectionError(f"no HTTP from the proxy at {proxy.address}: {error}") from None
        if not 200 <= response.status_code < 300:
            status = response.status_code
            raise ConnectionError(f"the proxy at {proxy.address} refused CONNECT with {status}")

    async def _response(self, http: h11.Connection) -> h11.Response:
        while True:
            event = http.next_event()
            if isinstance(event, h11.Response):
                return event
            if event is h11.NEED_DATA:
                http.receive_data(await self.reader.read())

    async def secure(self, context: ssl.SSLContext, host: str) -> None:
        """Shake hands with `host`; from then on everything goes through TLS."""
        self.step = f"the TLS handshake with {host}"
        assert self.wire is not None
        tls = TlsWire(self.wire, context, host, self.reader)
        self.wire = tls
        await tls.shake_hands(self.reader.take())

    async def upgrade(self, handshake: Handshake) -> Outcome:
        """Ask for the WebSocket and wait for the verdict."""
        self.step = "waiting for the upgrade's answer"
        assert self.wire is not None
        self.wire.write(handshake.request)
        outcome: Outcome | None = None
        while outcome is None and not handshake.is_refused:
            outcome = handshake.feed(await self.reader.read())
        if outcome is None:
            outcome = await self._refusal_body(handshake)
        return outcome

    async def _refusal_body(self, handshake: Handshake) -> Outcome:
        try:
            async with asyncio.timeout(REFUSAL_BODY_TIMEOUT_S):
                while True:
                    outcome = handshake.feed(await self.reader.read())
                    if outcome is not None:
                        return outcome
        except OSError:  # which a timeout is
            return handshake.give_up("the refusal was cut")


def _tune(tcp: socket.socket, user_timeout_s: float = USER_TIMEOUT_S) -> None:
    tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(user_timeout_s * 1000))
    elif hasattr(socket, "TCP_KEEPALIVE"):  # macOS
        tcp.setsockopt(socket.IPPROTO_TCP, _TCP_RXT_CONNDROPTIME, round(user_timeout_s))


def _refusal(error: Exception, step: str) -> Refused:
    """What a dial that raised means: F32 or F33, and F37 for a request that cannot be written."""
    if isinstance(error, ssl.SSLError):
        return _unanswered(Fault.TLS_FAILED, f"{step}: {error}")
    if isinstance(error, HandshakeError):
        return _unanswered(Fault.UPGRADE_FAILED, f"the upgrade cannot be written: {error}")
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return _unanswered(Fault.OUT_OF_DESCRIPTORS, f"{step}: {error}")
    if isinstance(error, TimeoutError) and not error.errno:
        return _unanswered(Fault.UNREACHABLE, f"no WebSocket in time: {step}")
    return _unanswered(Fault.UNREACHABLE, f"{step}: {error}")


def _unanswered(fault: Fault, detail: str) -> Refused:
    return Refused(fault, None, (), b"", detail)
