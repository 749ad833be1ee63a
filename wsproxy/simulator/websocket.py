"""One WebSocket at `<base>/responses`: frames in, lanes, events out.

Reading never waits for a turn: every turn is a task of its own, and all of them die with the
connection, which is the only cancel the protocol has (protocol.md §8).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    Pong,
    Request,
    TextMessage,
)
from wsproto.extensions import PerMessageDeflate
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from wsproxy.simulator.costs import PromptCache
from wsproxy.simulator.errors import (
    ApiError,
    named_error,
    unknown_parameter,
)
from wsproxy.simulator.frames import error_frame, frame, text_frame
from wsproxy.simulator.lanes import DEFAULT_LANE, Lanes
from wsproxy.simulator.log import Closed, Headers
from wsproxy.simulator.noise import handshake_headers
from wsproxy.simulator.outlet import FrameOutlet
from wsproxy.simulator.outputs import Event
from wsproxy.simulator.request import parse_object
from wsproxy.simulator.store import Kept
from wsproxy.simulator.turns import Caller, Turn, Turns
from wsproxy.simulator.wire import GoneError, Wire

_STREAM_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,256}")
_CLOSE_WAIT_S: Final = 1.0  # for the peer's answer to our close frame


@dataclass(frozen=True, slots=True)
class Work:
    """A create that waits for its lane."""

    fields: dict[str, Any]
    size: int
    wire_size: int


class WebSocketConnection:
    """Serves one upgraded connection to its end."""

    def __init__(self, wire: Wire, turns: Turns, connection: int, owner: str) -> None:
        self._wire = wire
        self._turns = turns
        self._rules = turns.rules
        self._id = connection
        self._owner = owner
        self._ws = WSConnection(ConnectionType.SERVER)
        in_flight = self._rules.max_in_flight if self._rules.lanes == "on" else 1
        self._lanes: Lanes[Work, Kept] = Lanes(in_flight, self._rules.max_lanes)
        self._cache = PromptCache()
        self._tasks: set[asyncio.Task[None]] = set()
        self._message: list[str] = []
        self._message_bytes = 0
        self._wire_bytes = 0  # since the last whole message
        self._next_number = 0  # where numbers run per connection
        self._close_code = 1006
        self._is_open = False
        self._is_deflated = False
        self._closed_by = "peer"

    async def serve(self, target: bytes, headers: Headers, early: bytes) -> None:
        """Accept the upgrade and serve until the connection is over; `early`: bytes after it."""
        if not self._accept(target, headers):
            return
        timers = self._timers()
        try:
            while data := early or await self._wire.receive():
                early = b""
                if not self._feed(data):
                    break
        finally:
            for timer in timers:
                timer.cancel()
            await self._end_turns()
            self._wire.close()
            closed = Closed(self._turns.now(), self._id, "ws", self._close_code, self._closed_by)
            self._turns.log.note(closed)

    def _accept(self, target: bytes, headers: Headers) -> bool:
        try:
            self._ws.initiate_upgrade_connection(list(headers), target.decode("latin-1"))
        except RemoteProtocolError:
            self._wire.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
            self._wire.close()
            return False
        extensions = [PerMessageDeflate()] if self._rules.deflate else []
        for event in self._ws.events():
            if isinstance(event, Request):
                extra = handshake_headers(self._id) if self._rules.noise else []
                accept = AcceptConnection(extensions=list(extensions), extra_headers=extra)
                self._wire.write(self._ws.send(accept))
                self._is_open = True
                self._is_deflated = any(each.enabled() for each in extensions)
                return True
        return False

    def _timers(self) -> list[asyncio.TimerHandle | asyncio.Task[None]]:
        loop = asyncio.get_running_loop()
        timers: list[asyncio.TimerHandle | asyncio.Task[None]] = []
        timers.append(loop.call_later(self._rules.connection_life_s, self._expire))
        if self._rules.ping_interval_s:
            timers.append(loop.create_task(self._ping()))
        return timers

    def _expire(self) -> None:
        error = named_error("websocket_connection_limit_reached")
        self.write_error(error, DEFAULT_LANE)
        self.close(1000)

    async def _ping(self) -> None:
        while self._is_open:
            await asyncio.sleep(self._rules.ping_interval_s)
            self.write_event(Ping(payload=b"sim"))

    # -- reading -------------------------------------------------------------------------------

    def _feed(self, data: bytes) -> bool:
        """Handle what one read brought; False when the connection is over."""
        self._wire_bytes += len(data)
        try:
            self._ws.receive_data(data)
            for event in self._ws.events():
                if not self._handle(event):
                    return False
        except RemoteProtocolError:
            self.close(1002)
            return False
        return True

    def _handle(self, event: object) -> bool:
        if isinstance(event, TextMessage):
            return self._collect(event)
        if isinstance(event, Ping):
            if self._rules.answer_pings:
                self.write_event(event.response())
        elif isinstance(event, BytesMessage):
            self.close(1003)
            return False
        elif isinstance(event, CloseConnection):
            self._close_code = event.code
            if self._is_open:
                self.write_event(event.response())
            self._is_open = False
            return False
        elif not isinstance(event, Pong):
            return False
        return True

    def _collect(self, event: TextMessage) -> bool:
        self._message.append(event.data)
        self._message_bytes += len(event.data.encode())
        if self._message_bytes > self._rules.max_message_bytes:
            self.close(1009)
            return True  # read on until the peer's close, or its rest would become a reset
        if event.message_finished and self._is_open:
            text, size = "".join(self._message), self._message_bytes
            self._message, self._message_bytes = [], 0
            wire_size, self._wire_bytes = self._wire_bytes, 0
            self._receive(text.encode(), size, wire_size)
        return True

    def _receive(self, raw: bytes, size: int, wire_size: int) -> None:
        """One whole text message."""
        try:
            fields = parse_object(raw)
            lane = self._lane_of(fields)
        except ApiError as error:
            self._refuse(error, DEFAULT_LANE, {})
            return
        try:
            self._admit(Work(fields, size, wire_size), lane)
        except ApiError as error:
            self._refuse(error, lane, fields)

    def _refuse(self, error: ApiError, lane: str, fields: dict[str, Any]) -> None:
        self._turns.note_refusal(fields, self._caller(lane), error)
        self.write_error(error, lane)

    def _lane_of(self, fields: dict[str, Any]) -> str:
        name = fields.get("stream_id", DEFAULT_LANE)
        if "stream_id" not in fields or self._rules.lanes == "ignored":
            return DEFAULT_LANE
        if self._rules.lanes == "refused":
            raise unknown_parameter("stream_id")
        if not isinstance(name, str) or _STREAM_ID.fullmatch(name) is None:
            raise ApiError(
                "The 'stream_id' field must be a non-empty string with at most 256 characters and "
                "may only contain letters, numbers, underscores, hyphens, and periods.",
                code="invalid_stream_id",
                param="stream_id",
            )
        return name

    def _admit(self, work: Work, lane: str) -> None:
        fields = work.fields
        kind = fields.get("type")
        if kind in _UNSUPPORTED:
            self.write_text(frame(_UNSUPPORTED[kind](fields), DEFAULT_LANE, self._rules))
            return
        if kind != "response.create":
            raise ApiError(f"Unknown event type: {kind!r}.", code="invalid_value", param="type")
        self._turns.note_create(fields, work.size, work.wire_size, self._caller(lane))
        self._lanes.name(lane)
        self._start(self._lanes.push(lane, work))

    def _caller(self, lane: str) -> Caller:
        return Caller(self._owner, self._id, "ws", self._lanes.find, self._cache, lane)

    # -- turns ---------------------------------------------------------------------------------

    def _start(self, ready: list[tuple[str, Work]]) -> None:
        for lane, work in ready:
            self._spawn(self._run(lane, work))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.close(1011, "the simulator is broken")
            task.get_loop().call_exception_handler(
                {"message": "a simulated turn broke", "exception": task.exception()}
            )

    async def _run(self, lane: str, work: Work) -> None:
        outlet = FrameOutlet(self, lane, noise=self._rules.noise)
        try:
            await self._turns.arrival(work.wire_size)
            turn = self._prepared(work, lane)
            turn.on_commit = lambda kept: self._remember(lane, turn, kept)
            await self._turns.tell(turn, outlet)
        except ApiError as error:
            self._lanes.evict(lane, work.fields.get("previous_response_id"))
            self._refuse(error, lane, work.fields)
        except GoneError:
            return
        self._start(self._lanes.finish(lane))

    def _prepared(self, work: Work, lane: str) -> Turn:
        if self._rules.strict_fields:
            for name in ("stream", "background"):
                if name in work.fields:
                    raise unknown_parameter(name)
        return self._turns.prepare(work.fields, work.size, self._caller(lane))

    def _remember(self, lane: str, turn: Turn, kept: Kept | None) -> None:
        if kept is not None:
            self._lanes.remember(lane, turn.reply.response_id, kept)
        else:
            self._lanes.forget(lane)

    async def _end_turns(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- writing -------------------------------------------------------------------------------

    def number(self, own: int) -> int:
        """The sequence number of an event that is its response's `own`-th."""
        if not self._rules.sequence_per_connection:
            return own
        self._next_number += 1
        return self._next_number - 1

    def write_frame(self, event: Event, lane: str) -> None:
        """Tell one event on a lane."""
        self.write_text(frame(event, lane, self._rules))

    def write_error(self, error: ApiError, lane: str) -> None:
        """Tell a refusal on a lane, or of the connection."""
        self.write_text(error_frame(error, lane, self._rules))

    def write_text(self, payload: bytes) -> None:
        """Send one text message."""
        if not self._is_open:
            return
        if self._is_deflated:
            self._wire.write(self._ws.send(TextMessage(data=payload.decode())))
        else:
            self._wire.write(text_frame(payload))  # 15 µs less than wsproto's way

    def write_event(self, event: Any) -> None:
        """Send a control frame or a binary message."""
        try:
            self._wire.write(self._ws.send(event))
        except LocalProtocolError:
            return

    def close(self, code: int, reason: str = "") -> None:
        """Send a close frame; the connection ends with the peer's answer, or after a second."""
        if not self._is_open:
            return
        self._is_open = False
        self._close_code, self._closed_by = code, "us"
        for task in self._tasks:
            task.cancel()
        self.write_event(CloseConnection(code=code, reason=reason or None))
        asyncio.get_running_loop().call_later(_CLOSE_WAIT_S, self._wire.close)

    async def drain(self) -> None:
        """Wait for a slow client."""
        await self._wire.drain()

    def write_raw(self, data: bytes) -> None:
        """Send bytes that need not be a frame."""
        self._wire.write(data)

    def freeze(self) -> None:
        """Neither read nor write any more."""
        self._closed_by = "us"
        self._wire.freeze()

    async def drop(self, *, with_reset: bool) -> None:
        """End the connection without a close frame."""
        self._is_open = False
        self._closed_by = "us"
        if with_reset:
            await self._wire.reset()
        else:
            self._wire.close()


def _interrupt_failed(fields: dict[str, Any]) -> Event:
    message = "This model does not support response.interrupt."
    return {
        "type": "response.interrupt.failed",
        "response_id": fields.get("response_id"),
        "error": {"code": "interrupt_not_supported", "message": message},
    }


def _steer_failed(fields: dict[str, Any]) -> Event:
    return {
        "type": "response.steer.failed",
        "previous_response_id": fields.get("previous_response_id"),
        "input": fields.get("input"),
        "error": {
            "type": "invalid_request_error",
            "code": "steering_not_supported",
            "message": "This model does not support steering.",
        },
    }


#: Client events that are known and politely declined (protocol.md §2.5, §2.6).
_UNSUPPORTED: Final[dict[Any, Callable[[dict[str, Any]], Event]]] = {
    "response.interrupt": _interrupt_failed,
    "response.steer": _steer_failed,
}
