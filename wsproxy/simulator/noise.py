"""Frames of the ChatGPT backend that carry no response (protocol.md §3.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from wsproxy.simulator.outputs import Event

#: Headers that HTTP would have put on the response head.
METADATA_HEADERS: Final[Mapping[str, str]] = {
    "x-codex-turn-state": "sim-turn-state",
    "x-models-etag": '"sim-models-1"',
    "openai-model": "gpt-5.6-sim",
}
_WINDOW: Final = {"used_percent": 12, "window_minutes": 300, "reset_at": 1738888888}
_RATE_LIMITS: Final[Event] = {
    "type": "codex.rate_limits",
    "plan_type": "pro",
    "metered_limit_name": None,
    "rate_limits": {"allowed": True, "limit_reached": False, "primary": _WINDOW, "secondary": None},
    "credits": {"has_credits": True, "unlimited": False, "balance": None},
}
_METADATA: Final[Event] = {
    "type": "response.metadata",
    "headers": dict(METADATA_HEADERS),
    "metadata": {"openai_verification_recommendation": []},
}
_TIMING: Final[Event] = {"type": "responsesapi.websocket_timing", "timing_metrics": {"ttft_ms": 1}}

NOISE_BEFORE: Final[tuple[Event, ...]] = (_RATE_LIMITS, _METADATA)
NOISE_WITHIN: Final[tuple[Event, ...]] = (_RATE_LIMITS,)
NOISE_AFTER: Final[tuple[Event, ...]] = (_TIMING, _RATE_LIMITS)


def handshake_headers(connection: int) -> list[tuple[bytes, bytes]]:
    """What the live 101 was seen to carry (protocol.md §1.3)."""
    return [
        (b"x-oai-request-id", b"sim-%d" % connection),
        (b"x-models-etag", METADATA_HEADERS["x-models-etag"].encode()),
        (b"openai-model", METADATA_HEADERS["openai-model"].encode()),
        (b"x-reasoning-included", b"true"),
    ]
