"""The short cut in front of wsproto gives what wsproto alone gives, and what `websockets` gives."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate as WebsocketsDeflate
from websockets.frames import Frame, Opcode
from websockets.protocol import CLIENT as WEBSOCKETS_CLIENT
from websockets.protocol import OPEN, Protocol
from wsproto.connection import CLIENT, Connection
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, TextMessage
from wsproto.extensions import PerMessageDeflate

from tests.core.wire import peer_frames
from tests.core.wire.peer_frames import Deflating, chunks, frame
from wsproxy.core.wire import websocket
from wsproxy.core.wire.deflate import DeflateParameters
from wsproxy.core.wire.websocket import WebSocket

#: Messages in order, then the close code that ends it, if any.
Account = tuple[list[object], int | None]

cuts = st.lists(st.integers(0, 1 << 20), max_size=12)


def ours(stream: bytes, places: list[int], *, is_deflated: bool) -> Account:
    deflate = DeflateParameters() if is_deflated else None
    engine = WebSocket(mask_key=lambda: bytes(4), deflate=deflate)
    heard: list[object] = []
    for chunk in chunks(stream, places):
        for message in engine.feed(chunk):
            match message:
                case websocket.Ping(payload):
                    heard.append(("ping", payload))
                case websocket.Pong(payload):
                    heard.append(("pong", payload))
                case text:
                    heard.append(text)
    return heard, engine.ended and engine.ended.code


def wsproto_alone(stream: bytes, places: list[int], *, is_deflated: bool) -> Account:
    extension = PerMessageDeflate()
    extension.finalize("permessage-deflate")
    engine = Connection(CLIENT, [extension] if is_deflated else [])
    heard: list[object] = []
    text = ""
    for chunk in chunks(stream, places):
        engine.receive_data(chunk)
        for event in engine.events():
            if isinstance(event, TextMessage):
                text += event.data
                if event.message_finished:
                    heard.append(text.encode())
                    text = ""
            elif (code := _verdict(event)) is not None:
                return heard, code
            else:
                assert isinstance(event, Ping | Pong)
                heard.append((type(event).__name__.lower(), bytes(event.payload)))
    return heard, None


def _verdict(event: Event) -> int | None:
    if isinstance(event, CloseConnection):
        return int(event.code)
    return 1003 if isinstance(event, BytesMessage) else None


def websockets_alone(stream: bytes, *, is_deflated: bool) -> Account:
    engine = Protocol(WEBSOCKETS_CLIENT, state=OPEN, max_size=None)
    engine.extensions = [WebsocketsDeflate(False, False, 15, 15)] if is_deflated else []
    engine.receive_data(stream)
    heard: list[object] = []
    joined = b""
    for event in engine.events_received():
        assert isinstance(event, Frame)
        match event.opcode:
            case Opcode.PING | Opcode.PONG:
                heard.append((event.opcode.name.lower(), bytes(event.data)))
            case Opcode.BINARY:
                return heard, 1003
            case Opcode.TEXT | Opcode.CONT:
                joined += event.data
                if event.fin and not _is_utf8(joined):  # its caller decodes
                    return heard, 1007
                if event.fin:
                    heard.append(joined)
                    joined = b""
    closed = engine.close_rcvd or engine.close_sent
    return heard, closed and int(closed.code)


def _is_utf8(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


@settings(max_examples=600, deadline=None)
@given(peer_frames.streams, cuts)
@example(frame(1, b"a", fin=False) + frame(1, b"b"), [])  # a text inside a text
@example(frame(1, b"\xc3", fin=False) + frame(0, b"\xa4"), [3])  # one character in two fragments
def test_any_chunking_of_any_frames_gives_what_wsproto_gives(stream: bytes, at: list[int]) -> None:
    expected = wsproto_alone(stream, [], is_deflated=False)
    assert ours(stream, at, is_deflated=False) == expected


@settings(max_examples=600, deadline=None)
@given(peer_frames.compressed_streams(), cuts)
def test_compressed_messages_are_what_wsproto_makes_of_them(stream: bytes, at: list[int]) -> None:
    expected, ending = wsproto_alone(stream, [], is_deflated=True)
    heard, code = ours(stream, at, is_deflated=True)
    # wsproto inflates a frame before it sees that it may not be there, so it may blame its bytes.
    assert (heard, 1002 if code == 1007 else code) == (expected, 1002 if ending == 1007 else ending)


@settings(max_examples=100, deadline=None)
@given(st.lists(peer_frames.whole_texts.filter(lambda one: len(one) < 300), max_size=5), st.data())
def test_byte_by_byte_is_no_different(frames: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(frames) + data.draw(peer_frames.controls | peer_frames.odd_frames)
    whole = ours(stream, [], is_deflated=False)
    assert ours(stream, list(range(len(stream))), is_deflated=False) == whole


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), cuts, st.booleans())
def test_garbage_never_raises_and_chunking_never_matters(
    garbage: bytes, at: list[int], is_deflated: bool
) -> None:
    whole = ours(garbage, [], is_deflated=is_deflated)
    assert ours(garbage, at, is_deflated=is_deflated) == whole


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(peer_frames.whole_texts, peer_frames.controls), max_size=6), cuts)
def test_valid_frames_mean_to_websockets_what_they_mean_to_us(
    frames: list[bytes], at: list[int]
) -> None:
    stream = b"".join(frames)
    expected = websockets_alone(stream, is_deflated=False)
    assert ours(stream, at, is_deflated=False) == expected


ODDITIES = {
    "masked": frame(1, b"hi", is_masked=True),
    "reserved-bit": frame(1, b"hi", rsv=0x10),
    "compressed-unasked": frame(1, b"hi", rsv=0x40),
    "reserved-opcode": frame(3, b"hi"),
    "reserved-control": frame(11, b"hi"),
    "fragmented-ping": frame(9, b"hi", fin=False),
    "long-ping": frame(9, b"x" * 126),
    "continuation-first": frame(0, b"hi"),
    "text-in-text": frame(1, b"a", fin=False) + frame(1, b"b"),
    "bad-utf8": frame(1, b"\xff"),
    "surrogate": frame(1, b"\xed\xa0\x80"),
    "bad-utf8-in-fragments": frame(1, b"\xc3", fin=False) + frame(0, b"\xc3"),
    "binary": frame(2, b"hi"),
    "close-1000": peer_frames.close(1000, "bye"),
    "close-1011": peer_frames.close(1011, "websocket_connection_limit_reached"),
    "close-of-one-byte": frame(8, b"\x03"),
    "close-999": peer_frames.close(999),
    "close-1005": peer_frames.close(1005),
    "close-with-bad-utf8": frame(8, b"\x03\xe8\xff"),
}


@pytest.mark.parametrize("stream", ODDITIES.values(), ids=ODDITIES)
def test_three_engines_agree_on_what_ends_a_connection(stream: bytes) -> None:
    stream = frame(1, b"before") + stream + frame(1, b"after")
    expected = websockets_alone(stream, is_deflated=False)
    assert ours(stream, [], is_deflated=False) == expected
    assert wsproto_alone(stream, [], is_deflated=False) == expected


def test_a_ping_between_compressed_fragments_is_read_as_websockets_reads_it() -> None:
    # wsproto's extension forgets there that the message is compressed.
    deflated = Deflating()(b"compressed and in two parts")
    stream = frame(1, deflated[:9], fin=False, rsv=0x40) + frame(9, b"?") + frame(0, deflated[9:])
    expected = websockets_alone(stream, is_deflated=True)
    assert expected == ([("ping", b"?"), b"compressed and in two parts"], None)
    assert ours(stream, [], is_deflated=True) == expected
