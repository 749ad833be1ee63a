"""What a 101 may answer to our offer of permessage-deflate, and what it may not."""

from __future__ import annotations

import pytest

from tests.core.wire.peer_frames import Deflating
from wsproxy.core.wire.deflate import (
    DeflateError,
    DeflateParameters,
    Inflater,
    TooBigError,
    parse_agreement,
)

AGREEMENTS = {
    b"permessage-deflate": DeflateParameters(),
    b"Permessage-Deflate": DeflateParameters(),
    b"permessage-deflate; client_max_window_bits=9": DeflateParameters(client_max_window_bits=9),
    b'permessage-deflate;server_max_window_bits="10"': DeflateParameters(server_max_window_bits=10),
    b"permessage-deflate; server_no_context_takeover; client_no_context_takeover": (
        DeflateParameters(client_no_context_takeover=True, server_no_context_takeover=True)
    ),
}


@pytest.mark.parametrize(("value", "agreed"), AGREEMENTS.items())
def test_each_agreement_is_read(value: bytes, agreed: DeflateParameters) -> None:
    assert parse_agreement(value) == agreed


@pytest.mark.parametrize(
    "value",
    [
        b"x-webkit-deflate-frame",
        b"permessage-deflate, permessage-deflate",
        b"permessage-deflate;",
        b"permessage-deflate; client_max_window_bits",
        b"permessage-deflate; client_max_window_bits=",
        b"permessage-deflate; client_max_window_bits=7",
        b"permessage-deflate; client_max_window_bits=16",
        b"permessage-deflate; client_max_window_bits=015",
        b"permessage-deflate; server_max_window_bits=+9",
        b"permessage-deflate; server_max_window_bits=9; server_max_window_bits=9",
        b"permessage-deflate; server_no_context_takeover=true",
        b"permessage-deflate; server_no_context_takeover=",
        b"permessage-deflate; unheard_of",
        "permessage-deflate; client_max_window_bits=\u0661\u0665".encode(),
    ],
)
def test_odd_parameters_are_refused(value: bytes) -> None:
    with pytest.raises(DeflateError):
        parse_agreement(value)


def test_the_ratio_counts_only_above_what_is_free() -> None:
    inflater = Inflater(DeflateParameters(), max_bytes=32 << 20, max_ratio=200)
    deflate = Deflating()
    assert len(inflater.inflate(deflate(bytes(1 << 20)))) == 1 << 20  # 1,000 ×, but small
    with pytest.raises(TooBigError):
        inflater.inflate(deflate(bytes(2 << 20)))


def test_bytes_that_are_not_deflated_are_refused() -> None:
    inflater = Inflater(DeflateParameters(), max_bytes=1 << 20, max_ratio=200)
    with pytest.raises(DeflateError):
        inflater.inflate(b"\xff\xff\xff\xff")
