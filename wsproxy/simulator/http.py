"""HTTP/1.1 on one connection (h11): requests in turn, answers whole or in chunks."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final

import h11

from wsproxy.simulator.errors import ApiError
from wsproxy.simulator.frames import pretty
from wsproxy.simulator.log import Headers
from wsproxy.simulator.wire import GoneError, Wire

_MAX_HEAD_BYTES: Final = 64 * 1024  # the API reference's bound on all request headers
_MAX_DECODED_BYTES: Final = 512 * 1024 * 1024  # a test's zip bomb must not take the machine down
HeaderList = Sequence[tuple[str, str]]


class Exchange:
    """One request and its answer."""

    def __init__(self, connection: HttpConnection, head: h11.Request) -> None:
        self._connection = connection
        self.method = head.method.decode("ascii")
        self.target = head.target.decode("latin-1")
        self.path, _, self.query = self.target.partition("?")
        self.headers: Headers = list(head.headers.raw_items())
        self.received_bytes = 0
        self._is_chunked = False

    def header(self, name: str) -> str:
        """A request header, "" if absent, the last one if repeated."""
        wanted = name.lower().encode()
        found = [value for key, value in self.headers if key.lower() == wanted]
        return found[-1].decode("latin-1") if found else ""

    @property
    def is_gone(self) -> bool:
        """Has the client left?"""
        return self._connection.wire.is_gone

    async def chunks(self) -> AsyncIterator[bytes]:
        """The request body as it arrives."""
        while data := await self._connection.body_part():
            self.received_bytes += len(data)
            yield data

    async def body(self) -> bytes:
        """The whole request body, its content coding undone. Raises `ApiError`."""
        raw = b"".join([part async for part in self.chunks()])
        return _decoded(raw, self.header("content-encoding").lower())

    # -- answering -----------------------------------------------------------------------------

    def answer(self, status: int, body: bytes, headers: HeaderList = ()) -> None:
        """Answer in one piece; a HEAD, a 204 or a 304 gets no body."""
        fields = [*headers, ("content-length", str(len(body)))]
        if status in {204, 304}:
            fields, body = list(headers), b""
        events: list[h11.Event] = [h11.Response(status_code=status, headers=_raw(fields))]
        if body and self.method != "HEAD":
            events.append(h11.Data(data=body))
        self._connection.send(*events, h11.EndOfMessage())

    def answer_json(self, status: int, value: object, headers: HeaderList = ()) -> None:
        """Answer with a JSON document."""
        self.answer(status, pretty(value), [*headers, ("content-type", "application/json")])

    def refuse(self, error: ApiError, headers: HeaderList = ()) -> None:
        """Answer with the API's error body."""
        self.answer_json(error.status, error.body(), [*headers, *error.headers.items()])

    def start(self, status: int, headers: HeaderList) -> None:
        """Begin an answer in chunks."""
        self._connection.send(h11.Response(status_code=status, headers=_raw(headers)))

    async def write(self, data: bytes) -> None:
        """Send one chunk. Raises `GoneError`."""
        if self.is_gone:
            raise GoneError
        self._connection.send(h11.Data(data=data))
        await self._connection.wire.drain()

    def end(self) -> None:
        """Send the last chunk."""
        self._connection.send(h11.EndOfMessage())

    @property
    def wire(self) -> Wire:
        """The connection below, for faults."""
        return self._connection.wire


#: Handles one exchange; True if it took the connection over (an upgrade).
Handler = Callable[[Exchange, Callable[[], bytes]], Awaitable[bool]]


class HttpConnection:
    """Serves the requests of one connection, one after another."""

    def __init__(self, wire: Wire, handle: Handler) -> None:
        self.wire = wire
        self._handle = handle
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD_BYTES)

    async def serve(self) -> None:
        """Serve until either side closes; never raises."""
        try:
            while await self._serve_one():
                self._http.start_next_cycle()
        except h11.RemoteProtocolError as error:
            self._refuse_garbage(error)
        except (GoneError, h11.LocalProtocolError):
            pass
        self.wire.close()

    async def _serve_one(self) -> bool:
        event = await self._next()
        if not isinstance(event, h11.Request):
            return False
        if await self._handle(Exchange(self, event), lambda: self._http.trailing_data[0]):
            await self.wire.wait_closed()
            return False
        await self._skip_body()
        return self._http.our_state is h11.DONE and self._http.their_state is h11.DONE

    def _refuse_garbage(self, error: h11.RemoteProtocolError) -> None:
        if self._http.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            body = pretty(ApiError("Malformed HTTP request.").body())
            status = error.error_status_hint
            headers = _raw([("content-length", str(len(body))), ("connection", "close")])
            response = h11.Response(status_code=status, headers=headers)
            self.send(response, h11.Data(data=body), h11.EndOfMessage())

    async def _next(self) -> h11.Event | type[h11.PAUSED]:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            if self._http.they_are_waiting_for_100_continue:
                self.send(h11.InformationalResponse(status_code=100, headers=[]))
            self._http.receive_data(await self.wire.receive())
        return event  # type: ignore[return-value]

    async def body_part(self) -> bytes:
        """The next bytes of the request body, b"" at its end."""
        if self._http.their_state is not h11.SEND_BODY:
            return b""
        event = await self._next()
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    async def _skip_body(self) -> None:
        while await self.body_part():
            pass
        if self._http.their_state is h11.SEND_BODY:
            await self._next()

    def send(self, *events: h11.Event) -> None:
        """Write events as one piece."""
        parts = [self._http.send(event) or b"" for event in events]
        self.wire.write(b"".join(parts))


def _raw(headers: HeaderList) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def _decoded(raw: bytes, coding: str) -> bytes:
    try:
        if coding in {"", "identity"}:
            return raw
        if coding == "gzip":
            return gzip.decompress(raw)
        if coding == "deflate":
            return zlib.decompress(raw)
        if coding == "zstd":
            return _unzstd(raw)
    except (OSError, EOFError, zlib.error, ValueError):
        raise ApiError(f"The body is not valid {coding}.", status=400) from None
    raise ApiError(f"Unsupported content encoding: {coding}.", status=415)


def _unzstd(raw: bytes) -> bytes:
    try:
        import zstandard
    except ImportError:
        raise ApiError("Unsupported content encoding: zstd.", status=415) from None
    try:
        reader = zstandard.ZstdDecompressor().stream_reader(raw)
        return bytes(reader.read(_MAX_DECODED_BYTES))
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from None
