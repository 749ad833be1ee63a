"""What reading one upstream message costs: our reader in front of wsproto, and wsproto alone.

    python -m tests.benchmarks.frame_reading

Prints a table in µs per message, the best of several interleaved rounds, for reads that bring 1,
4 and 16 messages; then what sending costs, and what speaks for this mask and this deflate level.
"""

from __future__ import annotations

import random
import time
import zlib
from collections.abc import Callable, Iterable
from functools import partial
from itertools import product
from string import ascii_lowercase

from wsproto.connection import CLIENT, Connection
from wsproto.events import TextMessage
from wsproto.extensions import PerMessageDeflate

from wsproxy.core.wire.deflate import DeflateParameters
from wsproxy.core.wire.frames import mask
from wsproxy.core.wire.websocket import WebSocket

ROUNDS = 7
MESSAGES = 4_000
KEY = b"\x12\x34\x56\x78"

#: A delta of 247 bytes, as upstream sends thousands of in a turn.
EVENT = (
    '{"type":"response.output_text.delta","content_index":0,"delta":"Hello world, this is",'
    '"item_id":"msg_%032x","logprobs":[],"obfuscation":"CsGoBBsuRWFDB","output_index":1,'
    '"sequence_number":%d,"stream_id":"l01"}'
)


def events(count: int) -> list[bytes]:
    """Different messages of the same shape."""
    return [(EVENT % (number * 7919, number)).encode() for number in range(count)]


def plain(payloads: Iterable[bytes]) -> list[bytes]:
    """Whole text frames of up to 64 KiB, as a server sends them."""
    return [_head(0x81, len(payload)) + payload for payload in payloads]


def compressed(payloads: Iterable[bytes]) -> list[bytes]:
    """The same, compressed in one context."""
    stream = zlib.compressobj(wbits=-15)
    shrunk = [
        (stream.compress(payload) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4] for payload in payloads
    ]
    return [_head(0xC1, len(payload)) + payload for payload in shrunk]


def _head(first_byte: int, size: int) -> bytes:
    if size < 126:
        return bytes((first_byte, size))
    if size < 1 << 16:
        return bytes((first_byte, 126)) + size.to_bytes(2, "big")
    return bytes((first_byte, 127)) + size.to_bytes(8, "big")


def read_by_us(reads: list[bytes], *, is_deflated: bool) -> int:
    """Feed all reads; returns how many messages came."""
    deflate = DeflateParameters() if is_deflated else None
    engine = WebSocket(mask_key=lambda: bytes(4), deflate=deflate)
    return sum(len(engine.feed(data)) for data in reads)


def read_by_wsproto(reads: list[bytes], *, is_deflated: bool) -> int:
    """The same by wsproto alone, its text encoded again as a relay needs it."""
    extension = PerMessageDeflate()
    extension.finalize("permessage-deflate")
    engine = Connection(CLIENT, [extension] if is_deflated else [])
    count = 0
    for data in reads:
        engine.receive_data(data)
        for event in engine.events():
            assert isinstance(event, TextMessage)
            event.data.encode()
            count += event.message_finished
    return count


def best(*candidates: Callable[[], object]) -> list[float]:
    """Seconds of the fastest round of each, rounds interleaved."""
    fastest = [float("inf")] * len(candidates)
    for _ in range(ROUNDS):
        for place, candidate in enumerate(candidates):
            began = time.perf_counter()
            candidate()
            fastest[place] = min(fastest[place], time.perf_counter() - began)
    return fastest


