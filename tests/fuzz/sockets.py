"""Over real sockets, in one loop: raw requests to the downstream server, and a raw upstream."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from typing import Final

from tests.downstream.downstream_stage import Stage, stage
from tests.fuzz.answers import check_stream
from tests.fuzz.contract import CANARY, demand, has_canary
from tests.worlds import eventually, is_quiet
from wsproxy.config import Settings
from wsproxy.daemon import Daemon, running

Check = Callable[[bytes], None]
AsyncCheck = Callable[[bytes], Awaitable[None]]
#: Far above what any of it takes, below the runner's own patience.
PATIENCE_S: Final = 5.0


@contextmanager
def in_a_loop(opened: AbstractAsyncContextManager[AsyncCheck]) -> Iterator[Check]:
    """A check that needs an event loop, run in one that lives as long as its stage."""
    with asyncio.Runner() as runner:
        unhandled: list[str] = []
        runner.get_loop().set_exception_handler(lambda _, told: unhandled.append(repr(told)))
        stack = AsyncExitStack()
        check = runner.run(stack.enter_async_context(opened))

        def check_and_look(raw: bytes) -> None:
            unhandled.clear()
            runner.run(_bounded(check, raw))
            demand(not unhandled, "nobody handled", unhandled)

        try:
            yield check_and_look
        finally:
            runner.run(stack.aclose())


async def _bounded(check: AsyncCheck, raw: bytes) -> None:
    async with asyncio.timeout(2 * PATIENCE_S):
        await check(raw)


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0


# ── Downstream ───────────────────────────────────────────────────────────────────────────────

STATUSES: Final = frozenset(
    {100, 200, 400, 401, 403, 404, 405, 408, 413, 415, 417, 426, 431, 502, 505}
)
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.1 ([0-9]{3}) ")
_PORT: Final = b"{port}"


@asynccontextmanager
async def requests() -> AsyncIterator[AsyncCheck]:
    """An input is what a client sends before it closes its side; `{port}` stands for ours."""
    async with stage() as s:

        async def check(raw: bytes) -> None:
            await _check_request(s, raw.replace(_PORT, b"%d" % s.port))
            s.clients.clear()
            s.upstream.seen.clear()
            await eventually(lambda: not s.front.connection_count)

        yield check
        demand((await s.get("/v1/x")).endswith(b"ok"), "nobody is served any more")


async def _check_request(s: Stage, raw: bytes) -> None:
    client = await s.connect()
    client.send(raw)
    client.writer.write_eof()
    try:
        got = await client.rest()
    except ConnectionError:
        got = b""
    client.writer.transport.abort()
    statuses = {int(status) for status in _STATUS_LINE.findall(got)}
    demand(statuses <= STATUSES, "statuses", statuses)
    demand(not has_canary(got), "the key is told", got)
    demand(not s.crashes, "crashed", s.crashes)


# ── Upstream ─────────────────────────────────────────────────────────────────────────────────

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY: Final = re.compile(rb"sec-websocket-key: (\S+)", re.I)
_LENGTH: Final = re.compile(rb"content-length: ([0-9]+)", re.I)
_DEFLATE: Final = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
_OVER_HTTPS: Final = b'{"over":"https"}'
NOT_STREAMING, COMPRESSED = 1, 2


class RawUpstream:
    """Accepts every upgrade, waits for a frame, writes `stream` and closes."""

    def __init__(self) -> None:
        self.setting, self.stream = 0, b""
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                head = await reader.readuntil(b"\r\n\r\n")
                key = _KEY.search(head)
                if key is not None:
                    writer.write(self._switching(key[1]))
                    await reader.read(65_536)
                    writer.write(self.stream)
                elif length := _LENGTH.search(head):
                    await reader.readexactly(int(length[1]))
                    writer.write(_head(b"200 OK", b"Content-Length: %d\r\n" % len(_OVER_HTTPS)))
                    writer.write(_OVER_HTTPS)
        finally:
            self.connections -= 1
            writer.close()

    def _switching(self, key: bytes) -> bytes:
        proof = base64.b64encode(hashlib.sha1(key + _GUID).digest())
        fields = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n"
        extension = _DEFLATE if self.setting & COMPRESSED else b""
        return _head(b"101 Switching Protocols", fields % proof + extension)


def _head(status: bytes, fields: bytes) -> bytes:
    return b"HTTP/1.1 %b\r\n%b\r\n" % (status, fields)


@asynccontextmanager
async def streams() -> AsyncIterator[AsyncCheck]:
    """An input is what upstream sends behind its 101, to the one turn of a fresh connection.

    The first byte says whether the client streams and whether compression is agreed. Each turn
    has a key of its own, so that no belief and no pace of the one before holds it up.
    """
    upstream = RawUpstream()
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    settings = Settings(
        upstream=url, listen=("127.0.0.1:0",), lanes="on", continuation="off", trace="off"
    )
    async with running(settings) as daemon:
        turn = Turns(daemon, upstream)
        yield turn.check
    server.close()


class Turns:
    """One turn after another, each judged by its whole answer and by what is left of it."""

    def __init__(self, daemon: Daemon, upstream: RawUpstream) -> None:
        assert daemon.front is not None
        self._daemon, self._upstream = daemon, upstream
        self._port = daemon.front.addresses[0].port
        self._number = 0
        self._descriptors = _descriptors()
        self._tasks = len(asyncio.all_tasks())

    async def check(self, raw: bytes) -> None:
        """See `streams`."""
        self._upstream.setting, self._upstream.stream = (raw[:1] or b"\0")[0], raw[1:]
        self._number += 1
        is_streaming = not self._upstream.setting & NOT_STREAMING
        answer = await self._answer(is_streaming)
        demand(not has_canary(answer), "the key is told", answer)
        is_plain = not self._upstream.setting & COMPRESSED
        check_answer(answer, said=raw if is_plain else None)
        await eventually(self._is_quiet, self._daemon.driver._core)

    async def _answer(self, is_streaming: bool) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        fields = {"model": "m", "input": "hello", "store": False, "stream": is_streaming}
        body = json.dumps(fields).encode()
        head = f"POST /v1/responses HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n"
        head += f"Authorization: Bearer {CANARY}-{self._number}\r\nConnection: close\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await reader.read()
        finally:
            writer.transport.abort()

    def _is_quiet(self) -> bool:
        """Nothing is left of the turn: no lane, connection, task or descriptor."""
        assert self._daemon.front is not None
        return (
            is_quiet(self._daemon)
            and not self._upstream.connections
            and not self._daemon.front.connection_count
            and len(asyncio.all_tasks()) <= self._tasks
            and _descriptors() <= self._descriptors
        )


def check_answer(answer: bytes, *, said: bytes | None) -> None:
    """One HTTP answer, with one honest end."""
    head, _, body = answer.partition(b"\r\n\r\n")
    line, *fields = head.split(b"\r\n")
    found = _STATUS_LINE.match(line)
    demand(found is not None, "no HTTP", answer[:200])
    assert found is not None
    status = int(found[1])
    named = {name.lower(): value for name, _, value in (f.partition(b": ") for f in fields)}
    demand(b"x-wsproxy-route" in named and b"x-wsproxy-turn" in named, "untold", head)
    demand(status == 200 or 400 <= status <= 599, "status", status)
    if b"content-length" in named:
        demand(len(body) == int(named[b"content-length"]), "cut, or with something behind it")
        demand(status == 200 or "error" in json.loads(body), "no error", body)
        return
    demand(named.get(b"transfer-encoding") == b"chunked" and status == 200, "framing", head)
    text, is_whole = dechunked(body)
    check_stream(text.decode(), is_cut=not is_whole, said=said)


def dechunked(body: bytes) -> tuple[bytes, bool]:
    """The chunks joined, and whether the last one came."""
    parts: list[bytes] = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        parts.append(rest[:length])
        demand(rest[length : length + 2] == b"\r\n", "a broken chunk", body[:80])
        body = rest[length + 2 :]
        if not length:
            demand(not body, "bytes behind the last chunk", body[:80])
            return b"".join(parts), True
    return b"".join(parts), False
