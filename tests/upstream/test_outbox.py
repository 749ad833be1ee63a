"""What has left, and what may be begun: byte by byte, without sockets."""

from __future__ import annotations

import asyncio

import pytest
from wsproto.connection import SERVER, Connection
from wsproto.events import Ping, Pong, TextMessage

from tests.upstream.scripted_wire import ScriptedWire
from wsproxy.core.wire.deflate import DeflateParameters
from wsproxy.core.wire.websocket import WebSocket
from wsproxy.upstream.outbox import THREAD_BYTES, TURN_BYTES, Outbox

KEY = b"\x01\x02\x03\x04"


def an_outbox(
    wire: ScriptedWire, *, deflate: DeflateParameters | None = None
) -> tuple[Outbox, WebSocket]:
    websocket = WebSocket(mask_key=lambda: KEY, deflate=deflate)
    outbox = Outbox(on_sent=lambda: None)
    outbox.open(wire, websocket)
    return outbox, websocket


def arrived(wire: ScriptedWire) -> list[object]:
    server = Connection(SERVER)
    server.receive_data(bytes(wire.taken))
    return [event.data if isinstance(event, TextMessage) else event for event in server.events()]


async def test_a_ticket_is_sent_with_the_last_byte_of_its_frame() -> None:
    wire = ScriptedWire()
    outbox, _ = an_outbox(wire)
    outbox.put_text(b"turn", 1)
    size = len(wire.held)
    for _ in range(size):
        assert (outbox.take_sent(), outbox.unsent()) == ([], [1])
        wire.take(1)
    outbox.pump()
    assert (outbox.take_sent(), outbox.unsent()) == ([1], [])
    assert arrived(wire) == ["turn"]


async def test_no_frame_is_begun_before_the_one_ahead_has_left() -> None:
    wire = ScriptedWire()
    outbox, _ = an_outbox(wire)
    outbox.put_text(b"first", 1)
    begun = bytes(wire.held)
    outbox.put_text(b"second", 2)
    outbox.put_pong(b"pong")
    assert wire.held == begun
    wire.take(3)
    outbox.pump()
    assert (outbox.take_sent(), outbox.unsent()) == ([], [1, 2])


async def test_a_write_that_fails_proves_nothing() -> None:
    wire = ScriptedWire(fails_next=True)
    outbox, _ = an_outbox(wire)
    outbox.put_text(b"turn", 1)
    assert wire.get_write_buffer_size() == 0
    outbox.pump()
    outbox.put_text(b"next", 2)
    assert (outbox.take_sent(), outbox.unsent()) == ([], [1, 2])


async def test_control_frames_overtake_messages_but_never_split_one() -> None:
    wire = ScriptedWire()
    outbox, websocket = an_outbox(wire)
    outbox.put_text(b"first" * 1000, 1)
    outbox.put_text(b"second", 2)
    outbox.put_control(websocket.ping(b"ours"))
    wire.take(100)
    outbox.pump()
    while wire.take():
        outbox.pump()
        if not wire.held:
            break
    assert arrived(wire) == ["first" * 1000, Ping(b"ours"), "second"]
    assert outbox.take_sent() == [1, 2]


async def test_of_pongs_that_wait_only_the_last_is_sent() -> None:
    wire = ScriptedWire()
    outbox, websocket = an_outbox(wire)
    outbox.put_text(b"first", 1)
    for payload in (b"\x01a", b"\x01b", b"\x01c"):
        websocket.feed(b"\x89\x02" + payload)
        outbox.put_pong(websocket.take_outgoing())
    wire.is_taking = wire.take()
    outbox.pump()
    assert arrived(wire) == ["first", Pong(b"\x01c")]


async def test_a_large_message_lets_others_have_their_turn() -> None:
    wire = ScriptedWire(is_taking=True)
    outbox, _ = an_outbox(wire)
    payload = b"x" * (3 * TURN_BYTES)
    outbox.put_text(payload, 1)
    assert len(wire.taken) < 2 * TURN_BYTES
    assert outbox.unsent() == [1]
    for _ in range(5):
        await asyncio.sleep(0)
    assert outbox.take_sent() == [1]
    assert "".join(part for part in arrived(wire) if isinstance(part, str)) == payload.decode()


async def test_while_one_is_compressed_in_a_thread_control_frames_go_and_messages_wait() -> None:
    wire = ScriptedWire(is_taking=True)
    is_sent = asyncio.Event()
    websocket = WebSocket(mask_key=lambda: KEY, deflate=DeflateParameters())
    outbox = Outbox(on_sent=is_sent.set)
    outbox.open(wire, websocket)
    outbox.put_text(b"x" * (THREAD_BYTES + 1), 1)
    outbox.put_text(b"behind", 2)
    outbox.put_control(websocket.ping(b""))
    assert bytes(wire.taken[:1]) == b"\x89"
    assert (outbox.take_sent(), outbox.unsent()) == ([], [1, 2])
    async with asyncio.timeout(5):
        await is_sent.wait()
    assert (outbox.take_sent(), outbox.unsent()) == ([1, 2], [])


@pytest.mark.parametrize("is_begun", [True, False], ids=["begun", "waiting"])
async def test_after_a_stop_only_what_was_begun_goes_on(is_begun: bool) -> None:
    wire = ScriptedWire()
    outbox, websocket = an_outbox(wire)
    if is_begun:
        outbox.put_text(b"begun", 1)
    outbox.stop()
    outbox.put_text(b"never", 2)
    outbox.put_control(websocket.close(1000))
    wire.is_taking = wire.take()
    outbox.pump()
    assert (outbox.take_sent(), outbox.unsent()) == ([1] if is_begun else [], [2])
    assert bytes(wire.taken[-8:-6]) == b"\x88\x82"
