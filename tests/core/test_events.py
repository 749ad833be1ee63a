"""Upstream events: what each of them is, and what is none."""

from __future__ import annotations

import json

import pytest

from tests.canary import SAID, TEXT, WATCH
from wsproxy.core.api import events
from wsproxy.core.api.events import Kind
from wsproxy.core.api.spans import EventError

# Kinds and refusals -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type_", "kind"),
    [
        ("response.output_text.delta", Kind.ORDINARY),
        ("response.brand_new.thing", Kind.ORDINARY),
        ("keepalive", Kind.ORDINARY),
        ("response.created", Kind.LIFECYCLE),
        ("response.queued", Kind.LIFECYCLE),
        ("response.output_item.done", Kind.ITEM_DONE),
        ("response.completed", Kind.COMPLETED),
        ("response.done", Kind.ENDED),
        ("response.error", Kind.ENDED),
        ("error", Kind.ERROR),
        ("codex.rate_limits", Kind.CONNECTION),
        ("response.metadata", Kind.CONNECTION),
        ("response.interrupt.failed", Kind.CONNECTION),
        ("response.output_item.interrupted", Kind.CONNECTION),
        ("responsesapi.websocket_timing", Kind.CONNECTION),
    ],
)
def test_each_type_has_its_kind(type_: str, kind: Kind) -> None:
    received = events.receive(json.dumps({"type": type_, "said": TEXT}).encode())
    WATCH.look("an event's repr", repr(received))
    assert (received.type, received.kind) == (type_, kind)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b'"text"',
        b"{}",
        b'{"type":null}',
        b'{"type":7}',
        b'{"type":"a b"}',
        b'{"type":"a\\nb"}',
        b'{"type":"%b"}' % (b"x" * 129),
        b'{"type":"t",}',
        b'{"type":"t","x":NaN}',
        b'{"type":"t","x":"\n"}',
        b'{"type":"t"} {}',
        b'{"type":"t","stream_id":7}',
        b'{"type":"t","x":' + b"[" * 9000 + b"]" * 9000 + b"}",
        b'{"error":null}',
    ],
    ids=lambda payload: repr(payload[:24]),
)
def test_what_is_no_event_is_refused(payload: bytes) -> None:
    with pytest.raises(EventError):
        events.receive(payload.replace(b'"type"', b'"said":%b,"type"' % SAID))


def test_a_gateways_error_needs_no_type() -> None:
    received = events.receive(b'{"error":{"message":"no"}}')
    assert (received.type, received.kind) == ("error", Kind.ERROR)
