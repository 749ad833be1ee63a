"""Bytes awaited one read after another, as long as a dial needs them so."""

from __future__ import annotations

import asyncio


class Reader(asyncio.Protocol):
    """A wire's protocol during the dial; `hand_over` ends that."""

    def __init__(self) -> None:
        self._unread = bytearray()
        self._is_ended = False
        self._is_lost = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def read(self) -> bytes:
        """What has arrived; `b""` at the end of the connection, or `OSError` where it broke."""
        while not self._unread and not self._is_ended:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if not self._unread and self._error is not None:
            raise self._error
        return self.take()

    def take(self) -> bytes:
        """What has arrived and was not read."""
        unread = bytes(self._unread)
        self._unread.clear()
        return unread

    def hand_over(self, protocol: asyncio.Protocol) -> None:
        """Tell the wire's next protocol what happened while nobody awaited it."""
        if self._is_lost:
            protocol.connection_lost(self._error)

    def data_received(self, data: bytes) -> None:
        """Keep it until it is asked for; a dial's peer has little to say before the upgrade."""
        self._unread += data
        self._wake()

    def eof_received(self) -> bool | None:
        """The peer ended the connection, so it is closed."""
        self._is_ended = True
        self._wake()
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        """The wire is gone."""
        self._is_ended = self._is_lost = True
        self._error = exc
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
