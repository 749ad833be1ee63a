"""An upstream that does nothing but emit: one event a stream and tick, frames made beforehand.

    python tests/benchmarks/event_source.py RATE

The simulator spends more on an event than the proxy does; this spends a few µs, so that a proxy
can be loaded with 20,000 events/s from the other core. No deflate, no rules, no chains.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import sys
from collections.abc import Callable
from typing import Any, Final, cast

import uvloop

GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3
DELTA: Final = {
    "type": "response.output_text.delta",
    "content_index": 0,
    "delta": "Hello world, this is",
    "item_id": "msg_0123456789abcdef0123456789abcdef",
    "logprobs": [],
    "obfuscation": "CsGoBBsuRWFDB",
    "output_index": 0,
}


class Source(asyncio.Protocol):
    """One connection: the upgrade, then one `response.create` after another."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._buffer = b""
        self._is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._is_open:
            self._upgrade()
        while self._is_open and (body := self._take_frame()) is not None:
            if body[:1] == b"{":
                self._start(json.loads(body))

    def _upgrade(self) -> None:
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        key = re.search(rb"(?i)sec-websocket-key: *(\S+)", head)
        if not end or key is None:
            return
        accept = base64.b64encode(hashlib.sha1(key[1] + GUID).digest())
        self._transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        self._buffer, self._is_open = rest, True

    def _take_frame(self) -> bytes | None:
        """The payload of one whole masked frame."""
        data = self._buffer
        size, start = (data[1] & 0x7F, 2) if len(data) > 1 else (0, 2)
        if size > 125:
            start = 4 if size == 126 else 10
            size = int.from_bytes(data[2:start], "big")
        if len(data) < start + 4 + size:
            return None
        mask, masked = data[start : start + 4], data[start + 4 : start + 4 + size]
        self._buffer = data[start + 4 + size :]
        return bytes(byte ^ mask[place % 4] for place, byte in enumerate(masked))

    def _start(self, create: dict[str, Any]) -> None:
        count = int(create["metadata"]["sim.text_tokens"])
        lane = {"stream_id": create["stream_id"]} if "stream_id" in create else {}
        response = {"id": "resp_1", "object": "response", "status": "completed", "output": []}
        loop = asyncio.get_running_loop()
        events: list[dict[str, Any]] = [
            {"type": "response.created", "response": response},
            *([DELTA] * count),
            {"type": "response.completed", "response": response},
        ]
        made = [
            frame({**event, "sequence_number": number, **lane})
            for number, event in enumerate(events)
        ]
        made.reverse()
        emit(loop, made, self._transport.write, loop.time(), self._interval_s)


def emit(
    loop: asyncio.AbstractEventLoop,
    made: list[bytes],
    write: Callable[[bytes], None],
    due: float,
    interval_s: float,
) -> None:
    """Write one frame now and the next at its own time."""
    write(made.pop())
    if made:
        due += interval_s
        loop.call_at(due, emit, loop, made, write, due, interval_s)


def frame(event: dict[str, Any]) -> bytes:
    """One unmasked text frame."""
    payload = json.dumps(event, separators=(",", ":")).encode()
    if len(payload) < 126:
        return bytes((0x81, len(payload))) + payload
    return b"\x81\x7e" + len(payload).to_bytes(2, "big") + payload


async def main(rate: float) -> None:
    """Serve on a free port until killed; prints the base URL."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Source(1 / rate), "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(float(sys.argv[1])))
