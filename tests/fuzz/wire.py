"""Bytes of upstream: the answer to the upgrade, and the frames behind it.

However a stream is cut into reads, the same must come of it. A `wire` input begins with one byte:
its lowest bit says whether compression was agreed, the next whether messages are kept small.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from tests.core.wire.peer_frames import chunks
from tests.fuzz.contract import CANARY, demand, has_canary
from tests.fuzz.mutator import reshaped_json
from wsproxy.core.events import TurnEnded, TurnStarted
from wsproxy.core.ids import ConnectionId, LaneName, TurnId
from wsproxy.core.multiplex.relay import Relay, Stream
from wsproxy.core.wire import frames
from wsproxy.core.wire.deflate import DeflateParameters
from wsproxy.core.wire.handshake import (
    MAX_BODY_BYTES,
    Accepted,
    Handshake,
    HandshakeError,
    Outcome,
    Refused,
)
from wsproxy.core.wire.websocket import MAX_MESSAGE_BYTES, Ended, Message, WebSocket

SMALL_MESSAGE_BYTES: Final = 300
NONCE: Final = bytes(range(16))


# ── Frames ───────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of a stream, however it was cut."""

    messages: Sequence[Message]
    ended: Ended | None
    verdicts: Sequence[str]
    relayed: Sequence[bytes]


class Receiver:
    """The open connection with two turns on it, as far as no core is needed."""

    def __init__(self, setting: int) -> None:
        is_deflated = bool(setting & 1)
        self._socket = WebSocket(
            mask_key=lambda: bytes(4),
            deflate=DeflateParameters() if is_deflated else None,
            max_message_bytes=SMALL_MESSAGE_BYTES if setting & 2 else MAX_MESSAGE_BYTES,
        )
        self._max_bytes = SMALL_MESSAGE_BYTES if setting & 2 else MAX_MESSAGE_BYTES
        self._relay = Relay(ConnectionId(1))
        self._streams = [_stream("t1"), _stream("t2")]
        for number, stream in enumerate(self._streams, start=1):
            self._relay.add(LaneName(f"l0{number}"), stream, is_default=False)
        self._messages: list[Message] = []
        self._verdicts: list[str] = []
        self._written: list[list[bytes]] = [[], []]

    def feed(self, data: bytes) -> None:
        """One read."""
        for message in self._socket.feed(data):
            self._messages.append(message)
            if isinstance(message, bytes):
                demand(len(message) <= self._max_bytes, "a message over its limit")
                self._relay_one(message)
        self._socket.take_outgoing()
        self._relay.drain(self._write)

    def _relay_one(self, message: bytes) -> None:
        significant = self._relay.receive(message, 0.0)
        self._verdicts.append(type(significant).__name__)
        if isinstance(significant, TurnStarted | TurnEnded):
            stream = self._relay.find(significant.turn)
            assert stream is not None
            self._write(stream, stream.take_pending())  # as the driver does at once
        if isinstance(significant, TurnEnded):
            self._relay.remove(significant.turn)

    def _write(self, stream: Stream, data: bytes) -> None:
        self._written[self._streams.index(stream)].append(data)

    @property
    def heard(self) -> Heard:
        """All that came of it so far."""
        relayed = [b"".join(written) for written in self._written]
        return Heard(self._messages, self._socket.ended, self._verdicts, relayed)


def _stream(turn: str) -> Stream:
    stream = Stream(TurnId(turn), is_streaming=True, parent="resp_0", restored=b"null")
    stream.is_started = turn == "t1"
    return stream


def check_frames(raw: bytes) -> None:
    """See the head of this file."""
    setting, stream = raw[0] if raw else 0, raw[1:]
    heard = []
    for reads in _reads(stream):
        receiver = Receiver(setting)
        for read in reads:
            receiver.feed(read)
        heard.append(receiver.heard)
    demand(heard[0] == heard[1] == heard[2], "cut otherwise", heard)


