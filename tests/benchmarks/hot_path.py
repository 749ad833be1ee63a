"""What Python an event passes through costs: the wire's bytes in, a client's bytes out.

    python -m tests.benchmarks.hot_path

Everything between two sockets is real (frame reader, relay, edits, HTTP chunks); the sockets
themselves are not there. Figures are µs of processor time an event, the least of some rounds.
"""

from __future__ import annotations

import asyncio
import gc
import time
from typing import Any, Final, cast

from aiohttp import web

from tests.bench.source import stream_events
from tests.bench.stage import Stage
from tests.canary import SECRET
from wsproxy.core.wire.handshake import Accepted
from wsproxy.core.wire.websocket import WebSocket
from wsproxy.downstream.turns import TurnAnswer
from wsproxy.reading import Inbound
from wsproxy.upstream.transport import WebSocketLink

EVENTS: Final = 20_000
ROUNDS: Final = 5
#: Streams, and events of each that one read brings.
LOADS: Final = ((1, 1), (1, 8), (16, 1), (16, 4))
#: Measured at a time: the least of many slices is hardly touched by what else the machine does.
SLICE_READS: Final = 50
_HEADERS: Final = [
    (b"Authorization", b"Bearer " + SECRET.encode()),
    (b"Content-Type", b"application/json"),
]


class Nowhere(asyncio.Transport):
    """A wire, or a client's transport, that takes everything at once."""

    def __init__(self) -> None:
        super().__init__()
        self.written = 0

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self.written += len(data)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """It keeps nothing."""

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Nothing will be read from it."""

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0


class Writer:
    """Where aiohttp counts what it wrote."""

    output_size = 0


class Request:
    """As much of an aiohttp request as an answer asks for."""

    def __init__(self) -> None:
        self.transport, self.writer = Nowhere(), Writer()
        self.method, self.version, self.keep_alive = "POST", (1, 1), True

    def get(self, _key: object) -> None:
        return None


def framed(payload: bytes) -> bytes:
    """A text frame as a server sends it."""
    size = len(payload)
    head = bytes((0x81, size)) if size < 126 else b"\x81\x7e" + size.to_bytes(2, "big")
    return head + payload


async def reads(streams: int, burst: int) -> tuple[WebSocketLink, list[bytes], list[Request]]:
    """A link with so many turns on it, and reads of `burst` events for each of them."""
    stage, lanes, clients = Stage(), [], []
    for number in range(streams):
        request = Request()
        sink = TurnAnswer(cast(web.BaseRequest, request))
        body = b'{"model":"m","input":"%d","stream":true,"store":false}' % number
        asking = stage.driver.run(Inbound(_HEADERS, "", body), sink)
        clients.append((request, asyncio.ensure_future(asking)))
        for _ in range(8):
            await asyncio.sleep(0)
        lanes.append([payload for _, payload in stream_events(EVENTS // streams, stage.road.lane)])
    stage.hears([events[0] for events in lanes])
    link = WebSocketLink(stage.road.connection, stage.driver)
    websocket = WebSocket(mask_key=lambda: b"mask")
    stage.driver.link_opened = lambda *_: None  # type: ignore[method-assign]
    link.opened(cast(Any, Nowhere()), Accepted((), None, b""), websocket, b"")
    chunks = []
    for at in range(1, EVENTS // streams, burst):
        chunks.append(b"".join(framed(p) for events in lanes for p in events[at : at + burst]))
    return link, chunks, [request for request, _ in clients]


async def measured(streams: int, burst: int) -> float:
    """µs an event."""
    link, chunks, _ = await reads(streams, burst)
    gc.collect()
    gc.disable()
    least = float("inf")
    for at in range(0, len(chunks) - SLICE_READS, SLICE_READS):
        began = time.process_time()
        for chunk in chunks[at : at + SLICE_READS]:
            link.data_received(chunk)
        least = min(least, time.process_time() - began)
    gc.enable()
    return 1e6 * least / (SLICE_READS * streams * burst)


def figures(rounds: int) -> dict[str, list[float]]:
    """µs an event of each load, in as many rounds."""
    return {
        f"{streams} streams, {burst} events of each a read": [
            asyncio.run(measured(streams, burst)) for _ in range(rounds)
        ]
        for streams, burst in LOADS
    }


if __name__ == "__main__":
    for name, costs_us in figures(ROUNDS).items():
        print(f"{name}: {min(costs_us):.2f} µs an event")
