"""Upstream's error frames, HTTP's error bodies, and the flat error event of a stream.

Upstream spells errors in a dozen ways (protocol.md §3.4, (a) to (l)); an HTTP client knows one:
a status and `{"error": {...}}`. Upstream's own error object is kept byte for byte where there
is one, so that members nobody knows yet reach the client as well.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from wsproxy.core.api.announced import ANNOUNCED, announced
from wsproxy.core.api.spans import decoded, members, without
from wsproxy.core.multiplex.recovery import Fault

PREVIOUS_RESPONSE_NOT_FOUND: Final = "previous_response_not_found"
INVALID_PREVIOUS_RESPONSE_ID: Final = "invalid_previous_response_id"  # alias of the former
CONNECTION_LIMIT_REACHED: Final = "websocket_connection_limit_reached"
STREAM_LIMIT_REACHED: Final = "websocket_stream_limit_reached"
INVALID_STREAM_ID: Final = "invalid_stream_id"

#: Refusals that a delta of ours may have caused: sent once more, in full (contract §5.11).
RETRYABLE_STATUSES: Final = frozenset({400, 404, 409, 413, 422})

#: Status by code, for frames that carry none (protocol.md §6.1, §6.2).
STATUS_OF_CODE: Final = {
    PREVIOUS_RESPONSE_NOT_FOUND: 400,
    INVALID_PREVIOUS_RESPONSE_ID: 400,
    CONNECTION_LIMIT_REACHED: 400,
    STREAM_LIMIT_REACHED: 400,
    INVALID_STREAM_ID: 400,
    "context_length_exceeded": 400,
    "invalid_prompt": 400,
    "invalid_type": 400,
    "invalid_value": 400,
    "missing_required_parameter": 400,
    "unknown_parameter": 400,
    "invalid_api_key": 401,
    "unauthorized": 401,
    "token_invalid": 401,
    "token_expired": 401,
    "account_deactivated": 401,
    "quota_exhausted": 402,
    "payment_required": 402,
    "forbidden": 403,
    "banned": 403,
    "account_banned": 403,
    "unsupported_country": 403,
    "unsupported_country_region_territory": 403,
    "model_not_found": 404,
    "rate_limit_exceeded": 429,
    "rate_limit_reached": 429,
    "insufficient_quota": 429,
    "credit_balance_exhausted": 429,
    "usage_limit_reached": 429,
    "server_error": 500,
    "server_is_overloaded": 503,
    "slow_down": 503,
}
#: Status by type, where the code says nothing.
STATUS_OF_TYPE: Final = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "rate_limit_error": 429,
    "usage_limit_reached": 429,
    "insufficient_quota": 429,
    "tokens": 429,
    "requests": 429,
    "server_error": 500,
    "overloaded_error": 503,
    "service_unavailable_error": 503,
}
#: A frame that says neither is no fault of the request as far as anyone can tell.
UNKNOWN_STATUS: Final = 500

_CLOSE_CODES: Final = (
    CONNECTION_LIMIT_REACHED,
    PREVIOUS_RESPONSE_NOT_FOUND,
    INVALID_PREVIOUS_RESPONSE_ID,
    STREAM_LIMIT_REACHED,
    INVALID_STREAM_ID,
)
# Shape (g): no code at all, and two wordings of one refusal.
_LOST_PARENT: Final = re.compile(
    r"Invalid `?previous_response_id`?\.?\Z|Previous response with id \S+ not found"
)


class UpstreamError(msgspec.Struct, frozen=True):
    """One refusal or failure as an HTTP client would read it.

    `body` is the JSON document `{"error": {...}}`; `headers` are those upstream sent along and
    the allow-list lets through, names in lower case.
    """

    status: int
    code: str | None
    message: str
    type: str | None
    param: str | None
    headers: list[tuple[str, str]]
    body: bytes

    def __repr__(self) -> str:
        return f"<UpstreamError {self.status} {self.code!a}>"


# Reading -----------------------------------------------------------------------------------


def upstream_error(payload: bytes, allowed: Sequence[str] = ANNOUNCED) -> UpstreamError:
    """Read an error frame in any of its shapes. Raises `EventError` if it is no JSON object."""
    frame = _fields(payload)
    wrapped = frame.get("body", b"")
    if "error" not in frame and _is_object(wrapped):
        frame = {**frame, **_fields(wrapped)}
    raw = frame.get("error", b"null")
    fields = _fields(raw) if _is_object(raw) else {}
    message, code, type_, param = _said(frame, raw, fields)
    status = _status(frame, fields, code, type_)
    if fields:
        body = b'{"error":%b}' % without(raw, members(raw), "headers")
    else:
        body = own_error(status, code, message, type_, param)
    headers = announced(frame.get("headers", b"{}"), allowed)
    headers += announced(fields.get("headers", b"{}"), allowed)
    return UpstreamError(status, code, message, type_, param, headers, body)


def has_lost_parent(error: UpstreamError) -> bool:
    """Whether upstream says that it does not know the `previous_response_id` it was given."""
    if error.code in (PREVIOUS_RESPONSE_NOT_FOUND, INVALID_PREVIOUS_RESPONSE_ID):
        return True
    return error.code is None and _LOST_PARENT.match(error.message) is not None


def fault_of(error: UpstreamError) -> Fault:
    """The row of the fault table (F24 to F29) that an error naming its turn belongs to."""
    if has_lost_parent(error):
        return Fault.PREVIOUS_RESPONSE_NOT_FOUND
    if error.code == CONNECTION_LIMIT_REACHED:
        return Fault.CONNECTION_LIMIT_REACHED
    if error.code in (STREAM_LIMIT_REACHED, INVALID_STREAM_ID):
        return Fault.STREAM_LIMIT_REACHED
    if error.status == 429:
        return Fault.RATE_LIMITED
    return Fault.SERVER_ERROR if error.status >= 500 else Fault.REQUEST_REFUSED


def is_retryable_refusal(status: int) -> bool:
    """Whether this status, on a delta or fork of ours, may be the delta's own fault."""
    return status in RETRYABLE_STATUSES


