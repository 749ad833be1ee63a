"""A turn's events on their lane, with the noise around them and the faults among them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from wsproto.events import BytesMessage

from wsproxy.simulator.errors import named_error
from wsproxy.simulator.faults import Fault
from wsproxy.simulator.lanes import DEFAULT_LANE
from wsproxy.simulator.noise import NOISE_AFTER, NOISE_BEFORE, NOISE_WITHIN
from wsproxy.simulator.outputs import Event

if TYPE_CHECKING:
    from wsproxy.simulator.websocket import WebSocketConnection

_NOBODY: Final = "lane_of_nobody"
_DRAIN_AFTER_EVENTS: Final = 64  # events between two looks at the transport's buffer
_NOISE_AT_EVENT: Final = 3  # somewhere within any response
_GAP: Final = 3  # sequence numbers left out on order
_TERMINALS: Final = frozenset({"response.completed", "response.incomplete", "response.failed"})
_STRAY: Final[Event] = {"type": "response.output_text.delta", "delta": "stray"}
_GARBAGE_TEXT: Final = {
    "json": b'{"type":"response.output_text.delta","delta":',
    "object": b"[1,2,3]",
    "type": b'{"type":"bad type\\n","sequence_number":1}',
    "untyped": b'{"sequence_number":1}',
}
#: Raw frames that RFC 6455 forbids: text that is not UTF-8 (§8.1), a reserved opcode and a
#: reserved bit (§5.2), a masked frame from a server (§5.1).
_GARBAGE_FRAMES: Final = {
    "utf8": b"\x81\x04\xff\xfe\xfd\xfc",
    "frame": b"\x8f\x01x",
    "rsv": b"\xb1\x01x",
    "masked": b"\x81\x81\x00\x00\x00\x00x",
}
_HALF_A_FRAME: Final = b"\x81\x7e\x01\x00" + b'{"type":"response.'


class FrameOutlet:
    """Tells one turn's events on its lane."""

    def __init__(self, connection: WebSocketConnection, lane: str, *, noise: bool) -> None:
        self._connection = connection
        self._lane = lane
        self._number = 0
        self._gap = 0
        self._last = _STRAY
        self._has_noise = noise

    async def send(self, event: Event) -> None:
        """Number the event and write it."""
        if self._has_noise:
            self._make_noise()
        event["sequence_number"] = self._connection.number(self._number) + self._gap
        self._number += 1
        self._last = event
        self._connection.write_frame(event, self._lane)
        if self._has_noise and event["type"] in _TERMINALS:
            self._write_noise(NOISE_AFTER)
        if self._number % _DRAIN_AFTER_EVENTS == 0:
            await self._connection.drain()

    def _make_noise(self) -> None:
        if self._number == 0:
            self._write_noise(NOISE_BEFORE)
        elif self._number == _NOISE_AT_EVENT:
            self._write_noise(NOISE_WITHIN)

    def _write_noise(self, events: tuple[Event, ...]) -> None:
        for event in events:
            self._connection.write_frame(event, DEFAULT_LANE)

    # -- faults --------------------------------------------------------------------------------

    async def perform(self, fault: Fault) -> None:
        """Perform a fault on order; those that end the turn never return."""
        match fault.what:
            case "garbage":
                self._write_garbage(fault.argument)
            case "wrong_lane":
                self._connection.write_frame(self._last, _NOBODY)
            case "no_lane":
                self._connection.write_frame(self._last, DEFAULT_LANE)
            case "late_event":
                self._connection.write_frame(self._last, self._lane)
            case "unknown_event":
                self._connection.write_frame({"type": "response.sim.unknown"}, self._lane)
            case "big":
                pad = "x" * int(fault.argument)
                self._connection.write_frame({"type": "response.sim.big", "pad": pad}, self._lane)
            case "sequence_gap":
                self._gap += _GAP
            case _:
                await self._end(fault)
                await asyncio.get_running_loop().create_future()

    async def _end(self, fault: Fault) -> None:
        connection = self._connection
        match fault.what:
            case "reset" | "eof":
                await connection.drop(with_reset=fault.what == "reset")
            case "cut":
                connection.write_raw(_HALF_A_FRAME)
                await connection.drop(with_reset=False)
            case "close":
                connection.close(int(fault.argument), "on order")
            case "freeze":
                connection.freeze()
            case "connection_error":
                connection.write_error(named_error(fault.argument), DEFAULT_LANE)
                connection.close(1000)
            case _:  # silence
                return

    def _write_garbage(self, kind: str) -> None:
        if kind == "binary":
            self._connection.write_event(BytesMessage(data=b"\x00\x01"))
        elif kind in _GARBAGE_TEXT:
            self._connection.write_text(_GARBAGE_TEXT[kind])
        else:
            self._connection.write_raw(_GARBAGE_FRAMES[kind])
