"""One open WebSocket, client side: bytes in, messages out, and the frames to be written.

Rules of this file
------------------
1. This reader owns the frame boundaries. A whole text message in one frame, which is nearly all
   that upstream sends, is cut straight out of the bytes; every other frame goes to wsproto, which
   judges fragments, control frames and the closing handshake.
2. The short cut gives what wsproto alone would give, for any chunking of any bytes
   (tests/core/wire/test_against_wsproto.py).
3. No byte of a message beyond its limits is buffered, joined or inflated.
4. What comes in and what goes out share nothing but wsproto's state: `compress` may run in a
   thread while `feed` runs here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from wsproto.connection import CLIENT, Connection, ConnectionState
from wsproto.events import BytesMessage, CloseConnection, TextMessage
from wsproto.events import Ping as PingFrame
from wsproto.events import Pong as PongFrame

from wsproxy.core.multiplex.recovery import Fault
from wsproxy.core.wire import frames
from wsproxy.core.wire.deflate import (
    DeflateError,
    DeflateParameters,
    Deflater,
    Inflater,
    TooBigError,
    can_deflate,
)

#: `response.completed` repeats everything a turn said, images included.
MAX_MESSAGE_BYTES: Final = 32 * 1024 * 1024
#: Text of this API shrinks 3–160 ×; deflate itself can do 1,032.
MAX_INFLATE_RATIO: Final = 200

_HEADER_NEEDS: Final = 2  # bytes that tell how long the head of a frame is


@dataclass(frozen=True, slots=True)
class Ping:
    """The peer asked whether we are there; the answer is in `take_outgoing`."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Pong:
    """The peer answered a ping, or spoke up unasked."""

    payload: bytes


#: What a connection brings: a whole text message is its payload itself, valid UTF-8.
Message: TypeAlias = bytes | Ping | Pong


@dataclass(frozen=True, slots=True)
class Ended:
    """Why no message can follow: a close frame (F08–F13) or bytes we cannot accept (F14–F19).

    `code` is the peer's close code (1005: it gave none), or the one that we give. `reason` is
    the peer's own (`is_said`), up to 123 bytes, where upstream may name an error code, or says
    what was odd.
    """

    fault: Fault
    code: int
    reason: str = field(repr=False)
    is_said: bool = False


@dataclass(frozen=True, slots=True)
class Body:
    """A text message as it will be on the wire, not masked yet."""

    payload: bytes = field(repr=False)
    is_compressed: bool


_CLOSE_FAULTS: Final = {
    1002: Fault.CLOSED_BLAMING_US,
    1003: Fault.CLOSED_BLAMING_US,
    1007: Fault.CLOSED_BLAMING_US,
    1008: Fault.CLOSED_POLICY,
    1009: Fault.CLOSED_TOO_BIG,
    1011: Fault.CLOSED_INTERNAL,
    1012: Fault.CLOSED_RESTARTING,
    1013: Fault.CLOSED_RESTARTING,
}


