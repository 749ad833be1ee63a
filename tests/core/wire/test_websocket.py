"""The open WebSocket: what it delivers, what ends it and with which fault, what it writes."""

from __future__ import annotations

import time
import tracemalloc
import zlib

import pytest
from wsproto.connection import SERVER, Connection
from wsproto.events import CloseConnection, TextMessage
from wsproto.events import Ping as PingFrame
from wsproto.events import Pong as PongFrame

from tests.core.wire.peer_frames import (
    BINARY,
    CONTINUATION,
    PING,
    RSV1,
    TEXT,
    Deflating,
    close,
    frame,
)
from wsproxy.core.multiplex.recovery import Fault
from wsproxy.core.wire.deflate import DeflateParameters
from wsproxy.core.wire.frames import SLICE_BYTES, mask
from wsproxy.core.wire.websocket import Ended, Ping, Pong, WebSocket

KEY = b"\xde\xad\xbe\xef"


def websocket(
    deflate: DeflateParameters | None = None, *, max_message_bytes: int = 1 << 20
) -> WebSocket:
    return WebSocket(mask_key=lambda: KEY, deflate=deflate, max_message_bytes=max_message_bytes)


def at_server(data: bytes) -> list[object]:
    server = Connection(SERVER)
    server.receive_data(data)
    return list(server.events())


# ---- What comes in ---------------------------------------------------------------------------


def test_a_text_message_is_its_own_bytes() -> None:
    engine = websocket()
    assert engine.feed(frame(TEXT, "ä".encode()) + frame(TEXT)) == ["ä".encode(), b""]


def test_pings_and_pongs_are_told_in_order_and_the_last_ping_is_answered() -> None:
    engine = websocket()
    stream = frame(PING, b"1") + frame(TEXT, b"x") + frame(0xA, b"2") + frame(PING, b"3")
    assert engine.feed(stream) == [Ping(b"1"), b"x", Pong(b"2"), Ping(b"3")]
    assert at_server(engine.take_outgoing()) == [PongFrame(b"3")]
    assert engine.take_outgoing() == b""


FAULTS = {
    "close-1000": (close(1000), Fault.CLOSED_NORMALLY, 1000),
    "close-1001": (close(1001), Fault.CLOSED_NORMALLY, 1001),
    "close-without-code": (frame(8), Fault.CLOSED_NORMALLY, 1005),
    "close-of-an-application": (close(4000), Fault.CLOSED_NORMALLY, 4000),
    "close-1002": (close(1002), Fault.CLOSED_BLAMING_US, 1002),
    "close-1003": (close(1003), Fault.CLOSED_BLAMING_US, 1003),
    "close-1007": (close(1007), Fault.CLOSED_BLAMING_US, 1007),
    "close-1008": (close(1008), Fault.CLOSED_POLICY, 1008),
    "close-1009": (close(1009), Fault.CLOSED_TOO_BIG, 1009),
    "close-1011": (close(1011), Fault.CLOSED_INTERNAL, 1011),
    "close-1012": (close(1012), Fault.CLOSED_RESTARTING, 1012),
    "close-1013": (close(1013), Fault.CLOSED_RESTARTING, 1013),
    "masked": (frame(TEXT, b"x", is_masked=True), Fault.MALFORMED_FRAME, 1002),
    "reserved-opcode": (frame(5, b"x"), Fault.MALFORMED_FRAME, 1002),
    "reserved-bit": (frame(TEXT, b"x", rsv=0x20), Fault.MALFORMED_FRAME, 1002),
    "length-told-the-long-way": (frame(TEXT, b"x", length_bytes=2), Fault.MALFORMED_FRAME, 1002),
    "fragmented-ping": (frame(PING, fin=False), Fault.MALFORMED_FRAME, 1002),
    "nothing-to-continue": (frame(CONTINUATION, b"x"), Fault.MALFORMED_FRAME, 1002),
    "compressed": (frame(TEXT, b"x", rsv=RSV1), Fault.UNNEGOTIATED_COMPRESSION, 1002),
    "compressed-ping": (frame(PING, b"x", rsv=RSV1), Fault.MALFORMED_FRAME, 1002),
    "bad-utf8": (frame(TEXT, b"\xc0\x80"), Fault.INVALID_UTF8, 1007),
    "binary": (frame(BINARY, b"x"), Fault.BINARY_MESSAGE, 1003),
    "too-big": (frame(TEXT, bytes(1 + (1 << 20))), Fault.MESSAGE_TOO_BIG, 1009),
}


