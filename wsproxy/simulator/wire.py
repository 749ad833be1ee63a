"""One accepted TCP connection: bytes in, bytes out, and the rude ways to end it."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Final

_READ_BYTES: Final = 256 * 1024
#: Beyond that, a writer waits for its client; below it, asyncio's own buffer is cheap.
_HIGH_WATER_BYTES: Final = 1024 * 1024
#: Pieces that may wait for the end of the loop's round before they are sent early.
_FLUSH_PIECES: Final = 64
#: A reset makes the peer's kernel drop what its program has not read yet.
_BEFORE_RESET_S: Final = 0.02


class GoneError(Exception):
    """The peer is not there any more."""


class Wire:
    """A thin skin over asyncio's streams."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._loop = asyncio.get_running_loop()
        self._pending: list[bytes] = []
        self._is_frozen = False
        sock = writer.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        writer.transport.set_write_buffer_limits(high=_HIGH_WATER_BYTES)

    @property
    def is_gone(self) -> bool:
        """Has the peer left, or did we?"""
        return self._writer.transport.is_closing() or self._reader.at_eof()

    async def receive(self) -> bytes:
        """The next bytes; b"" when the peer has ended or the connection broke."""
        if self._is_frozen:
            await self._loop.create_future()
        try:
            return await self._reader.read(_READ_BYTES)
        except (ConnectionError, OSError):
            return b""

    def write(self, data: bytes) -> None:
        """Send bytes; what is written in one round of the event loop leaves in one piece."""
        if self._is_frozen:
            return
        if not self._pending:
            self._loop.call_soon(self._flush)
        self._pending.append(data)

    def _flush(self) -> None:
        if self._pending and not self._writer.transport.is_closing():
            self._writer.write(b"".join(self._pending))
        self._pending.clear()

    async def drain(self) -> None:
        """Wait for a slow peer where much is on its way. Raises `GoneError`."""
        if len(self._pending) < _FLUSH_PIECES:
            return
        self._flush()
        try:
            await self._writer.drain()
        except (ConnectionError, OSError):
            raise GoneError from None

    def freeze(self) -> None:
        """Neither read nor write from now on, and keep the connection open."""
        self._flush()
        self._is_frozen = True
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]

    async def reset(self) -> None:
        """Drop the connection with RST, once the peer has had time to read what was written."""
        self._flush()
        await asyncio.sleep(_BEFORE_RESET_S)
        sock = self._writer.get_extra_info("socket")
        if sock is not None:
            linger = struct.pack("ii", 1, 0)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._writer.transport.abort()

    async def wait_peer(self) -> None:
        """Say nothing until the peer leaves."""
        while await self.receive():
            pass

    def close(self) -> None:
        """End the connection after what was written has left."""
        self._flush()
        self._writer.close()

    async def wait_closed(self) -> None:
        """Wait until the socket is gone."""
        try:
            await self._writer.wait_closed()
        except (ConnectionError, OSError):
            return
