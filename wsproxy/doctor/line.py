"""One WebSocket to upstream, dialled just as the daemon dials, to ask it a few questions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from wsproxy.core.ids import ConnectionId
from wsproxy.core.multiplex.recovery import Fault
from wsproxy.core.wire.websocket import Message
from wsproxy.ports import Headers


@dataclass(frozen=True, slots=True)
class Opened:
    """The upgrade was accepted."""

    headers: Headers
    is_compressed: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """It was not; `body` is the first KiB of what was said instead."""

    fault: Fault
    status: int | None
    body: bytes
    detail: str


@dataclass(frozen=True, slots=True)
class Lost:
    """It is over."""

    fault: Fault
    detail: str


class Line:
    """Implements `ports.LinkEvents`: everything that happens comes out of `next`, in order."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[Opened | Refused | Lost | Message] = asyncio.Queue()

    async def next(self, timeout_s: float) -> Opened | Refused | Lost | Message:
        """Raises `TimeoutError`."""
        async with asyncio.timeout(timeout_s):
            return await self._events.get()

    def link_opened(self, connection: ConnectionId, headers: Headers, is_compressed: bool) -> None:
        """See `ports.LinkEvents`."""
        self._events.put_nowait(Opened(headers, is_compressed))

    def link_refused(
        self,
        connection: ConnectionId,
        fault: Fault,
        status: int | None,
        headers: Headers,
        body: bytes,
        detail: str,
    ) -> None:
        """See `ports.LinkEvents`."""
        self._events.put_nowait(Refused(fault, status, body, detail))

    def link_received(self, connection: ConnectionId, messages: Sequence[Message]) -> None:
        """See `ports.LinkEvents`."""
        for message in messages:
            self._events.put_nowait(message)

    def link_sent(self, connection: ConnectionId, ticket: int) -> None:
        """See `ports.LinkEvents`."""

    def link_lost(
        self, connection: ConnectionId, fault: Fault, detail: str, unsent: Sequence[int]
    ) -> None:
        """See `ports.LinkEvents`."""
        self._events.put_nowait(Lost(fault, detail))