@pytest.mark.parametrize(("stream", "fault", "code"), FAULTS.values(), ids=FAULTS)
def test_each_end_has_its_fault_and_code(stream: bytes, fault: Fault, code: int) -> None:
    engine = websocket()
    assert engine.feed(frame(TEXT, b"before") + stream + frame(TEXT, b"after")) == [b"before"]
    assert engine.ended is not None
    assert (engine.ended.fault, engine.ended.code) == (fault, code)
    assert engine.feed(frame(TEXT, b"later")) == []
    (told,) = at_server(engine.take_outgoing())
    assert isinstance(told, CloseConnection)
    assert told.code == code


def test_the_reason_of_a_close_frame_is_passed_on_whole() -> None:
    engine = websocket()
    engine.feed(close(1000, "websocket_connection_limit_reached: 60 minutes"))
    expected = "websocket_connection_limit_reached: 60 minutes"
    assert engine.ended == Ended(Fault.CLOSED_NORMALLY, 1000, expected, is_said=True)


# ---- Bounds ----------------------------------------------------------------------------------


#: Streams that stop behind the head of the frame that is too much.
OVERSIZE = {
    "one-byte-length": frame(TEXT, bytes(101))[:2],
    "two-byte-length": frame(TEXT, bytes(200))[:4],
    "eight-byte-length": frame(TEXT, bytes(1 << 16))[:10],
    "binary": frame(BINARY, bytes(101))[:2],
    "fragment": frame(TEXT, bytes(60), fin=False) + frame(CONTINUATION, bytes(41))[:2],
    "many-fragments": (
        frame(TEXT, fin=False)
        + frame(CONTINUATION, b"x", fin=False) * 100
        + frame(CONTINUATION, b"x")[:2]
    ),
}


@pytest.mark.parametrize("stream", OVERSIZE.values(), ids=OVERSIZE)
def test_a_message_over_the_limit_is_refused_by_its_head(stream: bytes) -> None:
    engine = websocket(max_message_bytes=100)
    assert engine.feed(stream[:-1]) == []
    assert engine.ended is None
    engine.feed(stream[-1:])
    assert engine.ended is not None
    assert engine.ended.fault is Fault.MESSAGE_TOO_BIG


def test_a_message_of_exactly_the_limit_passes() -> None:
    engine = websocket(max_message_bytes=100)
    fragments = frame(TEXT, bytes(60), fin=False) + frame(CONTINUATION, bytes(40))
    assert engine.feed(frame(TEXT, bytes(100)) + fragments) == [bytes(100)] * 2


@pytest.mark.parametrize("is_fragmented", [False, True], ids=["whole", "fragmented"])
def test_a_deflate_bomb_is_never_inflated_beyond_the_limit(is_fragmented: bool) -> None:
    bomb = Deflating()(bytes(64 << 20))
    engine = websocket(DeflateParameters(), max_message_bytes=4 << 20)
    tracemalloc.start()
    if is_fragmented:
        half = len(bomb) // 2
        engine.feed(frame(TEXT, bomb[:half], rsv=RSV1, fin=False))
        engine.feed(frame(CONTINUATION, bomb[half:]))
    else:
        engine.feed(frame(TEXT, bomb, rsv=RSV1))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert engine.ended is not None
    assert (engine.ended.fault, engine.ended.code) == (Fault.MESSAGE_TOO_BIG, 1009)
    assert peak < 16 << 20


def test_a_large_message_in_many_reads_costs_no_more_per_byte_than_a_small_one() -> None:
    def seconds_per_byte(size: int) -> float:
        stream = frame(TEXT, b"x" * size)
        began = time.perf_counter()
        engine = websocket(max_message_bytes=size)
        for start in range(0, len(stream), 1000):
            engine.feed(stream[start : start + 1000])
        return (time.perf_counter() - began) / size

    small = min(seconds_per_byte(100_000) for _ in range(5))
    large = min(seconds_per_byte(8_000_000) for _ in range(3))
    assert large < 10 * small  # copied anew for each read it would be 80 ×


# ---- Compression -----------------------------------------------------------------------------


