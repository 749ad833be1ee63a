"""Every spelling of an upstream error, and what an HTTP client reads instead."""

from __future__ import annotations

import json

import pytest

from tests.canary import SAID, WATCH
from wsproxy.core.api import errors
from wsproxy.core.api.spans import EventError
from wsproxy.core.multiplex.recovery import Fault

NESTED = b"""{"type":"invalid_request_error","code":"previous_response_not_found",
"message":"Previous response with id 'resp_abc' not found.","param":"previous_response_id"}"""

SHAPES: list[tuple[str, bytes, int, str | None, Fault]] = [
    ("a", b'{"type":"error","status":400,"stream_id":"l01","error":%b}' % NESTED,
     400, "previous_response_not_found", Fault.PREVIOUS_RESPONSE_NOT_FOUND),
    ("a-404", b'{"type":"error","status":404,"error":%b}' % NESTED,
     404, "previous_response_not_found", Fault.PREVIOUS_RESPONSE_NOT_FOUND),
    ("b", b'{"type":"error","error":{"type":"server_error","message":"no"}}',
     500, None, Fault.SERVER_ERROR),
    ("c", b'{"type":"error","status_code":503,"error":{"code":"slow_down","message":"no"}}',
     503, "slow_down", Fault.SERVER_ERROR),
    ("d", b'{"type":"error","status":429,"error":{"type":"usage_limit_reached","message":"no"}}',
     429, None, Fault.RATE_LIMITED),
    ("e", b'{"type":"error","error":{"type":"x","code":"rate_limit_exceeded","message":"no"}}',
     429, "rate_limit_exceeded", Fault.RATE_LIMITED),
    ("f", b'{"type":"error","code":"rate_limit_exceeded","message":"no"}',
     429, "rate_limit_exceeded", Fault.RATE_LIMITED),
    ("g", b"""{"type":"error","status":400,"error":{"type":"invalid_request_error",
     "message":"Invalid `previous_response_id`."}}""",
     400, None, Fault.PREVIOUS_RESPONSE_NOT_FOUND),
    ("h", b'{"type":"error","body":{"error":%b}}' % NESTED,
     400, "previous_response_not_found", Fault.PREVIOUS_RESPONSE_NOT_FOUND),
    ("i-object", b'{"error":{"message":"no","code":502}}', 502, None, Fault.SERVER_ERROR),
    ("i-string", b'{"error":"no"}', 500, None, Fault.SERVER_ERROR),
    ("i-detail", b'{"error":{"detail":"no"}}', 500, None, Fault.SERVER_ERROR),
    ("j", b"""{"type":"error","error":{"type":"invalid_request_error","message":"Duplicate item",
     "param":"input"},"status":400}""", 400, None, Fault.REQUEST_REFUSED),
    ("k", b"""{"type":"error","error":{"type":"invalid_request_error","message":"No tool call"}}""",
     400, None, Fault.REQUEST_REFUSED),
    ("limit", b"""{"type":"error","error":{"code":"websocket_connection_limit_reached",
     "message":"no"},"status":400}""",
     400, "websocket_connection_limit_reached", Fault.CONNECTION_LIMIT_REACHED),
    ("lanes", b'{"type":"error","error":{"code":"websocket_stream_limit_reached"}}',
     400, "websocket_stream_limit_reached", Fault.STREAM_LIMIT_REACHED),
    ("lane", b'{"type":"error","status":400,"error":{"code":"invalid_stream_id"}}',
     400, "invalid_stream_id", Fault.STREAM_LIMIT_REACHED),
    ("alias", b'{"type":"error","error":{"code":"invalid_previous_response_id","message":"no"}}',
     400, "invalid_previous_response_id", Fault.PREVIOUS_RESPONSE_NOT_FOUND),
]  # fmt: skip


@pytest.mark.parametrize(
    ("payload", "status", "code", "fault"),
    [shape[1:] for shape in SHAPES],
    ids=[shape[0] for shape in SHAPES],
)
def test_every_observed_shape_becomes_an_http_error(
    payload: bytes, status: int, code: str | None, fault: Fault
) -> None:
    error = errors.upstream_error(payload.replace(b'"no"', SAID))
    WATCH.look("an error's repr", repr(error))
    assert (error.status, error.code) == (status, code)
    assert errors.fault_of(error) is fault
    body = json.loads(error.body)
    assert set(body) == {"error"}
    assert body["error"].get("message", body["error"].get("detail", "")) == error.message


