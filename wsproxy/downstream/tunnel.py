"""`Upgrade` on paths that are not ours: two sockets joined, byte for byte.

Nothing switches before upstream has said 101 itself; any other answer is relayed as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from aiohttp import web

from wsproxy.downstream.answers import SentAnswer, mark_started
from wsproxy.downstream.intake import Intake
from wsproxy.downstream.passthrough import relay, upstream_refusal
from wsproxy.ports import Headers, Rest, RestError, RestResponse

#: After one side has ended: how long the other may stay silent before both are closed.
HALF_OPEN_TIMEOUT_S: Final = 600.0


class UpgradeResponse(RestResponse, Protocol):
    """An upstream answer that may be a 101."""

    @property
    def raw_headers(self) -> Headers:
        """All fields, hop-by-hop ones too."""

    def take(self) -> tuple[asyncio.Transport, bytes]:
        """After a 101: the socket and the bytes that came right behind the head."""


class UpgradingRest(Rest, Protocol):
    """Plain HTTP(S) that can also ask for another protocol (`upstream/rest.py`)."""

    async def upgrade(self, method: str, raw_target: str, headers: Headers) -> UpgradeResponse:
        """Send an upgrade request, return when its head has arrived. Raises `RestError`."""


async def tunnel(request: web.BaseRequest, rest: UpgradingRest) -> web.StreamResponse:
    """Ask upstream for the client's upgrade; if it agrees, join both until both have ended."""
    try:
        response = await rest.upgrade(request.method, request.raw_path, request.raw_headers)
    except RestError as error:
        return upstream_refusal(error)
    try:
        if response.status != 101:
            return await relay(request, response)
        return await _joined(request, response)
    finally:
        response.close()


class Half(asyncio.Protocol):
    """One end of the tunnel: what it receives goes out at its peer."""

    def __init__(
        self,
        own: asyncio.Transport,
        peer: asyncio.Transport,
        on_lost: Callable[[Exception | None], None] | None = None,
    ) -> None:
        self._own = own
        self._peer = peer
        self._on_lost = on_lost
        self.moved_bytes = 0
        self.ended = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.moved_bytes += len(data)
        self._peer.write(data)

    def eof_received(self) -> bool:
        self.ended.set()
        if self._peer.is_closing() or not self._peer.can_write_eof():
            return False  # TLS as asyncio speaks it has no half-close: the whole thing ends
        self._peer.write_eof()
        return True

    def pause_writing(self) -> None:
        if not self._peer.is_closing():
            self._peer.pause_reading()

    def resume_writing(self) -> None:
        if not self._peer.is_closing():
            self._peer.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()
        self._peer.close()
        if self._on_lost is not None:
            self._on_lost(exc)


async def _joined(request: web.BaseRequest, response: UpgradeResponse) -> web.StreamResponse:
    intake, client = request.protocol, request.transport
    assert isinstance(intake, Intake)
    if client is None:
        return SentAnswer(101)
    upstream, early = response.take()
    downward, upward = Half(client, upstream, intake.connection_lost), Half(upstream, client)
    mark_started(request)
    client.set_protocol(downward)
    upstream.set_protocol(upward)
    client.write(_switching_head(response) + early)
    upstream.write(intake.take_early_bytes())
    client.resume_reading()
    upstream.resume_reading()
    try:
        await _both_ended(downward, upward)
    finally:
        client.close()
        upstream.close()
    return SentAnswer(101)


async def _both_ended(downward: Half, upward: Half) -> None:
    ends = [asyncio.create_task(half.ended.wait()) for half in (downward, upward)]
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        moved = -1
        while moved != (moved := downward.moved_bytes + upward.moved_bytes):
            _, pending = await asyncio.wait(ends, timeout=HALF_OPEN_TIMEOUT_S)
            if not pending:
                return
    finally:
        for end in ends:
            end.cancel()


def _switching_head(response: UpgradeResponse) -> bytes:
    lines = [b"HTTP/1.1 101 " + response.reason.encode("utf-8", "surrogateescape")]
    lines += [b"%b: %b" % field for field in response.raw_headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"
