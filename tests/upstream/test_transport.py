"""An open link over real sockets: what is told, in which order, and what is proven unsent."""

from __future__ import annotations

import asyncio
import errno
import random
import time
from contextlib import suppress

import pytest
from wsproto.events import CloseConnection, Ping, TextMessage
from wsproto.events import Pong as PongFrame

from tests.core.wire.peer_frames import PING, TEXT, close, frame
from tests.upstream.raw_upstream import ONE, Noted, Peer, dial, send, serving
from tests.upstream.scripted_wire import ScriptedWire
from wsproxy.core.multiplex.recovery import Fault
from wsproxy.core.wire.handshake import Accepted
from wsproxy.core.wire.websocket import Pong, WebSocket
from wsproxy.upstream import transport
from wsproxy.upstream.transport import WebSocketLink

#: Text that deflate cannot make small, larger than what two sockets' buffers hold.
LARGE = random.Random(1).randbytes(2_500_000).hex().encode()


async def opened(port: int, **settings: object) -> tuple[WebSocketLink, Noted]:
    link, noted = dial(f"ws://127.0.0.1:{port}/v1/responses", **settings)
    await noted.until("opened")
    return link, noted


# ---- Messages --------------------------------------------------------------------------------


async def test_what_one_read_brings_is_told_at_once() -> None:
    async def script(peer: Peer) -> None:
        await peer.accept(b"x-models-etag: W/1\r\n")
        assert await peer.text() == "turn"
        peer.writer.write(frame(TEXT, b"one") + frame(TEXT, b"two"))
        await peer.reader.read()

    async with serving(script) as port:
        link, noted = await opened(port)
        send(link, noted, b"turn", 7)
        await noted.until("received", [b"one", b"two"])
        link.abort()
    assert noted.names == ["opened", "sent", "received"]
    assert noted.events[0][1][b"x-models-etag"] == b"W/1"
    assert noted.events[1] == ("sent", 7)


async def test_frames_behind_the_101_are_not_lost() -> None:
    async def script(peer: Peer) -> None:
        await peer.accept(behind=frame(TEXT, b"early"))
        await peer.reader.read()

    async with serving(script) as port:
        link, noted = await opened(port)
        await noted.until_heard(b"early")
        link.abort()


@pytest.mark.parametrize("is_deflated", [False, True], ids=["plain", "deflate"])
async def test_messages_of_all_sizes_leave_in_order_and_nothing_comes_inside_a_frame(
    is_deflated: bool,
) -> None:
    payloads = (b"a", LARGE, b"b" * 200_000, b"c")

    async def script(peer: Peer) -> None:
        await peer.accept(is_deflated=is_deflated)
        heard: list[bytes] = []
        pongs = 0
        while len(heard) < len(payloads) or not pongs:
            event = await peer.event()
            if isinstance(event, TextMessage):
                peer.events.insert(0, event)
                heard.append((await peer.text()).encode())
                peer.writer.write(frame(PING, b"?"))
            else:
                assert event == PongFrame(b"?")
                pongs += 1
        assert heard == list(payloads)
        peer.writer.write(frame(TEXT, b"all heard"))
        await peer.reader.read()

    async with serving(script) as port:
        link, noted = await opened(port)
        for ticket, payload in enumerate(payloads):
            send(link, noted, payload, ticket)
        await noted.until_heard(b"all heard")
        link.abort()
    tickets = [event[1] for event in noted.events if event[0] == "sent"]
    assert tickets == [0, 1, 2, 3]


async def test_our_ping_is_answered() -> None:
    async def script(peer: Peer) -> None:
        await peer.accept()
        assert await peer.event() == Ping(b"there?")
        peer.writer.write(frame(0xA, b"there?"))
        await peer.reader.read()

    async with serving(script) as port:
        link, noted = await opened(port)
        link.ping(b"there?")
        await noted.until_heard(Pong(b"there?"))
        link.abort()


async def test_a_message_given_while_dialling_leaves_after_the_upgrade() -> None:
    async def script(peer: Peer) -> None:
        await peer.accept()
        assert await peer.text() == "early"

    async with serving(script) as port:
        link, noted = dial(f"ws://127.0.0.1:{port}/v1/responses")
        send(link, noted, b"early", 1)
        await noted.until("lost")
    assert noted.names == ["opened", "sent", "lost"]


# ---- What has left ---------------------------------------------------------------------------


