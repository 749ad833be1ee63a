"""aiohttp's low-level server: makes the connections, and judges each request before its handler."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage
from aiohttp.streams import StreamReader

from wsproxy.downstream.answers import TRY_AGAIN, RawAnswer, refusal
from wsproxy.downstream.guard import UNAUTHORIZED, URL_PREFIX, Guard, retarget
from wsproxy.downstream.intake import LINGER_S, Intake

#: Of one moment's excess so many are told 503; beyond these they are just closed.
_EXCESS_CONNECTIONS: Final = 64
#: A client that comes again and again is one line a second.
_REPORT_PAUSE_S: Final = 1.0

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
#: Told of facts worth a log line: a dotted name and fields that are safe to write.
Report = Callable[[str, dict[str, object]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """Bounds of the downstream side, defaults of faults.md §7."""

    max_connections: int = 512
    max_requests: int = 1_000  # in one connection's life
    max_line_bytes: int = 8_190
    max_field_bytes: int = 32_768
    max_fields: int = 100
    head_timeout_s: float = 10.0
    keepalive_timeout_s: float = 75.0


class Server(web.Server):
    """Makes an `Intake` for each connection and a request object for each request."""

    def __init__(
        self, handler: Handler, guard: Guard, limits: ConnectionLimits, report: Report
    ) -> None:
        super().__init__(
            self._judged,
            request_factory=self._make_judged_request,
            handler_cancellation=True,
            lingering_time=LINGER_S,
            keepalive_timeout=limits.keepalive_timeout_s,
            max_line_size=limits.max_line_bytes,
            max_field_size=limits.max_field_bytes,
            max_headers=limits.max_fields,
            auto_decompress=False,
            access_log=None,
            logger=_silent_logger(),
        )
        self.guard = guard
        self._handler = handler
        self._report = report
        self.limits = limits
        self.is_draining = False
        self.accepted_count = 0
        self.refused_count = 0
        self._next_report_at = 0.0
        self._emptied = asyncio.Event()
        self._emptied.set()

    def __call__(self) -> web.RequestHandler:
        return Intake(self, loop=self._loop, **self._kwargs)

    @property
    def is_full(self) -> bool:
        """True if a further connection is one too many."""
        return len(self._connections) >= self.limits.max_connections

    @property
    def is_overrun(self) -> bool:
        """True if there are too many even to be told so."""
        return len(self._connections) > self.limits.max_connections + _EXCESS_CONNECTIONS

    def refuses(self, connection: Intake) -> None:
        """This one is too many: it is told 503 if it asks for something, or closed at once."""
        self.refused_count += 1
        now = self._loop.time()
        if connection.is_scarce and now >= self._next_report_at:
            self._next_report_at = now + _REPORT_PAUSE_S
            fields: dict[str, object] = {"fault": "F46", "connections": len(self._connections)}
            self._report("descriptors.exhausted", fields)

    def drain(self) -> None:
        """Close idle connections; each other one ends with the answer it is waiting for."""
        self.is_draining = True
        for connection in self.connections:
            assert isinstance(connection, Intake)
            connection.end_when_idle()

    async def emptied(self) -> None:
        """Wait until no connection is left: every answer was taken, by the kernel at least."""
        await self._emptied.wait()

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """One more."""
        super().connection_made(handler, transport)
        self.accepted_count += 1
        self._emptied.clear()

    def connection_lost(
        self, handler: web.RequestHandler, exc: BaseException | None = None
    ) -> None:
        """One less, as soon as its handler has ended too."""
        task = handler._task_handler
        super().connection_lost(handler, exc)
        if task is None:
            self._look_if_empty()
        else:
            task.add_done_callback(self._look_if_empty)

    def _look_if_empty(self, _task: asyncio.Task[None] | None = None) -> None:
        if not self._connections:
            self._emptied.set()

    async def end(self, patience_s: float) -> None:
        """Cut every connection, those with a request under way after `patience_s`."""
        running = [each.task for each in self.connections if isinstance(each, Intake) and each.task]
        await self.shutdown(max(patience_s, 0.001))  # aiohttp reads 0 as "no limit"
        if running:
            await asyncio.wait(running, timeout=LINGER_S)

    def report_crash(self, exc: BaseException | None) -> None:
        """Tell of a bug of ours without the texts that exceptions carry."""
        self._report("downstream.crashed", {"error": type(exc).__name__, "at": _where(exc)})

    async def _judged(self, request: web.BaseRequest) -> web.StreamResponse:
        if isinstance(request.protocol, Intake):
            if request.protocol.is_scarce:
                return _too_few_descriptors()
            if request.protocol.is_excess:
                return _too_many_connections()
        refused = self.guard.judge(request)
        return refused if refused is not None else await self._handler(request)

    def _make_judged_request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        target = self.guard.strip_token(message.path)
        if target is not None and target is not message.path:
            message = retarget(message, target)
        if self._is_last(message, protocol):
            message = message._replace(should_close=True)
        request = web.Request(
            message, payload, protocol, writer, task, self._loop, client_max_size=0
        )
        request[UNAUTHORIZED] = target is None
        request[URL_PREFIX] = "/t/TOKEN" if self.guard.token is not None else ""
        return request

    def _is_last(self, message: RawRequestMessage, protocol: web.RequestHandler) -> bool:
        assert isinstance(protocol, Intake)
        protocol.taken_requests += 1
        is_worn = protocol.taken_requests >= self.limits.max_requests
        return self.is_draining or is_worn or message.upgrade


def _too_many_connections() -> RawAnswer:
    return refusal(
        503,
        "too_many_connections",
        "Too many connections to wsproxy; see the setting max_connections.",
        headers=TRY_AGAIN,
        is_last=True,
    )


def _too_few_descriptors() -> RawAnswer:
    return refusal(
        503,
        "proxy_overloaded",
        "wsproxy has hardly a file descriptor left; see its limit (ulimit -n, LimitNOFILE).",
        headers=TRY_AGAIN,
        is_last=True,
    )


def _silent_logger() -> logging.Logger:
    logger = logging.Logger("wsproxy.silent")
    logger.disabled = True
    return logger


def _where(exc: BaseException | None) -> str:
    trace = exc.__traceback__ if exc is not None else None
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return ""
    code = trace.tb_frame.f_code
    return f"{code.co_filename.rpartition('/')[2]}:{trace.tb_lineno} {code.co_name}"
