"""The load: requests written in one go, answers timed and counted, not read."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from typing import Any, Final, cast
from urllib.parse import urlsplit

#: An answer that takes longer never comes.
_PATIENCE_S: Final = 60.0
_LAST_CHUNK: Final = b"\r\n0\r\n\r\n"


class Caller(asyncio.Protocol):
    """One keep-alive connection, one answer at a time."""

    def __init__(self) -> None:
        self.arrivals: list[tuple[int, int]] = []
        self._tail = b""
        self._head = b""
        self._ended: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open."""
        self._transport = cast(asyncio.Transport, transport)

    def close(self) -> None:
        """Leave."""
        self._transport.close()

    async def ask(self, request: bytes) -> int:
        """Send a request and await the end of its answer; nanoseconds to its first byte.

        `arrivals` has when (ns) how many events came.
        """
        self.arrivals, self._tail, self._head = [], b"", b""
        self._ended = asyncio.get_running_loop().create_future()
        began = time.monotonic_ns()
        self._transport.write(request)
        async with asyncio.timeout(_PATIENCE_S):
            await self._ended
        assert self._head.startswith(b"HTTP/1.1 200"), self._head[:500]
        return self.arrivals[0][0] - began

    def data_received(self, data: bytes) -> None:
        """Note when how many events came."""
        now = time.monotonic_ns()
        if not self._head:
            self._head = data[:500]
        seen = self._tail + data
        self.arrivals.append((now, seen.count(b"\n\n") - self._tail.count(b"\n\n")))
        self._tail = seen[-len(_LAST_CHUNK) :]
        is_refused = not self._head.startswith(b"HTTP/1.1 200")
        if (self._tail == _LAST_CHUNK or is_refused) and self._ended and not self._ended.done():
            self._ended.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there any more."""
        if self._ended is not None and not self._ended.done():
            self._ended.set_exception(ConnectionError(f"cut: {exc} after {self._head!r}"))

    def event_times(self) -> list[int]:
        """When each event came."""
        return [now for now, count in self.arrivals for _ in range(count)]


async def caller(base_url: str) -> Caller:
    """Connect."""
    url = urlsplit(base_url)
    assert url.hostname is not None
    assert url.port is not None
    loop = asyncio.get_running_loop()
    return (await loop.create_connection(Caller, url.hostname, url.port))[1]


def post(base_url: str, body: bytes, *, key: str = "bench", session: str = "") -> bytes:
    """A turn's request, whole."""
    url = urlsplit(base_url)
    hint = f"session-id: {session}\r\n" if session else ""
    head = (
        f"POST {url.path}/responses HTTP/1.1\r\nHost: {url.netloc}\r\n"
        f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\n{hint}"
        f"Accept: text/event-stream\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def told(base_url: str, path: str) -> Any:
    """What the light upstream (or a proxy) tells at a path of its origin."""
    url = urlsplit(base_url)
    # Only figures of our own upstream come this way, over loopback.
    context = ssl._create_unverified_context() if url.scheme == "https" else None
    reader, writer = await asyncio.open_connection(url.hostname, url.port, ssl=context)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {url.netloc}\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split()[0])
    body = await reader.readexactly(length)
    writer.close()
    return json.loads(body)
