"""A refusal of the simulated API: one value, told in whatever form the transport needs.

Statuses, codes and texts follow protocol.md §3.4, §6 and §12.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

#: Codes that a script or a fault may ask for → (HTTP status, error type, message).
KNOWN_CODES: Final[Mapping[str, tuple[int, str, str]]] = {
    "rate_limit_exceeded": (429, "rate_limit_error", "Rate limit reached. Please try again in 7s."),
    "insufficient_quota": (429, "insufficient_quota", "You exceeded your current quota."),
    "usage_limit_reached": (429, "usage_limit_reached", "The usage limit has been reached"),
    "server_error": (500, "server_error", "The server had an error while answering."),
    "server_is_overloaded": (503, "server_error", "Our servers are currently overloaded."),
    "slow_down": (503, "server_error", "Please slow down."),
    "invalid_api_key": (401, "invalid_request_error", "Incorrect API key provided."),
    "model_not_found": (404, "invalid_request_error", "The requested model does not exist."),
    "unsupported_country": (403, "invalid_request_error", "Country not supported."),
    "invalid_prompt": (400, "invalid_request_error", "The prompt was refused."),
    "context_length_exceeded": (400, "invalid_request_error", "The input is too long."),
    "conflict": (409, "invalid_request_error", "The request conflicts with another one."),
    "unprocessable": (422, "invalid_request_error", "The request could not be understood."),
    "previous_response_not_found": (
        400,
        "invalid_request_error",
        "Previous response with id 'resp_unknown' not found.",
    ),
    "websocket_connection_limit_reached": (
        400,
        "invalid_request_error",
        "Responses websocket connection limit reached (60 minutes). "
        "Create a new websocket connection to continue.",
    ),
    "websocket_stream_limit_reached": (
        400,
        "invalid_request_error",
        "This WebSocket connection has reached its maximum number of distinct stream IDs (32). "
        "Reuse an existing stream_id or open a new WebSocket connection.",
    ),
}

#: What a 429 tells beside its body; the strings are those of the HTTP headers.
RATE_LIMIT_HEADERS: Final[Mapping[str, str]] = {
    "retry-after": "7",
    "x-ratelimit-limit-requests": "500",
    "x-ratelimit-remaining-requests": "0",
    "x-ratelimit-reset-requests": "7s",
}


class ApiError(Exception):
    """The API refuses one request; nothing of it was run unless said otherwise."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        code: str | None = None,
        param: str | None = None,
        kind: str = "invalid_request_error",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.param = param
        self.kind = kind
        self.headers = dict(headers or {})

    def body(self) -> dict[str, object]:
        """The JSON document of the HTTP answer: always all four members."""
        return {
            "error": {
                "message": self.message,
                "type": self.kind,
                "param": self.param,
                "code": self.code,
            }
        }


def named_error(code: str) -> ApiError:
    """The refusal that a script or a fault names; an unknown code is a 400."""
    status, kind, message = KNOWN_CODES.get(
        code, (400, "invalid_request_error", f"Refused on order: {code}.")
    )
    param = {"previous_response_not_found": "previous_response_id"}.get(code)
    headers = RATE_LIMIT_HEADERS if status == 429 else None
    return ApiError(message, status=status, code=code, param=param, kind=kind, headers=headers)


def previous_response_not_found(response_id: str) -> ApiError:
    """Guide, continuation errors (protocol.md §3.4 a)."""
    return ApiError(
        f"Previous response with id '{response_id}' not found.",
        code="previous_response_not_found",
        param="previous_response_id",
    )


def unknown_parameter(name: str) -> ApiError:
    """A member that this transport does not have."""
    return ApiError(f"Unknown parameter: '{name}'.", code="unknown_parameter", param=name)


def invalid_json() -> ApiError:
    """The body or frame is not one strict JSON object."""
    return ApiError(
        "We could not parse the JSON body of your request. The API expects a JSON object."
    )