def test_the_context_is_kept_from_message_to_message() -> None:
    engine = websocket(DeflateParameters())
    deflate = Deflating()
    payload = b"the same words again and again" * 20
    first, second = deflate(payload), deflate(payload)
    assert len(second) < len(first) / 2
    assert (
        engine.feed(frame(TEXT, first, rsv=RSV1) + frame(TEXT, second, rsv=RSV1)) == [payload] * 2
    )


def test_without_takeover_each_message_stands_alone() -> None:
    engine = websocket(DeflateParameters(server_no_context_takeover=True))
    stream = b"".join(frame(TEXT, Deflating()(text), rsv=RSV1) for text in (b"one", b"two"))
    assert engine.feed(stream) == [b"one", b"two"]


def test_a_stream_that_ends_with_each_message_is_allowed() -> None:
    # RFC 7692 §7.2.3.4: a final block, then an empty one whose first byte is on the wire.
    def final(text: bytes) -> bytes:
        stream = zlib.compressobj(wbits=-15)
        return stream.compress(text) + stream.flush() + b"\x00"

    engine = websocket(DeflateParameters())
    stream = b"".join(frame(TEXT, final(text), rsv=RSV1) for text in (b"one", b"two"))
    assert engine.feed(stream) == [b"one", b"two"]


def test_data_behind_the_end_of_a_stream_is_refused() -> None:
    stream = zlib.compressobj(wbits=-15)
    payload = stream.compress(b"text") + stream.flush() + b"and more"
    engine = websocket(DeflateParameters())
    assert engine.feed(frame(TEXT, payload, rsv=RSV1)) == []
    assert engine.ended is not None
    assert engine.ended.fault is Fault.MALFORMED_FRAME


def test_plain_messages_may_come_between_compressed_ones() -> None:
    engine = websocket(DeflateParameters())
    deflate = Deflating()
    stream = frame(TEXT, deflate(b"a"), rsv=RSV1) + frame(TEXT, b"b")
    assert engine.feed(stream + frame(TEXT, deflate(b"c"), rsv=RSV1)) == [b"a", b"b", b"c"]


@pytest.mark.parametrize("bits", range(9, 16))
@pytest.mark.parametrize("is_kept", [True, False], ids=["kept", "fresh"])
def test_what_we_compress_inflates_within_the_agreed_window(bits: int, is_kept: bool) -> None:
    agreed = DeflateParameters(client_max_window_bits=bits, client_no_context_takeover=not is_kept)
    engine = websocket(agreed)
    inflate = zlib.decompressobj(-bits)
    for payload in (b"first " * 900, b"second " * 900, b"first " * 900):
        (first_byte, *_), body = _unframed(engine.text(payload))
        assert first_byte == 0xC1
        if not is_kept:
            inflate = zlib.decompressobj(-bits)
        assert inflate.decompress(body + b"\x00\x00\xff\xff") == payload


def test_a_window_that_zlib_cannot_keep_means_plain_messages() -> None:
    (first_byte, *_), body = _unframed(
        websocket(DeflateParameters(client_max_window_bits=8)).text(b"plain")
    )
    assert (first_byte, body) == (0x81, b"plain")


def _unframed(data: bytes) -> tuple[bytes, bytes]:
    size = {126: 4, 127: 10}.get(data[1] & 0x7F, 2)
    assert data[size : size + 4] == KEY
    return data[:size], bytes(mask(data[size + 4 :], KEY))


# ---- What goes out ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, SLICE_BYTES, SLICE_BYTES + 1])
def test_a_text_of_any_size_arrives_masked_and_whole(size: int) -> None:
    payload = (b"abcdefghijklm" * (size // 13 + 1))[:size]
    events = at_server(websocket().text(payload))
    assert all(isinstance(event, TextMessage) for event in events)
    assert "".join(event.data for event in events if isinstance(event, TextMessage)) == (
        payload.decode()
    )


def test_after_our_close_frame_nothing_else_is_written() -> None:
    engine = websocket()
    assert at_server(engine.ping(b"?")) == [PingFrame(b"?")]
    (told,) = at_server(engine.close(1001, "r" * 200))
    assert isinstance(told, CloseConnection)
    assert told.reason == "r" * 123
    assert engine.close(1000) == engine.ping(b"?") == b""
    assert engine.feed(frame(PING) + frame(TEXT, b"still read")) == [Ping(b""), b"still read"]
    engine.feed(close(1001))
    assert engine.ended == Ended(Fault.CLOSED_NORMALLY, 1001, "", is_said=True)
    assert engine.take_outgoing() == b""
