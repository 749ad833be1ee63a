"""Frames written by hand are what wsproto reads, and JSON written fast is JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from wsproto.connection import Connection, ConnectionType
from wsproto.events import TextMessage

from wsproxy.simulator.frames import dump, text_frame


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 300_000])
def test_a_text_frame_of_any_size_is_read_by_wsproto(size: int) -> None:
    client = Connection(ConnectionType.CLIENT)

    client.receive_data(text_frame(b"x" * size))
    parts = [event for event in client.events() if isinstance(event, TextMessage)]

    assert "".join(part.data for part in parts) == "x" * size
    assert parts[-1].message_finished


VALUES: dict[str, Any] = {
    "scalars": {"a": [None, True, False, 1, -2, 1.5, 1e300]},
    "text": {"é": 'naïve 🙂 " \\ \n \u2028'},
    "nesting": {"a": {"b": [[], {}, [{"c": ""}]]}},
    "big number": {"a": 2**80},
    "lone surrogate": {"a": "\ud800"},
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
@pytest.mark.parametrize("spaced", [True, False])
def test_what_is_dumped_is_read_back(value: Any, spaced: bool) -> None:
    raw = dump(value, spaced=spaced)

    assert json.loads(raw) == value
    if value is not VALUES["lone surrogate"]:
        separators = None if spaced else (",", ":")
        assert raw.decode() == json.dumps(value, ensure_ascii=False, separators=separators)
