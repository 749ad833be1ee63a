"""A turn at the agent's side: its body in, its answer out."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final

from aiohttp import web

from wsproxy.answering import OverHttps, told_of_refusal
from wsproxy.downstream.answers import RawAnswer, mark_started, reset
from wsproxy.downstream.coding import (
    DEFAULT_LIMITS,
    PART_BYTES,
    Body,
    BodyError,
    BodyLimits,
    read_body,
)
from wsproxy.downstream.passthrough import relay, upstream_refusal
from wsproxy.downstream.room import Room, Share
from wsproxy.driver import Driver
from wsproxy.ports import Headers, Rest, RestError
from wsproxy.reading import Inbound

_LAST_CHUNK: Final = b"0\r\n\r\n"


class TurnAnswer:
    """A `ports.Sink` over one aiohttp request.

    Writes go straight to the transport: one write for what one upstream read brought, the head
    together with the first of them. A client that has left is told of by the handler's
    cancellation, so writing to it is no error here.
    """

    def __init__(self, request: web.BaseRequest) -> None:
        self._request = request
        self._transport = request.transport
        if self._transport is not None:
            # uvloop would keep what is written until all else is seen to; the first event must
            # not wait for what came behind it.
            self._transport.set_write_buffer_limits(high=0)
        self._unsent_head = b""
        self._written_bytes = 0
        self._is_chunked = False
        self.answer: RawAnswer | None = None

    @property
    def is_started(self) -> bool:
        """See `ports.Sink`."""
        return self.answer is not None

    def start(self, status: int, headers: Headers) -> None:
        """See `ports.Sink`."""
        self.answer = RawAnswer(status, headers)
        self._unsent_head = self.answer.begin(self._request)
        self._is_chunked = self.answer.is_chunked

    def write(self, data: bytes) -> int:
        """See `ports.Sink`."""
        transport = self._transport
        if not data or transport is None or transport.is_closing():
            return 0
        if self._is_chunked and not self._unsent_head:  # once an event: nothing else is asked
            chunk = b"%x\r\n%b\r\n" % (len(data), data)
            self._written_bytes += len(chunk)
            transport.write(chunk)
        else:
            self._send(self._started().framed(data))
        return transport.get_write_buffer_size()

    def finish(self, data: bytes) -> None:
        """See `ports.Sink`."""
        answer = self._started()
        answer.is_ended = True
        last = answer.framed(data) if data else b""
        self._send(last + _LAST_CHUNK if answer.is_framed else last)

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """See `ports.Sink`."""
        self.answer = RawAnswer(status, headers, body=body)
        self._unsent_head = self.answer.begin(self._request)
        self._send(b"")

    def abort(self) -> None:
        """See `ports.Sink`."""
        self._send(b"")
        if self._request.transport is not None:
            self._request.transport.close()

    def drop(self) -> None:
        """See `ports.Sink`."""
        if self._request.transport is not None:
            reset(self._request.transport)

    def buffered_bytes(self) -> int:
        """See `ports.Sink`."""
        transport = self._transport
        return transport.get_write_buffer_size() if transport is not None else 0

    def taken_bytes(self) -> int:
        """See `ports.Sink`."""
        return self._written_bytes - self.buffered_bytes()

    def _started(self) -> RawAnswer:
        assert self.answer is not None, "the head comes first"
        return self.answer

    def _send(self, wire: bytes) -> None:
        if self._unsent_head:
            wire, self._unsent_head = self._unsent_head + wire, b""
            mark_started(self._request)
        transport = self._request.transport
        if wire and transport is not None and not transport.is_closing():
            self._written_bytes += len(wire)
            transport.write(wire)


class Turns:
    """The handler of `POST <base>/responses`. `room` counts the bodies of all turns."""

    def __init__(
        self,
        driver: Driver,
        rest: Rest,
        limits: BodyLimits = DEFAULT_LIMITS,
        room: Room | None = None,
    ) -> None:
        self._driver = driver
        self._rest = rest
        self._limits = limits
        self._room = room if room is not None else Room()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one turn; cancelled when the client leaves."""
        with Share(self._room) as share:
            try:
                body = await read_body(request, limits=self._limits, share=share)
            except BodyError as error:
                return error.answer(told_of_refusal(error.code))
            return await self._answer(request, body)

    async def _answer(self, request: web.Request, body: Body) -> web.StreamResponse:
        query = "".join(request.raw_path.partition("?")[1:])
        sink = TurnAnswer(request)
        # No name for what goes in: it would hold the body as long as the turn runs.
        over_https = await self._driver.run(
            Inbound(request.raw_headers, query, body.decoded, body.let_go), sink
        )
        if over_https is not None:
            return await self._over_https(request, body, over_https)
        assert sink.answer is not None
        return sink.answer

    async def _over_https(
        self, request: web.Request, body: Body, turn: OverHttps
    ) -> web.StreamResponse:
        """The same request, its answer relayed verbatim."""
        headers = _sized(request, len(body.raw))
        upload = body.raw if len(body.raw) <= PART_BYTES else body.parts()
        try:
            response = await self._rest.send("POST", request.raw_path, headers, upload)
            try:
                heard = partial(self._driver.heard_over_https, turn)
                answer = await relay(request, response, beside=turn.headers, heard=heard)
            finally:
                response.close()
        except RestError as error:
            self._driver.ended_over_https(turn, error.status, error.code)
            return upstream_refusal(error, headers=turn.headers)
        except asyncio.CancelledError:
            self._driver.left_over_https(turn)
            raise
        except BaseException:  # whatever it is: a turn has one end, which the trace must know
            self._driver.ended_over_https(turn, None)
            raise
        self._driver.ended_over_https(turn, response.status if answer.is_ended else None)
        return answer


def _sized(request: web.Request, size: int) -> Headers:
    """The request's headers; a body that came in chunks has a length by now."""
    if request.content_length is not None:
        return request.raw_headers
    return [*request.raw_headers, (b"Content-Length", b"%d" % size)]
