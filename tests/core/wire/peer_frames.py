"""Frames as a server writes them, right or wrong, and byte streams for the properties."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from hypothesis import strategies as st

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
RSV1 = 0x40


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    is_masked: bool = False,
    length_bytes: int | None = None,
) -> bytes:
    """One frame; `length_bytes` 0, 2 or 8 forces a way to tell the length."""
    size = len(payload)
    if length_bytes is None:
        length_bytes = 0 if size < 126 else 2 if size < 1 << 16 else 8
    short = {0: size, 2: 126, 8: 127}[length_bytes]
    head = bytes((fin << 7 | rsv | opcode, is_masked << 7 | short))
    extended = size.to_bytes(length_bytes, "big") if length_bytes else b""
    return head + extended + (bytes(4) if is_masked else b"") + payload


def close(code: int, reason: str = "") -> bytes:
    """A close frame."""
    return frame(CLOSE, code.to_bytes(2, "big") + reason.encode())


@dataclass
class Deflating:
    """The compressing side of a server, window kept from message to message."""

    stream: zlib._Compress = field(default_factory=lambda: zlib.compressobj(wbits=-15))

    def __call__(self, payload: bytes) -> bytes:
        return (self.stream.compress(payload) + self.stream.flush(zlib.Z_SYNC_FLUSH))[:-4]


def chunks(data: bytes, cuts: Iterable[int]) -> Iterator[bytes]:
    """The stream cut at these places."""
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return (data[start:stop] for start, stop in pairwise(places))


texts = st.one_of(
    st.text(max_size=20),
    st.integers(100, 140).map(lambda size: "ä" * size),
    st.sampled_from((65_534, 65_535, 65_536, 70_000)).map(lambda size: "x" * size),
).map(str.encode)

controls = st.one_of(
    st.binary(max_size=125).map(lambda payload: frame(PING, payload)),
    st.binary(max_size=125).map(lambda payload: frame(PONG, payload)),
)


@st.composite
def fragmented(draw: st.DrawFn, payloads: st.SearchStrategy[bytes], *, rsv: int = 0) -> bytes:
    """One message in fragments, control frames between them unless it is compressed."""
    payload = draw(payloads)
    cuts = sorted(draw(st.lists(st.integers(0, len(payload)), min_size=1, max_size=3)))
    parts = [payload[a:b] for a, b in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
    stream = frame(TEXT, parts[0], fin=False, rsv=rsv)
    for number, part in enumerate(parts[1:], 2):
        stream += b"" if rsv else draw(st.just(b"") | controls)
        stream += frame(CONTINUATION, part, fin=number == len(parts))
    return stream


#: What breaks a rule, or may: any opcode, any reserved bit, masked, lengths told the long way.
odd_frames = st.one_of(
    st.builds(
        frame,
        st.integers(0, 15),
        st.binary(max_size=130),
        fin=st.booleans(),
        rsv=st.sampled_from((0, 0, 0, 0x10, 0x20, RSV1)),
        is_masked=st.sampled_from((False, False, False, True)),
    ),
    st.builds(frame, st.just(TEXT), st.binary(max_size=40), length_bytes=st.sampled_from((2, 8))),
    st.builds(
        close,
        st.sampled_from((999, 1000, 1001, 1002, 1005, 1006, 1008, 1009, 1011, 1012, 2999, 3000)),
        st.sampled_from(("", "bye", "websocket_connection_limit_reached")),
    ),
    st.just(frame(CLOSE, b"\x03")),
    st.just(frame(CLOSE, b"\x03\xe8\xff")),
)

whole_texts = texts.map(lambda payload: frame(TEXT, payload))

#: Mostly what is allowed, now and then something odd, every frame whole.
streams = st.lists(
    st.one_of(whole_texts, whole_texts, fragmented(texts), controls, odd_frames), max_size=8
).map(b"".join)


def is_judged_alike(odd: bytes) -> bool:
    """Whether wsproto with its extension ends at this frame as we do.

    It inflates a fragment before the message is whole, and a binary message at all, and may
    already blame what it finds.
    """
    is_first_fragment = odd[0] & (0x80 | RSV1) == RSV1
    is_compressed_binary = odd[0] & (RSV1 | 0x0F) == RSV1 | BINARY
    return not is_first_fragment and not is_compressed_binary


@st.composite
def compressed_streams(draw: st.DrawFn) -> bytes:
    """Plain, compressed and compressed fragmented messages in one context, sometimes an odd one."""
    deflate = Deflating()
    stream = b""
    for kind in draw(st.lists(st.integers(0, 9), max_size=8)):
        if kind == 0:
            stream += draw(whole_texts | controls)
        elif kind == 1:
            stream += draw(odd_frames.filter(is_judged_alike))
        elif kind < 4:
            stream += draw(fragmented(texts.map(deflate), rsv=RSV1))
        else:
            stream += frame(TEXT, deflate(draw(texts)), rsv=RSV1)
    return stream