def test_upstreams_own_error_object_is_kept_to_the_byte() -> None:
    own = b'{"plan_type" : "pro","message":"\\u00e9\\ud83d","resets_at":1.0,"type":"usage"}'
    error = errors.upstream_error(b'{"type":"error","status":429,"error": %b }' % own)
    assert error.body == b'{"error":%b}' % own


def test_headers_come_from_both_places_and_leave_the_body() -> None:
    payload = b"""{"type":"error","status":429,
    "error":{"code":"rate_limit_exceeded","headers":{"x-ratelimit-limit-requests":60,"via":"x"},
    "message":"slow"},
    "headers":{"x-codex-primary-window-minutes":15,"Retry-After":"7","set-cookie":"a=b",
    "x-codex-evil":"a\\nb","x-should-retry":"true"}}"""
    error = errors.upstream_error(payload)
    assert error.headers == [
        ("x-codex-primary-window-minutes", "15"),
        ("retry-after", "7"),
        ("x-ratelimit-limit-requests", "60"),
    ]
    assert json.loads(error.body) == {"error": {"code": "rate_limit_exceeded", "message": "slow"}}


@pytest.mark.parametrize(
    ("members", "status"),
    [
        (b'"status":200,"error":{"type":"invalid_request_error"}', 400),
        (b'"status":"429","error":{"type":"invalid_request_error"}', 429),
        (b'"status":1000,"error":{"code":"server_is_overloaded"}', 503),
        (b'"error":{"status":409}', 409),
        (b'"error":{"type":"authentication_error","code":"whatever"}', 401),
        (b'"error":{"type":"whatever","code":"model_not_found"}', 404),
        (b'"error":{"type":"whatever"}', 500),
        (b'"error":{}', 500),
        (b'"error":null', 500),
        (b'"error":[1]', 500),
        (b'"message":7', 500),
    ],
)
def test_the_status_is_upstreams_or_follows_code_then_type(members: bytes, status: int) -> None:
    error = errors.upstream_error(b'{"type":"error",%b}' % members)
    assert error.status == status
    assert "error" in json.loads(error.body)


def test_a_flat_error_gets_the_body_that_http_has() -> None:
    error = errors.upstream_error(b'{"type":"error","code":"slow_down","message":"a","param":"p"}')
    assert json.loads(error.body) == {
        "error": {"message": "a", "type": "server_error", "param": "p", "code": "slow_down"}
    }


def test_after_the_first_event_an_error_is_flat() -> None:
    error = errors.upstream_error(b'{"type":"error","status":400,"error":%b}' % NESTED)
    assert errors.flat_event(error, 7) == (
        b'{"type":"error","code":"previous_response_not_found",'
        b'"message":"Previous response with id \'resp_abc\' not found.",'
        b'"param":"previous_response_id","sequence_number":7}'
    )


@pytest.mark.parametrize(
    ("status", "type_"),
    [(400, "invalid_request_error"), (429, "rate_limit_error"), (502, "server_error")],
)
def test_our_own_refusals_look_like_the_apis(status: int, type_: str) -> None:
    assert json.loads(errors.own_error(status, "code", "message")) == {
        "error": {"message": "message", "type": type_, "param": None, "code": "code"}
    }


def test_only_some_refusals_can_be_the_deltas_fault() -> None:
    retryable = {status for status in range(400, 600) if errors.is_retryable_refusal(status)}
    assert retryable == {400, 404, 409, 413, 422}


def test_a_cut_close_reason_still_names_its_code() -> None:
    reason = '{"type":"error","error":{"code":"websocket_connection_limit_reached","mess'
    assert errors.code_in_close_reason(reason) == errors.CONNECTION_LIMIT_REACHED
    assert errors.code_in_close_reason("going away") is None


def test_a_message_about_something_else_is_no_lost_parent() -> None:
    error = errors.upstream_error(
        b'{"error":{"message":"Invalid value for previous_response_id: x"}}'
    )
    assert not errors.has_lost_parent(error)


@pytest.mark.parametrize(
    "payload", [b"", b"[]", b'{"error":1,"error":%b}' % SAID, b'{"error":{"a":1,"a":%b}}' % SAID]
)
def test_what_is_no_error_frame_is_refused(payload: bytes) -> None:
    with pytest.raises(EventError):
        errors.upstream_error(payload)
