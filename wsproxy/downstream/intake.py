"""One downstream connection: aiohttp's parser and writer, with the bounds that they lack.

Rules of this file
------------------
1. Every state of a connection has a deadline: head, keep-alive, half-close.
2. What a client sent is never repeated, neither in an answer nor in a log line.
3. After bytes that cannot be parsed the connection is over.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import LineTooLong
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestPayloadError

from wsproxy.downstream.answers import LAST, raw_refusal, refusal
from wsproxy.downstream.descriptors import RESERVE, left_above
from wsproxy.downstream.guard import MAX_HEAD_BYTES

if TYPE_CHECKING:
    from wsproxy.downstream.server import Server

#: A client that closed its sending side gets what we can say at once; then it counts as gone
#: (as with nginx and Go: FIN is all that TCP shows of a client that left).
HALF_CLOSE_GRACE_S: Final = 0.1
MAX_PIPELINED: Final = 8  # faults.md F40
#: Framing beyond the body's own bytes: one long chunk extension, or eight bytes a byte.
_MAX_CHUNK_OVERHEAD_BYTES: Final = 16_384
_CHUNK_OVERHEAD_PER_BYTE: Final = 8
#: How long a refused upload is still read, so that its client gets to see the refusal.
LINGER_S: Final = 2.0
_HEAD_END: Final = b"\r\n\r\n"


class Intake(web.RequestHandler):
    """One downstream connection."""

    __slots__ = (
        "_body_raw_bytes",
        "_early",
        "_head_bytes",
        "_head_timer",
        "_is_refused",
        "_open_body",
        "_server",
        "_tail",
        "is_excess",
        "is_scarce",
        "taken_requests",
    )

    def __init__(self, server: Server, **kwargs: Any) -> None:
        super().__init__(server, **kwargs)
        self._server = server
        self._max_msg_queue_size = MAX_PIPELINED
        self._msg_queue_resume_size = MAX_PIPELINED // 2
        self._open_body: StreamReader | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._tail = b""
        self._early = b""
        self._body_raw_bytes = 0
        self._is_refused = False
        self.is_excess = False
        self.is_scarce = False
        self.taken_requests = 0

    @property
    def task(self) -> asyncio.Task[None] | None:
        """What answers this connection's requests, one after another."""
        return self._task_handler

    @property
    def is_idle(self) -> bool:
        """True while no request is being answered."""
        return self._waiter is not None and not self._waiter.done() and not self._messages

    @property
    def _has_open_body(self) -> bool:
        return self._open_body is not None and not self._open_body.is_eof()

    def end_when_idle(self) -> None:
        """Close now, or with the answer that is under way."""
        if self.is_idle:
            self.force_close()
        elif self._current_request is not None:  # aiohttp's own `close` would cut an upload off
            self._current_request[LAST] = True

    # -- what asyncio tells us ------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        left = left_above(transport.get_extra_info("socket"))
        self.is_scarce = left is not None and left < 2 * RESERVE
        self.is_excess = self._server.is_full
        super().connection_made(transport)
        if self.is_scarce or self.is_excess:
            self._server.refuses(self)
        if self._server.is_overrun or (left is not None and left < RESERVE):
            self.force_close()

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        before, had_open_body = self._request_count, self._has_open_body
        super().data_received(data)
        if self.transport is None:
            return
        if self._request_count != before:
            self._head_arrived(data, is_alone=self._request_count == before + 1)
        elif had_open_body:
            self._body_arrived(data)
        elif data and not self._upgraded:
            self._head_grew(data)

    def eof_received(self) -> bool | None:  # type: ignore[override]
        if self._has_open_body and self._open_body is not None:
            self._open_body.set_exception(RequestPayloadError("the client left"))
        if self.is_idle:
            self.force_close()
            return None
        self._loop.call_later(HALF_CLOSE_GRACE_S, self._leave)
        return True

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_head_timer()
        super().connection_lost(exc)

    # -- what aiohttp asks us -------------------------------------------------------------

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """aiohttp's own page and log line repeat the offending bytes, a key among them."""
        if isinstance(exc, ConnectionError):
            raise exc  # the client left; aiohttp ends the connection without a word
        if request.writer.output_size > 0:
            self._server.report_crash(exc)
            raise ConnectionError("the answer had begun")
        if isinstance(exc, LineTooLong):
            return refusal(
                431, "headers_too_large", "A line of the head is too long.", is_last=True
            )
        if status == 400:
            return refusal(400, "invalid_http", "This is not valid HTTP/1.1.", is_last=True)
        self._server.report_crash(exc)
        return refusal(500, "internal_error", "wsproxy failed; its log says more.", is_last=True)

    # -- for the tunnel -------------------------------------------------------------------

    def take_early_bytes(self) -> bytes:
        """What came behind the head of an upgrade request; asked once, when it is accepted."""
        early = self._early or self._message_tail
        self._early = self._message_tail = b""
        return early

    # -- heads ----------------------------------------------------------------------------

    def _head_grew(self, data: bytes) -> None:
        self._head_bytes += len(data)
        self._tail = (self._tail + data)[-len(_HEAD_END) :]
        if self._head_timer is None:
            self._start_head_timer()
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(431, "headers_too_large", "The request head is over 64 KiB.")

    def _head_arrived(self, data: bytes, *, is_alone: bool) -> None:
        self._stop_head_timer()
        body, message = self._open_body, self._messages[-1][0]
        if not isinstance(message, RawRequestMessage):
            # aiohttp forgets the body that was being read when its framing breaks.
            if body is not None and not body.is_eof():
                body.set_exception(RequestPayloadError("invalid framing"))
            self._open_body = None
            return
        behind = self._behind_head(data) if is_alone else b""
        self._head_bytes, self._tail = 0, b""
        self._open_body = self._messages[-1][1]
        self._body_raw_bytes = len(behind)
        if message.upgrade and not self._upgraded and self._open_body.is_eof():
            self._early = behind  # aiohttp drops it: it knows only one protocol to switch to

    def _behind_head(self, data: bytes) -> bytes:
        seam = self._tail + data
        end = seam.find(_HEAD_END)
        return seam[end + len(_HEAD_END) :] if end >= 0 else b""

    def _start_head_timer(self) -> None:
        delay = self._server.limits.head_timeout_s
        self._head_timer = self._loop.call_later(delay, self._head_timed_out)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_timed_out(self) -> None:
        self._head_timer = None
        if self.is_idle:
            self._refuse(408, "request_timeout", "The request head did not arrive in time.")
        else:
            self._start_head_timer()

    # -- bodies and the end ---------------------------------------------------------------

    def _body_arrived(self, data: bytes) -> None:
        self._body_raw_bytes += len(data)
        if self._reading_paused or self._open_body is None:
            return  # part of it waits in the parser, uncounted
        body = self._open_body.total_bytes
        overhead = self._body_raw_bytes - body
        if overhead > _MAX_CHUNK_OVERHEAD_BYTES + _CHUNK_OVERHEAD_PER_BYTE * body:
            self._open_body.set_exception(RequestPayloadError("chunk extension too long"))

    def _refuse(self, status: int, code: str, message: str) -> None:
        if not self.is_idle or self.transport is None:
            self.force_close()
            return
        # What still comes is read and thrown away: closing on it would be a reset, and a reset
        # can overtake the refusal.
        self._is_refused = True
        self.transport.write(raw_refusal(status, code, message))
        self.transport.write_eof()
        self._loop.call_later(LINGER_S, self.force_close)

    def _leave(self) -> None:
        transport = self.transport
        if transport is None:
            return
        if self._current_request is not None:
            transport.abort()
        else:
            transport.close()
