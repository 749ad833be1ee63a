"""How events and refusals are spelled: member order, white space, shapes of errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from json.encoder import c_make_encoder, encode_basestring  # type: ignore[attr-defined]
from typing import Any, Final

from wsproxy.simulator.errors import ApiError
from wsproxy.simulator.outputs import Event
from wsproxy.simulator.rules import Rules


def _fast_encode() -> Callable[[object], str]:
    """Compact JSON without building an encoder for every event (6 → 4 µs for a delta)."""
    encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
    if c_make_encoder is None:  # an interpreter without the C half of json
        return encoder.encode
    chunks = c_make_encoder(
        None, encoder.default, encode_basestring, None, ":", ",", False, False, True
    )
    return lambda value: "".join(chunks(value, 0))


_compact = _fast_encode()
_spaced = json.JSONEncoder(ensure_ascii=False).encode
_pretty = json.JSONEncoder(indent=2).encode


def dump(value: object, *, spaced: bool = False) -> bytes:
    """JSON as the service streams it: non-ASCII unescaped, but for lone surrogates."""
    text = (_spaced if spaced else _compact)(value)
    try:
        return text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


def pretty(value: object) -> bytes:
    """JSON as the service answers it in one piece: two spaces, ASCII only."""
    return _pretty(value).encode()


def frame(event: Event, lane: str, rules: Rules) -> bytes:
    """One event as a frame; a named lane is told in the member order in force."""
    if lane:
        event = _with_lane(event, lane, rules.lane_place)
    return dump(event, spaced=rules.spaced_json)


def _with_lane(event: Event, lane: str, place: str) -> Event:
    if place == "last":
        return {**event, "stream_id": lane}
    if place == "first":
        return {"stream_id": lane, **event}
    members = list(event.items())
    members.insert(max(1, len(members) // 2), ("stream_id", lane))
    return dict(members)


def sse(event: Event, rules: Rules) -> bytes:
    """One event of an HTTP stream (protocol.md §9.1)."""
    data = dump(event, spaced=rules.spaced_json)
    return b"event: %b\ndata: %b\n\n" % (str(event["type"]).encode(), data)


def text_frame(payload: bytes) -> bytes:
    """A whole, uncompressed text frame of a server (RFC 6455 §5.2)."""
    size = len(payload)
    if size < 126:
        return b"\x81%c%b" % (size, payload)
    if size < 65_536:
        return b"\x81\x7e%b%b" % (size.to_bytes(2, "big"), payload)
    return b"\x81\x7f%b%b" % (size.to_bytes(8, "big"), payload)


def flat_error(error: ApiError) -> Event:
    """A refusal in mid-stream over HTTP (protocol.md §6.2)."""
    return {
        "type": "error",
        "code": error.code,
        "message": error.message,
        "param": error.param,
        "sequence_number": 0,
    }


def error_frame(error: ApiError, lane: str, rules: Rules) -> bytes:
    """A refusal as a frame, in the shape in force (protocol.md §3.4)."""
    event = _SHAPES[rules.error_shape](error)
    return frame(event, lane, rules)


def _inner(error: ApiError, *, with_code: bool = True) -> dict[str, Any]:
    inner: dict[str, Any] = {"type": error.kind}
    if error.code is not None and with_code:
        inner["code"] = error.code
    inner["message"] = error.message
    if error.param is not None and with_code:
        inner["param"] = error.param
    return inner


def _documented(error: ApiError) -> Event:
    inner = _inner(error)
    if error.headers:
        inner["headers"] = error.headers
    return {"type": "error", "status": error.status, "error": inner}


def _without_status(error: ApiError) -> Event:
    return {"type": "error", "error": _inner(error)}


def _status_code(error: ApiError) -> Event:
    return {"type": "error", "status_code": error.status, "error": _inner(error)}


def _top_headers(error: ApiError) -> Event:
    headers: dict[str, object] = {"x-codex-primary-window-minutes": 15, **error.headers}
    event: Event = {"type": "error", "status": error.status, "error": _inner(error)}
    return {**event, "headers": headers}


def _inner_headers(error: ApiError) -> Event:
    inner = {**_inner(error), "headers": {"x-codex-plan-type": "pro", **error.headers}}
    return {"type": "error", "error": inner, "sequence_number": 0, "status": error.status}


def _flat(error: ApiError) -> Event:
    event: Event = {"type": "error", "code": error.code, "message": error.message}
    return event


def _message_only(error: ApiError) -> Event:
    inner = _inner(error, with_code=False)
    return {"type": "error", "status": error.status, "error": inner}


def _wrapped(error: ApiError) -> Event:
    return {"type": "error", "body": {"error": _inner(error)}, "status": error.status}


_SHAPES: Final[dict[str, Callable[[ApiError], Event]]] = {
    "a": _documented,
    "b": _without_status,
    "c": _status_code,
    "d": _top_headers,
    "e": _inner_headers,
    "f": _flat,
    "g": _message_only,
    "h": _wrapped,
}
