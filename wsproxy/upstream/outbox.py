"""What one WebSocket still has to send, and the proof of what has left.

Rules of this file
------------------
1. One frame at a time: the next one is begun only when the wire's buffer is empty. Otherwise a
   frame that left could not be told from the one behind it when the connection breaks.
2. A ticket is sent when the buffer is empty after the last byte of its frame, and not before.
   A wire that is closing proves nothing: its buffer is empty because it was thrown away.
3. Control frames go before waiting messages, never inside a frame.
4. A large message never holds the event loop: it is compressed in a thread, masked and written in
   slices.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from wsproxy.core.wire.websocket import Body, WebSocket
from wsproxy.upstream.tls import Wire

#: Compressing takes 13 µs a KB: 2 ms of the event loop are the most that one message may take.
THREAD_BYTES: Final = 128 * 1024
#: Written in one go before others have their turn, about 1 ms of masking, TLS and system calls.
TURN_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class _Text:
    payload: bytes = field(repr=False)
    ticket: int


class Outbox:
    """Call `drained` whenever the wire has become empty by writing.

    `on_sent` says that `take_sent` has something to give; it may be called from within any method
    that writes.
    """

    def __init__(self, on_sent: Callable[[], None]) -> None:
        self._on_sent = on_sent
        self._wire: Wire | None = None
        self._websocket: WebSocket | None = None
        self._is_stopped = False
        # Waiting
        self._controls: deque[bytes] = deque()
        self._pong = b""
        self._texts: deque[_Text] = deque()
        # Being compressed in a thread, or ready to be written since
        self._compressing: _Text | None = None
        self._compressed: Body | None = None
        # Being written: what is left of the frame, and the ticket it carries
        self._frame: Iterator[bytes] | None = None
        self._ticket: int | None = None
        # Left
        self._sent: list[int] = []

    def open(self, wire: Wire, websocket: WebSocket) -> None:
        """From now on messages can leave; `pump` lets those go that wait."""
        self._wire = wire
        self._websocket = websocket

    # ---- What is asked of it -------------------------------------------------------------------

    def put_text(self, payload: bytes, ticket: int) -> None:
        """Send a text message; it is compressed and masked when its turn has come."""
        self._texts.append(_Text(payload, ticket))
        self.pump()

    def put_control(self, frame: bytes) -> None:
        """Send a control frame before all waiting messages; nothing if it is empty."""
        if frame:
            self._controls.append(frame)
            self.pump()

    def put_pong(self, frame: bytes) -> None:
        """Answer a ping; a later answer takes the place of one that waits (RFC 6455 §5.5.3)."""
        self._pong = frame
        self.pump()

    def stop(self) -> None:
        """Begin no further message; what was begun goes on, and control frames after it."""
        self._is_stopped = True

    # ---- What is known of it -------------------------------------------------------------------

    @property
    def is_between_frames(self) -> bool:
        """Whether all that was begun has left, so that a control frame could go now."""
        return self._frame is None and self._is_wire_empty()

    @property
    def is_unsettled(self) -> bool:
        """Whether there is a ticket that was not taken."""
        return self._ticket is not None or bool(self._sent)

    @property
    def has_sent(self) -> bool:
        """Whether `take_sent` has something to give."""
        return bool(self._sent)

    def take_sent(self) -> list[int]:
        """Tickets whose last byte has left since the last call, in order."""
        sent, self._sent = self._sent, []
        return sent

    def unsent(self) -> list[int]:
        """Tickets whose frame has not wholly left, in order."""
        tickets = [] if self._ticket is None else [self._ticket]
        return tickets + self.unbegun()

    def unbegun(self) -> list[int]:
        """Tickets of whose frame nothing was given to the wire, in order."""
        tickets: list[int] = []
        if self._compressing is not None:
            tickets.append(self._compressing.ticket)
        return tickets + [text.ticket for text in self._texts]

    # ---- Writing -------------------------------------------------------------------------------

    def drained(self) -> None:
        """All that was written has left, also if the wire is closing since.

        uvloop may still write what it holds while an abort is on its way.
        """
        is_closing = self._wire is not None and self._wire.is_closing()
        if is_closing and self._frame is not None and next(self._frame, None) is None:
            self._frame_left()
        self.pump()

    def pump(self) -> None:
        """Write until the wire keeps something back, or nothing is left to be written."""
        written = 0
        while self._is_wire_empty():
            if written >= TURN_BYTES:
                asyncio.get_running_loop().call_soon(self.pump)
                break
            chunk = self._next_chunk()
            if chunk is None:
                break
            assert self._wire is not None
            self._wire.write(chunk)
            written += len(chunk)
        if self._sent:
            self._on_sent()

    def settle(self) -> None:
        """Before what was read is told: a wire that is empty by now has sent what it was given,
        whether or not it has said so yet."""
        if self._ticket is not None and self._is_wire_empty():
            self.pump()

    def _is_wire_empty(self) -> bool:
        wire = self._wire
        return wire is not None and not wire.is_closing() and wire.get_write_buffer_size() == 0

    def _next_chunk(self) -> bytes | None:
        """The next bytes for a wire that is empty: so all that was given before has left."""
        while True:
            if self._frame is None and not self._begin_frame():
                return None
            assert self._frame is not None
            chunk = next(self._frame, None)
            if chunk is not None:
                return chunk
            self._frame_left()

    def _frame_left(self) -> None:
        self._frame = None
        if self._ticket is not None:
            self._sent.append(self._ticket)
            self._ticket = None

    def _begin_frame(self) -> bool:
        """Choose what is written next; false if there is nothing."""
        if self._controls:
            self._frame = iter((self._controls.popleft(),))
        elif self._pong:
            self._frame = iter((self._pong,))
            self._pong = b""
        elif not self._is_stopped:
            self._begin_text()
        return self._frame is not None

    def _begin_text(self) -> None:
        websocket = self._websocket
        assert websocket is not None
        if self._compressing is not None:
            if self._compressed is not None:
                self._frame = websocket.frame(self._compressed)
                self._ticket = self._compressing.ticket
                self._compressing = self._compressed = None
        elif self._texts:
            text = self._texts.popleft()
            if websocket.can_compress() and len(text.payload) > THREAD_BYTES:
                self._compress_in_thread(websocket, text)
            else:
                self._frame = websocket.frame(websocket.compress(text.payload))
                self._ticket = text.ticket

    def _compress_in_thread(self, websocket: WebSocket, text: _Text) -> None:
        self._compressing = text
        loop = asyncio.get_running_loop()
        loop.run_in_executor(None, websocket.compress, text.payload).add_done_callback(
            self._text_was_compressed
        )

    def _text_was_compressed(self, body: asyncio.Future[Body]) -> None:
        if not body.cancelled():
            self._compressed = body.result()
            self.pump()