def code_in_close_reason(reason: str) -> str | None:
    """The code that a close frame names (l): its reason is JSON cut off at 123 bytes."""
    return next((code for code in _CLOSE_CODES if code in reason), None)


# Writing -----------------------------------------------------------------------------------


def own_error(
    status: int,
    code: str | None,
    message: str,
    type_: str | None = None,
    param: str | None = None,
) -> bytes:
    """An error body in the API's form; without a type it gets the one that fits the status."""
    error = {"message": message, "type": type_ or type_of(status), "param": param, "code": code}
    return msgspec.json.encode({"error": error})


def flat_event(error: UpstreamError, sequence: int) -> bytes:
    """The JSON of the SSE `error` event that ends a stream which has begun.

    Flat, because openai-python raises on a data object with a truthy `error` member instead of
    yielding the event (protocol.md §6.2).
    """
    return flat_error(error.code, error.message, error.param, sequence)


def flat_error(code: str | None, message: str, param: str | None, sequence: int) -> bytes:
    """The same for an error of ours."""
    return msgspec.json.encode(
        {
            "type": "error",
            "code": code,
            "message": message,
            "param": param,
            "sequence_number": sequence,
        }
    )


def type_of(status: int) -> str:
    """The error type that the API uses with this status."""
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"


# Parts of a frame --------------------------------------------------------------------------

_STRING: Final = msgspec.json.Decoder(str)


def _is_object(raw: bytes) -> bool:
    return raw.startswith(b"{")


def _fields(document: bytes) -> dict[str, bytes]:
    return {found.name: document[found.value : found.end] for found in members(document)}


def _said(
    frame: dict[str, bytes], raw: bytes, fields: dict[str, bytes]
) -> tuple[str, str | None, str | None, str | None]:
    """Message, code, type and param, wherever this shape has them."""
    if fields:
        message = _text(fields.get("message")) or _text(fields.get("detail")) or ""
        return (
            message,
            _text(fields.get("code")),
            _text(fields.get("type")),
            _text(fields.get("param")),
        )
    # Flat (f), where `type` is the event's own, or a bare string (i).
    message = _text(raw) or _text(frame.get("message")) or _text(frame.get("detail")) or ""
    return message, _text(frame.get("code")), None, _text(frame.get("param"))


def _status(
    frame: dict[str, bytes], fields: dict[str, bytes], code: str | None, type_: str | None
) -> int:
    """The frame's own status, else the one that its code or type stands for."""
    candidates = (
        frame.get("status"),
        frame.get("status_code"),
        fields.get("status"),
        fields.get("status_code"),
        fields.get("code"),  # some gateways put the number there
        frame.get("code"),
    )
    for raw in candidates:
        if raw and (found := re.fullmatch(rb'"?([45][0-9]{2})"?', raw)):
            return int(found[1])
    return STATUS_OF_CODE.get(code or "") or _status_of_type(type_)


def _status_of_type(type_: str | None) -> int:
    return STATUS_OF_TYPE.get(type_ or "", UNKNOWN_STATUS)


def _text(raw: bytes | None) -> str | None:
    """A string member's value; None for anything else."""
    return decoded(_STRING, raw) if raw is not None and raw.startswith(b'"') else None
