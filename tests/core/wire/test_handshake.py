"""The opening handshake: what is asked, and what each answer means."""

from __future__ import annotations

import base64
import hashlib

import h11
import pytest

from tests.canary import SECRET, WATCH
from wsproxy.core.multiplex.recovery import Fault
from wsproxy.core.wire.deflate import DeflateParameters
from wsproxy.core.wire.handshake import Accepted, Handshake, HandshakeError, Outcome, Refused

NONCE = bytes(range(16))
HEADERS = [
    (b"Authorization", b"Bearer " + SECRET.encode()),
    (b"OpenAI-Beta", b"a"),
    (b"openai-beta", b"b"),
]
ACCEPT = base64.b64encode(
    hashlib.sha1(base64.b64encode(NONCE) + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
)
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\n"
GOOD = (
    SWITCHING
    + b"Upgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n"
    + b"Sec-WebSocket-Accept: %b\r\nx-models-etag: W/1\r\n" % ACCEPT
)


def handshake(*, is_deflate_offered: bool = True, **changes: object) -> Handshake:
    arguments: dict[str, object] = {
        "target": b"/v1/responses?api-version=%2F&&",
        "host": b"api.example.com",
        "headers": [
            (b"Authorization", b"Bearer " + SECRET.encode()),
            (b"OpenAI-Beta", b"a"),
            (b"openai-beta", b"b"),
        ],
        "nonce": NONCE,
        "is_deflate_offered": is_deflate_offered,
    }
    return Handshake(**{**arguments, **changes})  # type: ignore[arg-type]


def answered(answer: bytes, *, is_deflate_offered: bool = True) -> Outcome | None:
    shaking = handshake(is_deflate_offered=is_deflate_offered)
    outcome = shaking.feed(answer)
    WATCH.look("the repr of a handshake", repr((shaking, outcome)))
    return outcome


# ---- The request -----------------------------------------------------------------------------


def test_the_request_is_what_was_given_and_nothing_is_invented() -> None:
    lines = handshake().request.split(b"\r\n")
    assert lines[0] == b"GET /v1/responses?api-version=%2F&& HTTP/1.1"
    assert set(lines[1:-2]) == {
        b"Host: api.example.com",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
        b"Authorization: Bearer " + SECRET.encode(),
        b"OpenAI-Beta: a",
        b"openai-beta: b",
    }


def test_without_deflate_no_extension_is_asked_for() -> None:
    assert b"Extensions" not in handshake(is_deflate_offered=False).request


def test_headers_that_the_handshake_says_itself_are_not_taken_from_the_caller() -> None:
    theirs = [(b"Host", b"evil"), (b"sec-websocket-protocol", b"x"), (b"Content-Length", b"5")]
    request = handshake(headers=theirs).request
    assert b"evil" not in request
    assert b"protocol" not in request
    assert b"Content-Length" not in request


@pytest.mark.parametrize(
    "changes",
    [
        {"headers": [(b"a", SECRET.encode() + b"\r\nc: d")]},
        {"headers": [(b"a key", b"c")]},
        {"target": b"/a key"},
    ],
    ids=["value", "name", "target"],
)
def test_what_http_does_not_allow_is_neither_written_nor_told(changes: dict[str, object]) -> None:
    with pytest.raises(HandshakeError) as caught:
        handshake(**changes)
    assert "key" not in str(caught.value)
    WATCH.look("an error", repr(caught.value))


# ---- The answer ------------------------------------------------------------------------------


def test_a_good_101_is_accepted_with_its_headers_and_the_bytes_behind_it() -> None:
    outcome = answered(GOOD + b"\r\n\x81\x02hi")
    assert isinstance(outcome, Accepted)
    assert (outcome.deflate, outcome.trailing) == (None, b"\x81\x02hi")
    assert (b"x-models-etag", b"W/1") in outcome.headers


def test_the_answer_may_come_byte_by_byte_and_after_other_1xx() -> None:
    shaking = handshake()
    early = b"HTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\n"
    outcomes = [shaking.feed(bytes((byte,))) for byte in early + GOOD + b"\r\n"]
    assert outcomes[:-1] == [None] * (len(outcomes) - 1)
    assert isinstance(outcomes[-1], Accepted)


def test_the_agreed_deflate_is_read() -> None:
    line = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=12\r\n\r\n"
    outcome = answered(GOOD + line)
    assert isinstance(outcome, Accepted)
    assert outcome.deflate == DeflateParameters(client_max_window_bits=12)


ODD = {
    "wrong-accept": GOOD.replace(ACCEPT, base64.b64encode(bytes(20))),
    "no-accept": GOOD.replace(b"Sec-WebSocket-Accept", b"Other"),
    "two-accepts": GOOD + b"Sec-WebSocket-Accept: " + ACCEPT + b"\r\n",
    "no-upgrade": GOOD.replace(b"Upgrade: WebSocket", b"Other: x"),
    "another-upgrade": GOOD.replace(b"WebSocket\r\n", b"h2c\r\n", 1),
    "no-connection": GOOD.replace(b"Connection: keep-alive, Upgrade", b"Connection: close"),
    "unasked-subprotocol": GOOD + b"Sec-WebSocket-Protocol: chat\r\n",
    "unasked-extension": GOOD + b"Sec-WebSocket-Extensions: x-brotli\r\n",
    "two-extensions": GOOD + b"Sec-WebSocket-Extensions: permessage-deflate\r\n" * 2,
    "odd-parameter": GOOD + b"Sec-WebSocket-Extensions: permessage-deflate; x=\r\n",
}


@pytest.mark.parametrize("head", ODD.values(), ids=ODD)
def test_an_odd_101_is_no_websocket(head: bytes) -> None:
    outcome = answered(head + b"\r\n")
    assert isinstance(outcome, Refused)
    assert (outcome.fault, outcome.status) == (Fault.UPGRADE_UNSUPPORTED, 101)
    assert outcome.detail.startswith("odd 101: ")


def test_deflate_that_was_not_offered_is_no_websocket() -> None:
    line = b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    outcome = answered(GOOD + line, is_deflate_offered=False)
    assert isinstance(outcome, Refused)
    assert outcome.fault is Fault.UPGRADE_UNSUPPORTED


STATUSES = {
    200: Fault.UPGRADE_FAILED,
    301: Fault.UPGRADE_UNSUPPORTED,
    307: Fault.UPGRADE_UNSUPPORTED,
    400: Fault.UPGRADE_FAILED,
    401: Fault.UPGRADE_UNAUTHORIZED,
    403: Fault.UPGRADE_UNAUTHORIZED,
    404: Fault.UPGRADE_UNSUPPORTED,
    405: Fault.UPGRADE_UNSUPPORTED,
    426: Fault.UPGRADE_UNSUPPORTED,
    429: Fault.UPGRADE_RATE_LIMITED,
    500: Fault.UPGRADE_FAILED,
    501: Fault.UPGRADE_UNSUPPORTED,
    503: Fault.UPGRADE_FAILED,
}


@pytest.mark.parametrize(("status", "fault"), STATUSES.items())
def test_each_status_has_its_fault(status: int, fault: Fault) -> None:
    outcome = answered(b"HTTP/1.1 %d X\r\nContent-Length: 2\r\nRetry-After: 3\r\n\r\n{}" % status)
    assert isinstance(outcome, Refused)
    assert (outcome.fault, outcome.status, outcome.body) == (fault, status, b"{}")
    assert (b"Retry-After", b"3") in outcome.headers


def test_of_a_long_refusal_the_first_kib_is_enough() -> None:
    shaking = handshake()
    assert shaking.feed(b"HTTP/1.1 403 X\r\nContent-Length: 9999\r\n\r\n") is None
    assert shaking.is_refused
    outcome = shaking.feed(b"x" * 2000)
    assert isinstance(outcome, Refused)
    assert outcome.body == b"x" * 1024


def test_a_refusal_that_stops_in_its_body_still_has_its_status() -> None:
    shaking = handshake()
    shaking.feed(b"HTTP/1.1 401 X\r\nContent-Length: 99\r\n\r\npart")
    outcome = shaking.feed(b"")
    assert isinstance(outcome, Refused)
    assert (outcome.fault, outcome.status) == (Fault.UPGRADE_UNAUTHORIZED, 401)
    assert outcome.body == b"part"


UNREADABLE = {
    "nothing": ([b""], Fault.UNREACHABLE),
    "half-a-head": ([b"HTTP/1.1 101 Swi", b""], Fault.UNREACHABLE),
    "not-http": ([b"SSH-2.0-x\r\n\r\n"], Fault.UPGRADE_FAILED),
    "endless-head": ([b"HTTP/1.1 200 X\r\n", b"a: " + b"b" * 70_000], Fault.UPGRADE_FAILED),
    "endless-1xx": ([b"HTTP/1.1 103 X\r\na: b\r\n\r\n" * 1000] * 3, Fault.UPGRADE_FAILED),
}


@pytest.mark.parametrize(("reads", "fault"), UNREADABLE.values(), ids=UNREADABLE)
def test_an_answer_that_cannot_be_read_has_no_status(reads: list[bytes], fault: Fault) -> None:
    shaking = handshake()
    outcomes = [shaking.feed(read) for read in reads]
    last = outcomes[-1]
    assert isinstance(last, Refused)
    assert (last.fault, last.status) == (fault, None)


def test_h11_reads_the_request_as_a_server_would() -> None:
    server = h11.Connection(h11.SERVER)
    server.receive_data(handshake().request)
    event = server.next_event()
    assert isinstance(event, h11.Request)
    assert event.target == b"/v1/responses?api-version=%2F&&"