def main() -> None:
    """Print what reading costs, then large messages, then what sending costs."""
    print("µs per message        ours   wsproto alone")
    for is_deflated, batch in product((False, True), (1, 4, 16)):
        compare_readers(batch, is_deflated=is_deflated)
    print("\nms for one message in reads of 64 KiB")
    for size in (27_000, 1_000_000, 5_000_000):
        stream = plain([b"x" * size])[0]
        reads = [stream[at : at + 65_536] for at in range(0, len(stream), 65_536)]
        (spent,) = best(partial(read_by_us, reads, is_deflated=False))
        print(f"{size:9,} bytes     {1e3 * spent:6.2f}")
    print("\nms to send one message   plain   deflated   deflated again")
    for size in (20_000, 128 * 1024, 1_000_000):
        compare_sending(prose(size))
    print("\nms to mask             translate   big integer")
    for size in (2_000, 40_000, 1_000_000):
        compare_masks(prose(size))
    print("\nµs to deflate 20 KB      first            again")
    for level in (1, 3, 6):
        compare_level(level, prose(20_000))


def compare_masks(payload: bytes) -> None:
    """One line: the mask as it is, and the XOR of two large integers."""
    seconds = best(partial(mask, payload, KEY), partial(mask_by_integer, payload))
    print(f"{len(payload):9,} bytes       {1e3 * seconds[0]:7.3f}   {1e3 * seconds[1]:7.3f}")


def mask_by_integer(payload: bytes) -> bytes:
    """The rejected way."""
    key = (KEY * (len(payload) // 4 + 1))[: len(payload)]
    masked = int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")
    return masked.to_bytes(len(payload), "little")


def compare_level(level: int, payload: bytes) -> None:
    """One line: a first and a repeated message at this level."""
    firsts: list[float] = []
    agains: list[float] = []
    sizes: list[int] = []
    for _ in range(ROUNDS):
        stream = zlib.compressobj(level, wbits=-15)
        sizes = []
        for spent in (firsts, agains):
            began = time.perf_counter()
            sizes.append(len(stream.compress(payload) + stream.flush(zlib.Z_SYNC_FLUSH)))
            spent.append(time.perf_counter() - began)
    print(
        f"level {level}             {1e6 * min(firsts):6.0f} ({sizes[0]:,} bytes)"
        f"   {1e6 * min(agains):4.0f} ({sizes[1]:,} bytes)"
    )


def compare_readers(batch: int, *, is_deflated: bool) -> None:
    """One line: reads that bring `batch` messages."""
    payloads = events(MESSAGES)
    wire = compressed(payloads) if is_deflated else plain(payloads)
    reads = [b"".join(wire[at : at + batch]) for at in range(0, MESSAGES, batch)]
    seconds = best(
        partial(read_by_us, reads, is_deflated=is_deflated),
        partial(read_by_wsproto, reads, is_deflated=is_deflated),
    )
    ours, theirs = (1e6 * spent / MESSAGES for spent in seconds)
    kind = "deflate" if is_deflated else "plain"
    print(f"{kind:8} {batch:2} a read    {ours:5.2f}   {theirs:5.1f}")


def compare_sending(payload: bytes) -> None:
    """One line: a first and a repeated message."""
    deflating = WebSocket(mask_key=lambda: KEY, deflate=DeflateParameters())
    first = len(deflating.text(payload))
    again = len(deflating.text(payload))
    seconds = best(
        partial(WebSocket(mask_key=lambda: KEY).text, payload),
        lambda: WebSocket(mask_key=lambda: KEY, deflate=DeflateParameters()).text(payload),
        partial(deflating.text, payload),
    )
    print(
        f"{len(payload):9,} bytes       {1e3 * seconds[0]:6.2f}   {1e3 * seconds[1]:6.2f}"
        f" ({first:,} bytes)   {1e3 * seconds[2]:6.2f} ({again:,} bytes)"
    )


def prose(size: int) -> bytes:
    """Text that deflates as conversations do, about by half."""
    chance = random.Random(1)
    words = ["".join(chance.choices(ascii_lowercase, k=chance.randint(2, 9))) for _ in range(3000)]
    return " ".join(chance.choices(words, k=size // 6)).encode()[:size]


if __name__ == "__main__":
    main()
