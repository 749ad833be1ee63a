"""Answers as they go onto the downstream wire: heads byte for byte, and refusals of our own.

aiohttp's own responses add `Content-Type`, `Date` and `Server`; a transparent proxy must not.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import sys
from collections.abc import Iterable
from contextlib import suppress
from http import HTTPStatus
from typing import Final

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from wsproxy.ports import Headers

#: CORS headers of an allowed origin, put there by the guard for whoever writes the answer.
CORS: Final = web.RequestKey("CORS", tuple)  # tuple[tuple[bytes, bytes], ...]

#: Beside a 503 of our own: the SDKs wait so long, and ask again.
TRY_AGAIN: Final = ((b"Retry-After", b"1"), (b"x-should-retry", b"true"))

#: Set by the server where the connection ends with this answer, though nobody asked for it.
LAST: Final = web.RequestKey("LAST", bool)

_ERROR_TYPES: Final = {401: "authentication_error", 403: "permission_error"}
_OWN_FRAMING: Final = frozenset({b"transfer-encoding", b"connection", b"keep-alive"})
_LINGER_NOT: Final = ("hh" if sys.platform == "win32" else "ii", 1, 0)
_GRANTS: Final = frozenset(
    {
        b"access-control-allow-origin",
        b"access-control-allow-credentials",
        b"access-control-expose-headers",
    }
)
#: Statuses without a body whatever their headers say (RFC 9112 §6.3).
_BODILESS: Final = frozenset({204, 304})


class ClientLeftError(ConnectionError):
    """The client's connection is gone; there is nobody to answer."""


class RawAnswer(web.StreamResponse):
    """An answer whose head is written exactly as given; only its framing is ours.

    `headers` are raw end-to-end fields. With `body` the whole answer is known: it gets a
    Content-Length and leaves in one write. Without it, call `prepare`, `write` and `write_eof`;
    a `Content-Length` among the headers is kept, else the body is chunked (closed at its end
    for an HTTP/1.0 client).
    """

    def __init__(
        self,
        status: int,
        headers: Headers,
        *,
        reason: str | None = None,
        body: bytes | None = None,
    ) -> None:
        super().__init__(status=status)
        self._fields = [field for field in headers if field[0].lower() not in _OWN_FRAMING]
        self._phrase = _phrase(status) if reason is None else reason
        self._whole = body
        self._request: web.BaseRequest | None = None
        self._is_bodiless = False
        self.is_chunked = False
        self._unsent: int | None = None
        self.is_ended = False

    @property
    def prepared(self) -> bool:
        """True once the head has been written."""
        return self._request is not None

    @property
    def keep_alive(self) -> bool | None:
        """Whether the connection outlives it, asked again at its end."""
        return self._keep_alive and not (self._request is not None and self._request.get(LAST))

    @property
    def is_framed(self) -> bool:
        """True if the client can tell a cut body from a whole one."""
        return self.is_chunked or self._unsent is not None

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Write the head, with the body if that is known. Raises `ClientLeftError`."""
        if self._request is None:
            self._send(self.begin(request))
        return None

    def begin(self, request: web.BaseRequest) -> bytes:
        """Settle the framing; the head, with the body if that is known, for the caller to send."""
        self._request = request
        self._is_bodiless = request.method == "HEAD" or self.status in _BODILESS
        self._choose_framing(request)
        return self._head(request) + self._known_body()

    def framed(self, data: bytes) -> bytes:
        """A part of the body as it goes onto the wire."""
        return b"%x\r\n%b\r\n" % (len(data), data) if self.is_chunked else data

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write a part of the body and wait until the client keeps up.

        Raises `ClientLeftError`, and `ValueError` past the announced Content-Length.
        """
        if not data or self._is_bodiless:
            return
        if self._unsent is not None:
            if len(data) > self._unsent:
                raise ValueError("more body than Content-Length announced")
            self._unsent -= len(data)
        if self.is_chunked:
            self._send(b"%x\r\n%b\r\n" % (len(data), bytes(data)))
        else:
            self._send(bytes(data))
        assert self._request is not None
        await self._request.writer.drain()

    async def write_eof(self, data: bytes = b"") -> None:
        """End the body; an announced Content-Length must have been filled."""
        if self.is_ended:
            return
        await self.write(data)
        if self.is_chunked:
            self._send(b"0\r\n\r\n")
        elif self._unsent and not self._is_bodiless:
            raise ClientLeftError("body ended before its Content-Length")
        self.is_ended = True

    def _choose_framing(self, request: web.BaseRequest) -> None:
        if self._whole is not None and self.status not in _BODILESS:
            self._fields = [f for f in self._fields if f[0].lower() != b"content-length"]
            self._fields.append((b"Content-Length", b"%d" % len(self._whole)))
        self._unsent = _announced_length(self._fields)
        can_chunk = request.version >= (1, 1)
        self.is_chunked = self._unsent is None and not self._is_bodiless and can_chunk
        is_delimited = self._is_bodiless or self.is_framed
        is_kept = request.keep_alive and not request.get(LAST)
        self._keep_alive = self._keep_alive is not False and is_kept and is_delimited

    def _head(self, request: web.BaseRequest) -> bytes:
        lines = [b"HTTP/1.1 %d %b" % (self.status, self._phrase.encode("utf-8", "surrogateescape"))]
        lines += [b"%b: %b" % field for field in self._granted(request)]
        if self.is_chunked:
            lines.append(b"Transfer-Encoding: chunked")
        if not self._keep_alive:
            lines.append(b"Connection: close")
        elif request.version < (1, 1):
            lines.append(b"Connection: keep-alive")
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def _granted(self, request: web.BaseRequest) -> list[tuple[bytes, bytes]]:
        granted = request.get(CORS)
        if granted is None:
            return self._fields
        # What a page may do here is for our settings to say, not for upstream.
        own = [field for field in self._fields if field[0].lower() not in _GRANTS]
        return [*own, *granted]

    def _known_body(self) -> bytes:
        if self._whole is None or self._is_bodiless:
            return b""
        self._unsent = 0
        return self._whole

    def _send(self, data: bytes) -> None:
        assert self._request is not None
        transport = self._request.transport
        if transport is None or transport.is_closing():
            raise ClientLeftError("client left")
        mark_started(self._request)
        transport.write(data)


