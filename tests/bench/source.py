"""A light upstream: what it says is made before it is said, so that any proxy is the slower part.

    python -m tests.bench.source [--deflate] [--tls PEM]

Speaks SSE over HTTP/1.1 and frames over a WebSocket, on one port. A request says in its
`metadata.bench` what it orders:

    emit/NUMBER/STREAMS/RATE/COUNT/PACE   begin when STREAMS such orders are there; each stream
                                          gets COUNT deltas of about 250 bytes, RATE a second,
                                          PACE says when: `spread` or `step` (see pace.py)
    reply/KIND                            everything at once; KIND is `text`, or `call-N` for a
                                          tool call

`GET /bench/sent`: stream → nanoseconds (CLOCK_MONOTONIC) at which each event was written.
`GET /bench/received`: bytes and connections since the last time it was asked.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import json
import os
import re
import ssl
import zlib
from collections.abc import Iterator
from typing import Any, Final, cast

import uvloop

from tests.bench.pace import Framing, Pace, Waiting
from wsproxy.core.wire.frames import mask

GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3
_ORDER: Final = re.compile(rb'"bench": *"([a-z0-9/-]+)"')
_LANE: Final = re.compile(rb'"stream_id":"([^"]*)"')
_LENGTH: Final = re.compile(rb"(?i)\r\ncontent-length: *([0-9]+)")
_KEY: Final = re.compile(rb"(?i)\r\nsec-websocket-key: *(\S+)")
_SSE_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
_DELTA: Final = (
    b'{"type":"response.output_text.delta","content_index":0,"delta":"%b",'
    b'"item_id":"msg_0123456789abcdef0123456789abcdef","logprobs":[],'
    b'"obfuscation":"%b","output_index":0,"sequence_number":%d%b}'
)


# ── What is said ─────────────────────────────────────────────────────────────────────────────


def reply_items(kind: str) -> list[dict[str, Any]]:
    """The output of a reply, the same for the same kind: a client can echo it unseen."""
    if kind == "text":
        content = [{"type": "output_text", "text": "Done as you said.", "annotations": []}]
        return [
            {"type": "message", "id": "msg_bench", "status": "completed", "role": "assistant"}
            | {"content": content}
        ]
    number = kind.partition("-")[2]
    blob = hashlib.sha512(number.encode()).hexdigest() * 4
    arguments = json.dumps({"path": f"src/part_{number}.py", "patch": blob[:300]})
    return [
        {"type": "reasoning", "id": f"rs_{number}", "summary": [], "encrypted_content": blob},
        {"type": "function_call", "id": f"fc_{number}", "status": "completed"}
        | {"call_id": f"call_{number}", "name": "tool_0", "arguments": arguments},
    ]


def _event(event: dict[str, Any], number: int, lane: bytes) -> tuple[str, bytes]:
    made = json.dumps({**event, "sequence_number": number}, separators=(",", ":")).encode()
    return event["type"], made[:-1] + lane + b"}"


def _ends(output: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    id_ = "resp_" + os.urandom(12).hex()
    usage = {"input_tokens": 1000, "output_tokens": 20, "total_tokens": 1020}
    response = {"id": id_, "object": "response", "model": "bench", "output": []}
    done = {**response, "status": "completed", "output": output, "usage": usage}
    return (
        {"type": "response.created", "response": {**response, "status": "in_progress"}},
        {"type": "response.completed", "response": done},
    )


def reply_events(kind: str, lane: bytes) -> Iterator[tuple[str, bytes]]:
    """A short answer, whole."""
    output = reply_items(kind)
    created, completed = _ends(output)
    yield _event(created, 0, lane)
    for index, item in enumerate(output):
        done = {"type": "response.output_item.done", "output_index": index, "item": item}
        yield _event(done, 1 + index, lane)
    yield _event(completed, 1 + len(output), lane)


def stream_events(count: int, lane: bytes) -> Iterator[tuple[str, bytes]]:
    """`count` deltas between a beginning and an end."""
    created, completed = _ends([])
    yield _event(created, 0, lane)
    for number in range(1, count + 1):
        seed = b"%016x" % (number * 0x9E3779B97F4A7C15 % (1 << 64))
        yield "response.output_text.delta", _DELTA % (seed[:9], seed, number, lane)
    yield _event(completed, count + 1, lane)


def sse_chunk(type_: str, payload: bytes) -> bytes:
    """One event as a chunk of an SSE answer."""
    event = b"event: %b\ndata: %b\n\n" % (type_.encode(), payload)
    return b"%x\r\n%b\r\n" % (len(event), event)


# ── Connections ──────────────────────────────────────────────────────────────────────────────


class Counters:
    """What has come in since it was last asked."""

    received_bytes = 0
    connections = 0

    def take(self) -> dict[str, int]:
        """The figures, which begin anew."""
        taken = {"bytes": self.received_bytes, "connections": self.connections}
        self.received_bytes = self.connections = 0
        return taken


class Connection(asyncio.Protocol):
    """HTTP until an upgrade, frames after it."""

    def __init__(self, pace: Pace, counters: Counters, *, has_deflate: bool) -> None:
        self._pace = pace
        self._counters = counters
        self._has_deflate = has_deflate
        self._buffer = bytearray()
        self._is_websocket = False
        self._inflater = zlib.decompressobj(-15)
        self._deflater = zlib.compressobj(1, zlib.DEFLATED, -15)
        self._is_compressed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client came."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._is_counted = False

    def data_received(self, data: bytes) -> None:
        """Take every whole request or frame."""
        if not self._is_counted and not data.startswith(b"GET /bench/"):
            self._is_counted = True
            self._counters.connections += 1
        if self._is_counted:
            self._counters.received_bytes += len(data)
        self._buffer += data
        while self._take_frame() if self._is_websocket else self._take_request():
            pass

    def _take_request(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n") + 4
        if end < 4:
            return False
        head = bytes(self._buffer[:end])
        length = _LENGTH.search(head)
        stop = end + (int(length[1]) if length else 0)
        if len(self._buffer) < stop:
            return False
        body = bytes(self._buffer[end:stop])
        del self._buffer[:stop]
        if key := _KEY.search(head):
            self._upgrade(key[1], head)
        elif head.startswith(b"GET "):
            self._tell(head.split(b" ", 2)[1])
        else:
            self._transport.write(_SSE_HEAD)
            self._answer(body, b"", sse_chunk, b"0\r\n\r\n")
        return True

    def _tell(self, path: bytes) -> None:
        told: object = self._pace.sent if path == b"/bench/sent" else self._counters.take()
        body = json.dumps(told).encode()
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    def _upgrade(self, key: bytes, head: bytes) -> None:
        self._is_websocket = True
        self._is_compressed = self._has_deflate and b"permessage-deflate" in head
        extension = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
        self._transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            + (extension if self._is_compressed else b"")
            + b"Sec-WebSocket-Accept: "
            + base64.b64encode(hashlib.sha1(key + GUID).digest())
            + b"\r\n\r\n"
        )

    def _take_frame(self) -> bool:
        buffer = self._buffer
        if len(buffer) < 2:
            return False
        size, start = buffer[1] & 0x7F, 2
        if size > 125:
            start = 4 if size == 126 else 10
            size = int.from_bytes(buffer[2:start], "big")
        stop = start + 4 + size
        if len(buffer) < max(stop, start + 4):
            return False
        first, key = buffer[0], bytes(buffer[start : start + 4])
        payload = bytes(mask(bytes(buffer[start + 4 : stop]), key))
        del buffer[:stop]
        if first & 0x0F == 1:
            self._said(payload, is_compressed=bool(first & 0x40))
        elif first & 0x0F == 9:
            self._transport.write(bytes((0x8A, len(payload))) + payload)
        elif first & 0x0F == 8:
            self._transport.close()
        return True

    def _said(self, payload: bytes, *, is_compressed: bool) -> None:
        if is_compressed:
            payload = self._inflater.decompress(payload + b"\x00\x00\xff\xff")
        found = _LANE.search(payload, 0, 200)
        lane = b',"stream_id":"' + found[1] + b'"' if found else b""
        self._answer(payload, lane, self._frame, b"")

    def _answer(self, body: bytes, lane: bytes, framing: Framing, last: bytes) -> None:
        order = _ORDER.search(body)
        kind, *numbers = order[1].decode().split("/") if order else ("reply", "text")
        if kind == "emit":
            *counts, step = numbers
            number, streams, rate, count = map(int, counts)
            events = stream_events(count, lane)
            write = self._transport.write
            waiting = Waiting(number, rate, step == "step", events, framing, write, last)
            self._pace.join(waiting, streams)
        else:
            said = [framing(*event) for event in reply_events(numbers[0], lane)]
            self._transport.write(b"".join(said) + last)

    def _frame(self, _type: str, payload: bytes) -> bytes:
        first = 0x81
        if self._is_compressed:
            deflated = self._deflater.compress(payload) + self._deflater.flush(zlib.Z_SYNC_FLUSH)
            first, payload = 0xC1, deflated[:-4]
        size = len(payload)
        if size < 126:
            return bytes((first, size)) + payload
        if size < 1 << 16:
            return bytes((first, 126)) + size.to_bytes(2, "big") + payload
        return bytes((first, 127)) + size.to_bytes(8, "big") + payload


def tls_context(pem: str) -> ssl.SSLContext:
    """A server's, from a file that has its key and its certificates."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem)
    return context


async def main(arguments: argparse.Namespace) -> None:
    """Serve on a free port until killed; prints the base URL."""
    pace, counters = Pace(), Counters()
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(pace, counters, has_deflate=arguments.deflate),
        "127.0.0.1",
        0,
        ssl=tls_context(arguments.tls) if arguments.tls else None,
    )
    scheme = "https" if arguments.tls else "http"
    print(f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--deflate", action="store_true", help="accept permessage-deflate")
    parser.add_argument("--tls", metavar="PEM", help="key and certificates: serve over TLS")
    uvloop.run(main(parser.parse_args()))
