"""A downstream side under test: raw clients on the left, a scripted raw upstream on the right."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import pairwise
from typing import Any

from aiohttp import web

from tests.canary import SECRET, TEXT, WATCH
from wsproxy.downstream.answers import RawAnswer
from wsproxy.downstream.app import App, Front, start
from wsproxy.downstream.coding import BodyError, read_body
from wsproxy.downstream.guard import Guard
from wsproxy.downstream.listening import Address
from wsproxy.downstream.models import ModelCache
from wsproxy.downstream.ops import Ops
from wsproxy.downstream.server import ConnectionLimits
from wsproxy.upstream.rest import HttpsClient

PATIENCE_S = 10.0
CANARY = SECRET
KEY = f"Authorization: Bearer {SECRET}"
#: What a user says, where a test is not about the body.
BODY = json.dumps({"input": TEXT}).encode()
#: Its group is the first digit of the status.
STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5])\d\d ")


@dataclass
class Seen:
    """One request as upstream received it: bytes, nothing interpreted."""

    line: bytes
    fields: list[bytes]
    body: bytes

    def values(self, name: bytes) -> list[bytes]:
        pairs = [field.split(b": ", 1) for field in self.fields]
        return [value for key, value in pairs if key.lower() == name.lower()]


Reply = Callable[[Seen, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def saying(*parts: bytes, close: bool = False) -> Reply:
    """An upstream that writes these bytes as its answer."""

    async def reply(_seen: Seen, _reader: asyncio.StreamReader, w: asyncio.StreamWriter) -> None:
        for part in parts:
            w.write(part)
            await w.drain()
        if close:
            w.close()

    return reply


OK = saying(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


@dataclass
class Upstream:
    """Takes requests one after another and answers each with `reply`."""

    reply: Reply = OK
    reads_body: bool = True
    seen: list[Seen] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    port: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @asynccontextmanager
    async def serving(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[None]:
        """Listen on a free port, which `port` then tells; leave nothing behind."""
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await asyncio.sleep(0)  # aborted transports close their sockets in the next turn

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while True:
                    await self._serve_one(reader, writer)
        finally:
            self._tasks.discard(task)
            self.ended.set()
            writer.transport.abort()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        seen = Seen(head[0], head[1:-2], b"")
        self.seen.append(seen)
        self.arrived.set()
        if self.reads_body:
            seen.body = await _body(seen, reader)
        await self.reply(seen, reader, writer)


async def _body(seen: Seen, reader: asyncio.StreamReader) -> bytes:
    if length := seen.values(b"content-length"):
        return await reader.readexactly(int(length[0]))
    if seen.values(b"transfer-encoding") != [b"chunked"]:
        return b""
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).strip(), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readline()
    return body


@dataclass
class Client:
    """One raw downstream connection; `errors` is what was read of answers that are no success."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    errors: bytearray = field(default_factory=bytearray)
    _is_success: bool = True

    def send(self, *parts: bytes) -> None:
        for part in parts:
            self.writer.write(part)

    async def until(self, end: bytes) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            return self._read(await self.reader.readuntil(end))

    async def exactly(self, size: int) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            return self._read(await self.reader.readexactly(size))

    async def rest(self) -> bytes:
        """Everything until the connection ends."""
        async with asyncio.timeout(PATIENCE_S):
            return self._read(await self.reader.read())

    def _read(self, got: bytes) -> bytes:
        begins = [found.start() for found in STATUS_LINE.finditer(got)]
        for begin, end in pairwise((0, *begins, len(got))):
            if status := STATUS_LINE.match(got, begin, end):
                self._is_success = status[1] in (b"1", b"2")
            if not self._is_success:
                self.errors += got[begin:end]
        return got


@dataclass
class Stage:
    """What a test can touch."""

    front: Front
    app: App
    upstream: Upstream
    port: int
    clients: list[Client]
    crashes: list[dict[str, object]]

    async def connect(self) -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.clients.append(Client(reader, writer))
        return self.clients[-1]

    async def ask(self, raw: bytes) -> bytes:
        """Send these bytes on a connection of their own; everything that comes back."""
        client = await self.connect()
        client.send(raw)
        return await client.rest()

    def head(self, line: str, *fields: str, closes: bool = True) -> bytes:
        """A request head with a right Host, and a key if no field is one."""
        lines = [f"{line} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", *fields]
        if not any(each.lower().startswith("authorization:") for each in fields):
            lines.append(KEY)
        if closes:
            lines.append("Connection: close")
        return "\r\n".join(lines).encode() + b"\r\n\r\n"

    async def get(self, target: str, *fields: str) -> bytes:
        return await self.ask(self.head(f"GET {target}", *fields))


async def eventually(is_so: Callable[[], bool]) -> None:
    """Return as soon as it is so; fail if it never is."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if is_so():
                return
            await asyncio.sleep(0.01)


async def echo_turn(request: web.Request) -> web.StreamResponse:
    """A turn handler that answers with the decoded body."""
    try:
        body = await read_body(request)
    except BodyError as error:
        return error.answer()
    return RawAnswer(200, [(b"x-route", b"turn")], body=body.decoded)


def by_authorization(headers: Any) -> bytes:
    """A pool key for tests: a digest of the credential."""
    values = [value for name, value in headers if name.lower() == b"authorization"]
    return sha256(values[0]).digest() if values else b""


@asynccontextmanager
async def stage(
    upstream: Upstream | None = None,
    *,
    base: str = "/v1",
    guard: Guard | None = None,
    limits: ConnectionLimits | None = None,
    ops: Ops | None = None,
    turn: Callable[[web.Request], Awaitable[web.StreamResponse]] = echo_turn,
    clock: Callable[[], float] = time.monotonic,
    stall_timeout_s: float = 300.0,
    upload_idle_timeout_s: float = 30.0,
    **rest_options: Any,
) -> AsyncIterator[Stage]:
    """Start upstream and downstream on free ports; close both at the end."""
    upstream = upstream if upstream is not None else Upstream()
    async with upstream.serving():
        rest = HttpsClient(f"http://127.0.0.1:{upstream.port}", **rest_options)
        models = ModelCache(rest, by_authorization, clock=clock)
        app = App(
            base=base,
            turn=turn,
            rest=rest,
            models=models,
            ops=ops or Ops(),
            stall_timeout_s=stall_timeout_s,
            upload_idle_timeout_s=upload_idle_timeout_s,
        )
        live = await _started(app, upstream, guard, limits)
        try:
            yield live
            for client in live.clients:
                WATCH.look("an error of our own", bytes(client.errors))
            WATCH.look_at_objects()
        finally:
            for client in live.clients:
                client.writer.transport.abort()
            await live.front.close()
            await models.close()
            await rest.close()


async def _started(
    app: App, upstream: Upstream, guard: Guard | None, limits: ConnectionLimits | None
) -> Stage:
    crashes: list[dict[str, object]] = []
    front = await start(
        app,
        listen=[Address("127.0.0.1", 0)],
        guard=guard,
        limits=limits,
        report=lambda _event, fields: crashes.append(fields),
    )
    return Stage(front, app, upstream, front.addresses[0].port, [], crashes)