class SentAnswer(web.StreamResponse):
    """Stands for an answer that was written past aiohttp; the connection ends with it."""

    def __init__(self, status: int, *, keep_alive: bool = False) -> None:
        super().__init__(status=status)
        self._keep_alive = keep_alive

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Nothing is left to write."""
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to write."""


def mark_started(request: web.BaseRequest) -> None:
    """Note that bytes of the answer left past aiohttp's writer, so that no error page follows."""
    request.writer.output_size += 1


async def send_continue(request: web.BaseRequest) -> None:
    """Answer `Expect: 100-continue`; call once, right before reading (RFC 9110 §10.1.1)."""
    transport = request.transport
    expects = request.headers.get("Expect", "").lower() == "100-continue"
    if expects and request.version >= (1, 1) and transport is not None:
        transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


async def cut(request: web.BaseRequest, *, is_framed: bool) -> None:
    """Break an answer off so that the client cannot take it for whole.

    Where neither chunks nor a length frame the body, only a reset tells: FIN would look like
    its end.
    """
    transport = request.transport
    if transport is None:
        return
    if is_framed:
        transport.abort()
    else:
        reset(transport)


def reset(transport: asyncio.Transport) -> None:
    """Cut at once, by RST: else the kernel goes on offering what it holds to a client that takes
    nothing."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with suppress(OSError):  # it is closed already
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack(*_LINGER_NOT))
    transport.abort()


def error_body(status: int, code: str, message: str) -> bytes:
    """The OpenAI error object as JSON."""
    kind = _ERROR_TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    error = {"message": message, "type": kind, "param": None, "code": code}
    return json.dumps({"error": error}, ensure_ascii=False).encode()


def refusal(
    status: int,
    code: str,
    message: str,
    *,
    headers: Iterable[tuple[bytes, bytes]] = (),
    outcome: str | None = None,
    is_last: bool = False,
) -> RawAnswer:
    """A refusal of ours: OpenAI error body, `x-wsproxy-outcome` if given.

    `is_last` closes the connection after it.
    """
    fields = [(b"Content-Type", b"application/json"), *headers]
    if outcome is not None:
        fields.append((b"x-wsproxy-outcome", outcome.encode()))
    answer = RawAnswer(status, fields, body=error_body(status, code, message))
    if is_last:
        answer.force_close()
    return answer


def raw_refusal(status: int, code: str, message: str) -> bytes:
    """A whole refusal as bytes, for a connection without a request; it is to be closed."""
    body = error_body(status, code, message)
    head = f"HTTP/1.1 {status} {_phrase(status)}\r\nContent-Type: application/json\r\n"
    return head.encode() + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body


def _announced_length(fields: Headers) -> int | None:
    for name, value in fields:
        if name.lower() == b"content-length" and value.isdigit():
            return int(value)
    return None


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
