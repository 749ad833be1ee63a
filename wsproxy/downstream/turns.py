"""A turn at the agent's side: its body in, its answer out."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from wsproxy.downstream.answers import RawAnswer, mark_started, reset
from wsproxy.downstream.coding import DEFAULT_LIMITS, BodyError, BodyLimits, read_body
from wsproxy.downstream.passthrough import relay, upstream_refusal
from wsproxy.driver import Driver, Inbound, OverHttps, told_of_refusal
from wsproxy.ports import Headers, Rest, RestError

_LAST_CHUNK: Final = b"0\r\n\r\n"


class TurnAnswer:
    """A `ports.Sink` over one aiohttp request.

    Writes go straight to the transport: one write for what one upstream read brought, the head
    together with the first of them. A client that has left is told of by the handler's
    cancellation, so writing to it is no error here.
    """

    def __init__(self, request: web.BaseRequest) -> None:
        self._request = request
        self._unsent_head = b""
        self.answer: RawAnswer | None = None

    @property
    def is_started(self) -> bool:
        """See `ports.Sink`."""
        return self.answer is not None

    def start(self, status: int, headers: Headers) -> None:
        """See `ports.Sink`."""
        self.answer = RawAnswer(status, headers)
        self._unsent_head = self.answer.begin(self._request)

    def write(self, data: bytes) -> None:
        """See `ports.Sink`."""
        if data:
            assert self.answer is not None, "the head comes first"
            self._send(self.answer.framed(data))

    def finish(self) -> None:
        """See `ports.Sink`."""
        answer = self._started()
        answer.is_ended = True
        self._send(_LAST_CHUNK if answer.is_framed else b"")

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
        transport = self._request.transport
        return transport.get_write_buffer_size() if transport is not None else 0

    def _started(self) -> RawAnswer:
        assert self.answer is not None, "the head comes first"
        return self.answer

    def _send(self, wire: bytes) -> None:
        if self._unsent_head:
            wire, self._unsent_head = self._unsent_head + wire, b""
            mark_started(self._request)
        transport = self._request.transport
        if wire and transport is not None and not transport.is_closing():
            transport.write(wire)


class Turns:
    """The handler of `POST <base>/responses`."""

    def __init__(self, driver: Driver, rest: Rest, limits: BodyLimits = DEFAULT_LIMITS) -> None:
        self._driver = driver
        self._rest = rest
        self._limits = limits

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one turn; cancelled when the client leaves."""
        try:
            body = await read_body(request, limits=self._limits)
        except BodyError as error:
            return error.answer(told_of_refusal(error.code))
        query = request.raw_path.partition("?")[1:]
        inbound = Inbound(request.raw_headers, "".join(query), body.decoded)
        sink = TurnAnswer(request)
        over_https = await self._driver.run(inbound, sink)
        if over_https is not None:
            return await self._over_https(request, body.raw, over_https)
        assert sink.answer is not None
        return sink.answer

    async def _over_https(
        self, request: web.Request, body: bytes, turn: OverHttps
    ) -> web.StreamResponse:
        """The same request, its answer relayed verbatim."""
        status: int | None = None
        try:
            response = await self._rest.send("POST", request.raw_path, request.raw_headers, body)
            try:
                answer = await relay(request, response, beside=turn.headers)
                status = response.status
                return answer
            finally:
                response.close()
        except RestError as error:
            status = error.status
            return upstream_refusal(error, headers=turn.headers)
        finally:
            self._driver.ended_over_https(turn, status)