def _reads(stream: bytes) -> Iterator[Iterator[bytes]]:
    """The stream in one read, in one read a byte, and in a few reads."""
    yield iter((stream,))
    yield (stream[at : at + 1] for at in range(len(stream)))
    chance = Random(zlib.crc32(stream))
    yield chunks(stream, [chance.randrange(len(stream) + 1) for _ in range(chance.randint(1, 6))])


def frame_pieces(raw: bytes) -> list[bytes]:
    """The byte of the setting, then whole frames as long as there are any, then the rest."""
    pieces, at = [raw[:1]], 1
    while at + 2 <= len(raw):
        start = at + frames.header_bytes(raw[at + 1])
        stop = start + frames.payload_bytes(raw[at:start])
        if not start <= stop <= len(raw):
            break
        pieces.append(raw[at:stop])
        at = stop
    return [*pieces, raw[at:]]


def mended_frame(piece: bytes) -> bytes:
    """A frame whose header tells the length that its payload has now."""
    if len(piece) < 2:
        return piece
    payload = piece[frames.header_bytes(piece[1]) :]
    head = frames.header(piece[0], len(payload))
    return head[:1] + bytes((head[1] & ~frames.MASK,)) + head[2:] + payload


def reshaped_frames(raw: bytes, other: bytes, chance: Random) -> bytes:
    """One frame with another event in it: of the whole stream, or of the one frame given."""
    pieces = frame_pieces(raw) if raw[:1] < b"\x80" else [raw]
    at = chance.randrange(len(pieces))
    pieces[at] = mended_frame(reshaped_json(pieces[at], other, chance)) if pieces[at] else b""
    return b"".join(pieces)


# ── The answer to the upgrade ────────────────────────────────────────────────────────────────


def check_handshake(raw: bytes) -> None:
    """The answer to the upgrade; a first byte that is odd stands for no compression offered."""
    is_offered = not (raw[:1] or b"\0")[0] & 1
    answer = raw[1:]
    outcomes = [_outcome(reads, is_offered) for reads in _reads(answer)]
    for outcome in outcomes:
        demand(not has_canary(repr(outcome)), "the key is told")
        if isinstance(outcome, Refused):
            demand(len(outcome.body) <= MAX_BODY_BYTES, "a refusal's body is too long")
    whole, bytewise, cut = map(_decided, outcomes)
    demand(whole == bytewise == cut, "cut otherwise", outcomes)


def _outcome(reads: Iterator[bytes], is_offered: bool) -> Outcome:
    """As the dialer has it: fed until there is an outcome, and what is read then are frames."""
    shake = Handshake(
        target=b"/v1/responses",
        host=b"api.example.com",
        headers=[(b"Authorization", b"Bearer " + CANARY.encode())],
        nonce=NONCE,
        is_deflate_offered=is_offered,
    )
    for read in reads:
        outcome = shake.feed(read) if read else None
        if outcome is not None:
            return _with_rest(outcome, reads)
    return shake.give_up("the connection ended during the upgrade")


def _with_rest(outcome: Outcome, reads: Iterator[bytes]) -> Outcome:
    if isinstance(outcome, Refused):
        return outcome
    return Accepted(outcome.headers, outcome.deflate, outcome.trailing + b"".join(reads))


def _decided(outcome: Outcome) -> tuple[object, ...]:
    """What the cuts may not change: the verdict; a head that breaks off may be told in two ways."""
    if isinstance(outcome, Accepted):
        return ("accepted", list(outcome.headers), outcome.deflate, outcome.trailing)
    return ("refused", outcome.fault, outcome.status, list(outcome.headers))


def check_request_headers(raw: bytes) -> None:
    """Headers of a client on the upgrade: written as they are, or refused without being told."""
    name, _, value = raw.partition(b":")
    secret = value + CANARY.encode()
    try:
        shake = Handshake(
            target=b"/v1/responses",
            host=b"h",
            headers=[(b"Authorization", secret), (name, value)],
            nonce=NONCE,
            is_deflate_offered=True,
        )
    except HandshakeError as error:
        demand(not has_canary(repr(error)), "the key is told", error)
        return
    demand(shake.request.count(b"\r\n\r\n") == 1, "a head inside the head")
