"""Both ends of a dial: a server that is scripted byte by byte, and an owner that notes events."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from wsproto.connection import SERVER, Connection
from wsproto.events import CloseConnection, Event, TextMessage
from wsproto.extensions import PerMessageDeflate

from tests.canary import SECRET
from wsproxy.core.ids import ConnectionId
from wsproxy.core.multiplex.recovery import Fault
from wsproxy.core.wire.websocket import Message
from wsproxy.ports import Headers, Target
from wsproxy.upstream.dialer import Dialer
from wsproxy.upstream.transport import WebSocketLink

PATIENCE_S = 5.0
ONE = ConnectionId(1)
AUTHORIZED: Headers = ((b"Authorization", f"Bearer {SECRET}".encode()),)


@dataclass
class Noted:
    """A `LinkEvents` that keeps what it is told, in order, as (name, …) tuples."""

    events: list[tuple[Any, ...]] = field(default_factory=list)
    is_inside_a_call: bool = False
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def _note(self, *event: Any) -> None:
        assert not self.is_inside_a_call, "told from within a method of the link"
        self.events.append(event)
        self._news.set()

    def link_opened(self, connection: ConnectionId, headers: Headers, is_compressed: bool) -> None:
        self._note("opened", dict(headers), is_compressed)

    def link_refused(
        self,
        connection: ConnectionId,
        fault: Fault,
        status: int | None,
        headers: Headers,
        body: bytes,
        detail: str,
    ) -> None:
        self._note("refused", fault, status, body, detail)

    def link_received(self, connection: ConnectionId, messages: Sequence[Message]) -> None:
        if messages:
            self._note("received", list(messages))

    def link_sent(self, connection: ConnectionId, ticket: int) -> None:
        self._note("sent", ticket)

    def link_lost(
        self, connection: ConnectionId, fault: Fault, detail: str, unsent: Sequence[int]
    ) -> None:
        self._note("lost", fault, detail, list(unsent))

    async def until(self, *start: Any) -> tuple[Any, ...]:
        """Wait for an event that begins so, and return it."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                for event in self.events:
                    if event[: len(start)] == start:
                        return event
                self._news.clear()
                await self._news.wait()

    async def until_heard(self, message: Message) -> None:
        """Wait for a message, whatever else the same read brought."""
        async with asyncio.timeout(PATIENCE_S):
            while not any(event[0] == "received" and message in event[1] for event in self.events):
                self._news.clear()
                await self._news.wait()

    @property
    def names(self) -> list[str]:
        """What kinds of events there were."""
        return [event[0] for event in self.events]


@dataclass
class Peer:
    """The server's end of one TCP connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    engine: Connection = field(default_factory=lambda: Connection(SERVER))
    events: list[Event] = field(default_factory=list)

    async def request(self) -> bytes:
        """The head of one HTTP request."""
        return await self.reader.readuntil(b"\r\n\r\n")

    async def accept(
        self, extra: bytes = b"", behind: bytes = b"", *, is_deflated: bool = False
    ) -> bytes:
        """Answer the upgrade with 101, `behind` in the same write; returns the request."""
        request = await self.request()
        if is_deflated:
            extra += b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
            extension = PerMessageDeflate()
            extension.finalize("permessage-deflate")
            self.engine = Connection(SERVER, [extension])
        found = re.search(rb"Sec-WebSocket-Key: (\S+)", request)
        assert found is not None
        guid = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        proof = base64.b64encode(hashlib.sha1(found[1] + guid).digest())
        self.writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            + b"Sec-WebSocket-Accept: %b\r\n%b\r\n%b" % (proof, extra, behind)
        )
        return request

    async def text(self) -> str:
        """The next whole text message."""
        text = ""
        while True:
            event = await self.event()
            assert isinstance(event, TextMessage), event
            text += event.data
            if event.message_finished:
                return text

    async def event(self) -> Event:
        """The next event that wsproto sees."""
        while not self.events:
            data = await self.reader.read(1 << 16)
            assert data, "the connection ended"
            self.engine.receive_data(data)
            self.events.extend(self.engine.events())
        return self.events.pop(0)

    async def closed_with(self) -> int:
        """The code of the next close frame, whatever comes before it."""
        while True:
            event = await self.event()
            if isinstance(event, CloseConnection):
                return int(event.code)

    def reset(self) -> None:
        """Break the connection with RST."""
        tcp = self.writer.get_extra_info("socket")
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script = Callable[[Peer], Awaitable[None]]


@asynccontextmanager
async def serving(
    script: Script, *, context: ssl.SSLContext | None = None, receive_buffer: int = 0
) -> AsyncIterator[int]:
    """Run `script` for every connection; gives the port. A failing script fails the test."""
    failures: list[BaseException] = []
    running: set[asyncio.Task[None]] = set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await script(Peer(reader, writer))
        except (asyncio.CancelledError, ConnectionError):
            pass
        except BaseException as error:
            failures.append(error)
        finally:
            writer.transport.abort()

    listening = socket.create_server(("127.0.0.1", 0))
    if receive_buffer:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    server = await asyncio.start_server(run, sock=listening, ssl=context)
    try:
        yield listening.getsockname()[1]
    finally:
        server.close()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if failures:
            raise failures[0]  # also when the test is failing for lack of what did not come


def dial(
    url: str,
    *,
    headers: Headers = AUTHORIZED,
    **settings: Any,
) -> tuple[WebSocketLink, Noted]:
    """Dial with a dialer of its own, without the environment's proxies."""
    noted = Noted()
    dialer = Dialer(**{"environment": {}, **settings})
    return dialer.dial(ONE, Target(url, headers), noted), noted


def send(link: WebSocketLink, noted: Noted, payload: bytes, ticket: int) -> None:
    """Send, and check that nothing is told meanwhile."""
    noted.is_inside_a_call = True
    link.send(payload, ticket)
    noted.is_inside_a_call = False