class WebSocket:
    """Call `feed` with what was read, then look at `ended` and write what `take_outgoing` gives.

    `mask_key` gives 4 unpredictable bytes a call (RFC 6455 §5.3).
    """

    ended: Ended | None = None

    def __init__(
        self,
        *,
        mask_key: Callable[[], bytes],
        deflate: DeflateParameters | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        max_inflate_ratio: int = MAX_INFLATE_RATIO,
    ) -> None:
        self._mask_key = mask_key
        self._max_bytes = max_message_bytes
        self._inflater: Inflater | None = None
        self._deflater: Deflater | None = None
        if deflate is not None:
            self._inflater = Inflater(deflate, max_message_bytes, max_inflate_ratio)
            self._deflater = Deflater(deflate) if can_deflate(deflate) else None
        self._engine = Connection(CLIENT)
        self._pending = bytearray()  # the beginning of a frame that is not whole yet
        self._needed = _HEADER_NEEDS  # as many bytes must be pending before a step is possible
        self._is_head_judged = False  # the head of the pending frame went to wsproto already
        self._joined: bytearray | None = None  # what came of a fragmented message
        self._is_joined_compressed = False
        self._outgoing = b""

    def __repr__(self) -> str:
        state = self.ended or self._engine.state.name
        return f"<WebSocket {state} pending={len(self._pending)} of {self._needed}>"

    # ---- Bytes in ----------------------------------------------------------------------------

    def feed(self, data: bytes) -> list[Message]:
        """The messages that these bytes complete. Never raises; empty once `ended` is set."""
        messages: list[Message] = []
        if self.ended is not None:
            return messages
        if self._pending:
            self._pending += data
            if len(self._pending) < self._needed:
                return messages
            # One copy of the whole when it is there, none for each read that brought a part.
            data = bytes(self._pending)
            self._pending.clear()
        at = self._read_frames(data, messages)
        if at < len(data) and self.ended is None:
            self._pending += memoryview(data)[at:]
        return messages

    def _read_frames(self, data: bytes, messages: list[Message]) -> int:
        """Take frame after frame; returns where the first one begins that is not whole."""
        at = 0
        end = len(data)
        self._needed = _HEADER_NEEDS
        while end - at >= _HEADER_NEEDS:
            # Cheapest first: nearly every frame is a whole text of less than 64 KiB.
            first_byte = data[at]
            size = data[at + 1]
            start = at + 2
            is_short = size < frames.TWO_BYTE_LENGTH
            if size == frames.TWO_BYTE_LENGTH and end - at >= 4:
                start = at + 4
                size = data[at + 2] << 8 | data[at + 3]
                is_short = size >= frames.TWO_BYTE_LENGTH
            stop = start + size
            if is_short and stop <= end and size <= self._max_bytes and self._is_text(first_byte):
                payload = data[start:stop]
                if first_byte == frames.WHOLE_TEXT and payload.isascii():
                    messages.append(payload)
                    at = stop
                    continue
                self._take_text(first_byte, payload, messages)
            else:
                stop = self._take_frame(data, at, messages)
                if stop == at:
                    return at
            if self.ended is not None:
                return end
            at = stop
        return at

    def _take_frame(self, data: bytes, at: int, messages: list[Message]) -> int:
        """Take the frame at `at` and return where it ends; `at` if it is not whole yet."""
        start = at + frames.header_bytes(data[at + 1])
        if len(data) < start:
            self._needed = start - at
            return at
        head = data[at:start]
        length = frames.payload_bytes(head)
        is_ours = self._is_text(head[0]) and frames.is_plain_header(head)
        if not self._is_head_judged:
            self._judge_head(head, length, messages, is_ours=is_ours)
        stop = start + length
        if len(data) < stop and self.ended is None:
            self._needed = stop - at
            return at
        self._is_head_judged = False
        if self.ended is None and is_ours:
            self._take_text(head[0], data[start:stop], messages)
        elif self.ended is None and length:
            self._consult(data[start:stop], messages)
        return stop

    def _is_text(self, first_byte: int) -> bool:
        """Whether this begins a whole text message, between messages, that we take ourselves."""
        if self._joined is not None:
            return False
        return first_byte == frames.WHOLE_TEXT or (
            first_byte == frames.WHOLE_COMPRESSED_TEXT and self._inflater is not None
        )

    def _take_text(self, first_byte: int, payload: bytes, messages: list[Message]) -> None:
        if first_byte == frames.WHOLE_COMPRESSED_TEXT:
            inflated = self._inflate(payload)
            if inflated is None:
                return
            payload = inflated
        if payload.isascii() or _is_utf8(payload):
            messages.append(payload)
        else:
            self._fail(Fault.INVALID_UTF8, 1007, "invalid UTF-8 in a text message")

    def _judge_head(
        self, head: bytes, length: int, messages: list[Message], *, is_ours: bool
    ) -> None:
        """Refuse a frame by its head alone: what it is, and how much it says will follow."""
        opcode = head[0] & frames.OPCODE
        if not is_ours:
            head = self._without_compression(head)
            if self.ended is None:
                self._consult(head, messages)
                self._is_head_judged = True
        size = length + len(self._joined or b"")
        if self.ended is None and opcode < frames.CLOSE and size > self._max_bytes:
            self._fail(Fault.MESSAGE_TOO_BIG, 1009, f"a message of {size} bytes")

    def _without_compression(self, head: bytes) -> bytes:
        """The head as wsproto may see it, which knows of no extension.

        The first fragment of a compressed text becomes one of a binary message: wsproto then
        judges the order of the fragments and leaves their bytes alone.
        """
        kind = head[0] & (frames.OPCODE | frames.RSV)
        if self._joined is not None or kind not in (
            frames.RSV1 | frames.TEXT,
            frames.RSV1 | frames.BINARY,
        ):
            return head
        if self._inflater is None:
            self._fail(Fault.UNNEGOTIATED_COMPRESSION, 1002, "compressed, which was not agreed")
            return head
        self._is_joined_compressed = kind == frames.RSV1 | frames.TEXT
        return bytes((head[0] & frames.FIN | frames.BINARY,)) + head[1:]

    # ---- What wsproto makes of the rest --------------------------------------------------------

    def _consult(self, data: bytes, messages: list[Message]) -> None:
        self._engine.receive_data(data)
        for event in self._engine.events():
            match event:
                case TextMessage():
                    self._join(event.data.encode(), messages, is_last=event.message_finished)
                case BytesMessage() if self._is_joined_compressed:
                    self._join(event.data, messages, is_last=event.message_finished)
                case BytesMessage():
                    self._fail(Fault.BINARY_MESSAGE, 1003, "a binary message")
                case PingFrame():
                    self._answer(event)
                    messages.append(Ping(bytes(event.payload)))
                case PongFrame():
                    messages.append(Pong(bytes(event.payload)))
                case CloseConnection():
                    self._end(event)
            if self.ended is not None:
                return

    def _join(self, part: bytes | bytearray, messages: list[Message], *, is_last: bool) -> None:
        if self._joined is None:
            self._joined = bytearray()
        self._joined += part
        if not is_last:
            return
        payload = bytes(self._joined)
        first_byte = (
            frames.WHOLE_COMPRESSED_TEXT if self._is_joined_compressed else frames.WHOLE_TEXT
        )
        self._joined = None
        self._is_joined_compressed = False
        self._take_text(first_byte, payload, messages)

    def _inflate(self, payload: bytes) -> bytes | None:
        assert self._inflater is not None
        try:
            return self._inflater.inflate(payload)
        except TooBigError as error:
            self._fail(Fault.MESSAGE_TOO_BIG, 1009, str(error))
        except DeflateError as error:
            self._fail(Fault.MALFORMED_FRAME, 1007, f"cannot be inflated: {error}")
        return None

    def _answer(self, ping: PingFrame) -> None:
        # RFC 6455 §5.5.3: the most recent ping alone may be answered, so a flood of them in one
        # read costs one pong. After our own close frame nothing may be sent (§5.5.1).
        if self._engine.state is ConnectionState.OPEN:
            self._outgoing = bytes(self._engine.send(ping.response()))

    def _end(self, event: CloseConnection) -> None:
        """The peer's close frame, or wsproto's judgement on a frame that breaks the rules."""
        code = int(event.code)
        reason = event.reason or ""
        match self._engine.state:
            case ConnectionState.REMOTE_CLOSING:
                self._outgoing += self._engine.send(event.response())
                self.ended = _said(code, reason)
            case ConnectionState.CLOSED:
                self.ended = _said(code, reason)
            case _ if code == 1007:
                self._fail(Fault.INVALID_UTF8, code, reason)
            case _:
                self._fail(Fault.MALFORMED_FRAME, code, reason)

    def _fail(self, fault: Fault, code: int, reason: str) -> None:
        # RFC 6455 §7.1.7: say why, then drop the connection.
        self.ended = Ended(fault, code, reason)
        self._outgoing += self.close(code, reason)

    # ---- Frames out ----------------------------------------------------------------------------

    @property
    def has_outgoing(self) -> bool:
        """Whether `take_outgoing` has something to give."""
        return bool(self._outgoing)

    def take_outgoing(self) -> bytes:
        """What must be written in answer to what was fed: a pong, a close frame, mostly nothing."""
        outgoing = self._outgoing
        self._outgoing = b""
        return outgoing

    def can_compress(self) -> bool:
        """Whether `compress` does more than to wrap the payload."""
        return self._deflater is not None

    def compress(self, payload: bytes) -> Body:
        """Make a text message ready; 13 ms per MB when compressed, so large ones in a thread.

        One call at a time, in the order of sending: every body must be sent, for the peer's
        window to follow ours.
        """
        if self._deflater is None or not payload:
            return Body(payload, is_compressed=False)
        return Body(self._deflater.deflate(payload), is_compressed=True)

    def frame(self, body: Body) -> Iterator[bytes]:
        """The body as one masked frame, in slices; nothing may be written between them."""
        return frames.text_frame(body.payload, self._mask_key(), is_compressed=body.is_compressed)

    def text(self, payload: bytes) -> bytes:
        """A small text message as one masked frame."""
        return b"".join(self.frame(self.compress(payload)))

    def ping(self, payload: bytes) -> bytes:
        """A ping of up to 125 bytes; nothing once the closing handshake has begun."""
        if self._engine.state is not ConnectionState.OPEN:
            return b""
        return bytes(self._engine.send(PingFrame(payload)))

    def close(self, code: int, reason: str = "") -> bytes:
        """Begin the closing handshake; nothing if it has begun. The reason is cut to 123 bytes."""
        if self._engine.state is not ConnectionState.OPEN:
            return b""
        return bytes(self._engine.send(CloseConnection(code, reason)))


def _said(code: int, reason: str) -> Ended:
    """The peer's close frame."""
    fault = _CLOSE_FAULTS.get(code, Fault.CLOSED_NORMALLY)
    return Ended(fault, code, reason, is_said=True)


def _is_utf8(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True
