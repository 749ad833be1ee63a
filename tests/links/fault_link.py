"""A TCP relay that can be made to misbehave while connections run through it.

It stands between proxy and simulator, or between client and proxy. Its kernel goes on
acknowledging what it does not relay: a path that is really dead needs a network namespace.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

_READ_BYTES: Final = 64 * 1024
#: Reads that may be on their way at once; a slow receiver holds the sender back after that.
_PIECES: Final = 16
_LINGER_NOT: Final = struct.pack("ii", 1, 0)


class FaultLink:
    """`async with FaultLink(port) as link: … link.port`.

    Everything below may be changed at any time and holds for all connections:
    `latency_s` each way, `bytes_per_s` each way (0: no bound), `slice_bytes` (0: as it came),
    `is_refusing` (new connections are reset). `dials` has the time of each accepted connection.
    """

    def __init__(self, target_port: int = 0) -> None:
        self.target_port = target_port
        self.port = 0
        self.latency_s = 0.0
        self.bytes_per_s = 0.0
        self.slice_bytes = 0
        self.is_refusing = False
        self.dials: list[float] = []
        self._passage = asyncio.Event()
        self._passage.set()
        self._lines: dict[_Line, asyncio.Task[None]] = {}
        self._server: asyncio.Server | None = None

    # ── Faults on order ──────────────────────────────────────────────────────────────────────

    def black_hole(self, is_on: bool = True) -> None:
        """Relay nothing at all, in either direction, and keep every connection open."""
        if is_on:
            self._passage.clear()
        else:
            self._passage.set()

    def reset(self) -> int:
        """Reset every connection on both sides; how many there were."""
        lines = list(self._lines)
        for line in lines:
            line.reset()
        return len(lines)

    def half_close(self) -> None:
        """End every connection in the direction of its opener, and leave the other open."""
        for line in list(self._lines):
            line.end_toward_opener()

    def end_toward_target(self) -> None:
        """End every connection in the direction of its target, as a leaving client does."""
        for line in list(self._lines):
            line.end_toward_target()

    @property
    def open_count(self) -> int:
        """Connections that run through it."""
        return len(self._lines)

    def most_dials_within(self, seconds: float) -> int:
        """The most connections that were opened in any such span."""
        return max(
            (sum(at <= other < at + seconds for other in self.dials) for at in self.dials),
            default=0,
        )

    # ── Life ─────────────────────────────────────────────────────────────────────────────────

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        tasks = list(self._lines.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.dials.append(asyncio.get_running_loop().time())
        if self.is_refusing:
            _reset(writer)
            return
        task = asyncio.current_task()
        assert task is not None
        line = _Line(self, reader, writer)
        self._lines[line] = task
        try:
            await line.run()
        except asyncio.CancelledError:
            line.reset()
        finally:
            self._lines.pop(line, None)

    async def passage(self, size: int) -> None:
        """Wait until bytes may pass, and as long as so many take."""
        await self._passage.wait()
        if self.bytes_per_s:
            await asyncio.sleep(size / self.bytes_per_s)


class _Line:
    """One relayed connection."""

    def __init__(
        self, link: FaultLink, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._link = link
        self._opener = (reader, writer)
        self._is_ended_toward_opener = False
        self._target: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def run(self) -> None:
        """Relay until both directions have ended."""
        try:
            self._target = await asyncio.open_connection("127.0.0.1", self._link.target_port)
        except OSError:
            _reset(self._opener[1])
            return
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._relay(self._opener[0], self._target[1]))
                group.create_task(self._relay(self._target[0], self._opener[1]))
        except* OSError:
            self.reset()
        finally:
            for _, writer in (self._opener, self._target):
                writer.close()

    def reset(self) -> None:
        """RST on both sides."""
        _reset(self._opener[1])
        if self._target is not None:
            _reset(self._target[1])

    def end_toward_opener(self) -> None:
        """FIN to whoever opened the connection; what comes for it is thrown away."""
        if not self._is_ended_toward_opener:
            self._is_ended_toward_opener = True
            with suppress(OSError):
                self._opener[1].write_eof()

    def end_toward_target(self) -> None:
        """FIN to where the connection goes."""
        if self._target is not None:
            with suppress(OSError):
                self._target[1].write_eof()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_PIECES)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read(reader, queue))
            group.create_task(self._write(queue, writer))

    async def _read(
        self, reader: asyncio.StreamReader, queue: asyncio.Queue[tuple[float, bytes]]
    ) -> None:
        loop = asyncio.get_running_loop()
        data = b"."
        while data:
            data = await reader.read(self._link.slice_bytes or _READ_BYTES)
            await queue.put((loop.time() + self._link.latency_s, data))

    async def _write(
        self, queue: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, data = await queue.get()
            await asyncio.sleep(max(due - loop.time(), 0))
            await self._link.passage(len(data))
            if self._is_ended_toward_opener and writer is self._opener[1]:
                if not data:
                    return
                continue
            if not data:
                with suppress(OSError):
                    writer.write_eof()
                return
            writer.write(data)
            await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    if sock is not None and not writer.transport.is_closing():
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    writer.transport.abort()