@pytest.mark.parametrize("is_deflated", [False, True], ids=["plain", "deflate"])
async def test_a_message_that_the_peer_does_not_take_is_never_told_as_sent(
    is_deflated: bool,
) -> None:
    is_waiting = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.accept(is_deflated=is_deflated)
        assert await peer.text() == "small"
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        peer.writer.write(frame(TEXT, b"go on"))
        await is_waiting.wait()
        peer.reset()

    async with serving(script, receive_buffer=8192) as port:
        link, noted = await opened(port)
        send(link, noted, b"small", 1)
        await noted.until_heard(b"go on")
        for ticket, payload in ((2, LARGE * 4), (3, b"behind"), (4, LARGE)):
            send(link, noted, payload, ticket)
        await _until_the_wire_is_full(link)
        is_waiting.set()
        lost = await noted.until("lost")
    assert lost[1] is Fault.CONNECTION_RESET
    assert lost[3] == [2, 3, 4]
    assert ("sent", 1) in noted.events
    assert noted.names[-1] == "lost"
    send(link, noted, b"too late", 5)


async def _until_the_wire_is_full(link: WebSocketLink) -> None:
    wire = link._wire
    assert wire is not None
    async with asyncio.timeout(5):
        while wire.get_write_buffer_size() == 0:
            await asyncio.to_thread(time.sleep, 0.001)  # also lets the compressing thread run


async def test_a_close_frame_right_behind_the_101_leaves_every_message_unsent() -> None:
    async def script(peer: Peer) -> None:
        await peer.accept(behind=close(1008, "no"))
        assert await peer.closed_with() == 1008

    async with serving(script) as port:
        link, noted = dial(f"ws://127.0.0.1:{port}/v1/responses")
        send(link, noted, b"turn", 1)
        assert await noted.until("lost") == ("lost", Fault.CLOSED_POLICY, "close 1008", [1])


def scripted(wire: ScriptedWire) -> tuple[WebSocketLink, Noted]:
    """An open link above a wire that is told what leaves, without a peer."""
    noted = Noted()
    link = WebSocketLink(ONE, noted)
    link.opened(wire, Accepted((), None, b""), WebSocket(mask_key=lambda: bytes(4)), b"")
    return link, noted


async def test_sent_is_told_before_what_came_after_it() -> None:
    wire = ScriptedWire(is_taking=True)
    link, noted = scripted(wire)
    send(link, noted, b"turn", 1)
    link.data_received(frame(TEXT, b"reply"))
    assert noted.names == ["opened", "sent", "received"]
    send(link, noted, b"next", 2)
    link.eof_received()
    link.connection_lost(None)
    await asyncio.sleep(0)
    assert noted.names[3:] == ["sent", "lost"]


async def test_a_close_frame_amid_our_message_drops_the_rest_of_it_first() -> None:
    wire = ScriptedWire()
    link, noted = scripted(wire)
    send(link, noted, b"a message of which half has left", 1)
    wire.take(10)
    link.data_received(close(1009))
    assert wire.is_over
    assert len(wire.taken) == 10
    assert "lost" not in noted.names  # bytes may still be leaving until the wire is gone
    link.connection_lost(None)
    assert noted.events[-1] == ("lost", Fault.CLOSED_TOO_BIG, "close 1009", [1])


@pytest.mark.parametrize("has_left", [True, False], ids=["left", "thrown-away"])
async def test_only_what_leaves_while_the_wire_is_dropped_counts_as_sent(has_left: bool) -> None:
    wire = ScriptedWire()
    link, noted = scripted(wire)
    send(link, noted, b"turn", 1)
    link.eof_received()
    assert noted.names == ["opened"]
    if has_left:
        link.resume_writing()
    link.connection_lost(None)
    reason = "the connection ended without a close frame"
    unsent = [] if has_left else [1]
    assert noted.events[-1] == ("lost", Fault.CONNECTION_ENDED, reason, unsent)
    assert (("sent", 1) in noted.events) is has_left


async def test_the_transport_tells_as_soon_as_its_buffer_is_empty() -> None:
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.reader.read()

    async with serving(script) as port:
        link, _ = await opened(port)
        assert link._wire is not None
        assert link._wire.get_write_buffer_limits() == (0, 0)  # type: ignore[attr-defined]
        link.abort()


# ---- Ends ------------------------------------------------------------------------------------

ENDS = {
    "close-1000": (close(1000, "bye"), Fault.CLOSED_NORMALLY, 1000, "close 1000"),
    "close-limit": (
        close(1000, '{"error":{"code":"websocket_connection_limit_reached","mess'),
        Fault.CLOSED_NORMALLY,
        1000,
        "close 1000 websocket_connection_limit_reached",
    ),
    "close-1011": (close(1011), Fault.CLOSED_INTERNAL, 1011, "close 1011"),
    "close-1012": (close(1012), Fault.CLOSED_RESTARTING, 1012, "close 1012"),
    "binary": (frame(2, b"x"), Fault.BINARY_MESSAGE, 1003, "close 1003 a binary message"),
    "reserved": (frame(3), Fault.MALFORMED_FRAME, 1002, "close 1002 Invalid opcode 0x3"),
    "compressed": (
        frame(TEXT, b"x", rsv=0x40),
        Fault.UNNEGOTIATED_COMPRESSION,
        1002,
        "close 1002 compressed, which was not agreed",
    ),
    "too-big": (
        frame(TEXT, bytes(2000))[:4],
        Fault.MESSAGE_TOO_BIG,
        1009,
        "close 1009 a message of 2000 bytes",
    ),
}


@pytest.mark.parametrize(("said", "fault", "code", "detail"), ENDS.values(), ids=ENDS)
async def test_the_peer_is_told_why_it_ends(
    said: bytes, fault: Fault, code: int, detail: str
) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept()
        peer.writer.write(frame(TEXT, b"last") + said)
        assert await peer.closed_with() == code

    async with serving(script) as port:
        _, noted = await opened(port, max_message_bytes=1000)
        assert await noted.until("lost") == ("lost", fault, detail, [])
    assert noted.events[1:-1] == [("received", [b"last"])]


@pytest.mark.parametrize(
    ("is_reset", "fault"),
    [(True, Fault.CONNECTION_RESET), (False, Fault.CONNECTION_ENDED)],
    ids=["reset", "end"],
)
async def test_a_connection_that_breaks_has_its_fault(is_reset: bool, fault: Fault) -> None:
    async def script(peer: Peer) -> None:
        await peer.accept()
        assert await peer.text() == "turn"
        if is_reset:
            peer.reset()

    async with serving(script) as port:
        link, noted = await opened(port)
        send(link, noted, b"turn", 1)
        lost = await noted.until("lost")
    assert (lost[1], lost[3]) == (fault, [])
    assert noted.names == ["opened", "sent", "lost"]


async def test_a_path_that_times_out_is_dead() -> None:
    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.reader.read()

    async with serving(script) as port:
        link, noted = await opened(port)
        link.connection_lost(OSError(errno.ETIMEDOUT, "timed out"))
        assert noted.events[-1][:2] == ("lost", Fault.PATH_DEAD)


async def test_our_close_is_a_handshake() -> None:
    async def script(peer: Peer) -> None:
        await peer.accept()
        event = await peer.event()
        assert event == CloseConnection(1001, "draining")
        peer.writer.write(frame(TEXT, b"last words") + close(1001))
        assert await peer.reader.read() == b""  # we may end the connection, but say nothing more

    async with serving(script) as port:
        link, noted = await opened(port)
        link.close(1001, "draining")
        send(link, noted, b"too late", 1)
        assert await noted.until("lost") == ("lost", Fault.CLOSED_NORMALLY, "close 1001", [1])
        link._drop()
    assert noted.events[1] == ("received", [b"last words"])


async def test_a_close_that_is_not_answered_ends_after_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transport, "CLOSE_TIMEOUT_S", 0.05)

    async def script(peer: Peer) -> None:
        await peer.accept()
        assert await peer.closed_with() == 1000
        await peer.reader.read()

    async with serving(script) as port:
        link, noted = await opened(port)
        link.close(1000)
        lost = await noted.until("lost")
    assert lost[1] is Fault.CLOSED_NORMALLY
    assert lost[2] == "while closing: our close frame was not answered"


async def test_an_abort_tells_what_was_not_begun_and_only_that() -> None:
    async def script(peer: Peer) -> None:
        await peer.accept()
        with suppress(ConnectionError):
            await peer.reader.read()

    async with serving(script) as port:
        link, noted = await opened(port)
        link.send(b"left", 1)
        await noted.until("sent", 1)
        link.send(b"told to the wire, and not yet told of", 2)
        link.send(bytes(32 * 2**20), 3)  # more than both kernels take: on its way, not wholly left
        link.send(b"behind it", 4)
        assert link.abort() == [4]


async def test_nothing_is_told_after_an_abort() -> None:
    async def script(peer: Peer) -> None:
        await peer.accept()
        assert await peer.text() == "turn"
        assert await peer.reader.read() == b""

    async with serving(script) as port:
        link, noted = await opened(port)
        link.send(b"turn", 1)
        await noted.until("sent", 1)
        link.abort()
        await asyncio.sleep(0)
    assert noted.names == ["opened", "sent"]
