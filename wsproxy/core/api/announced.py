"""Response headers that upstream announces inside messages, since a WebSocket has none per turn."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from wsproxy.core.api.spans import EventError, decoded

#: What may become a response header (contract §2); `*` at the end stands for any rest.
ANNOUNCED: Final = (
    "x-codex-*",
    "x-models-etag",
    "openai-model",
    "x-reasoning-included",
    "retry-after",
    "x-ratelimit-*",
)
#: More than any header of this API, less than what breaks a client's header limit (8 KiB).
MAX_VALUE_BYTES: Final = 4096

_NAME: Final = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,128}")
# Printable ASCII: no control character can split the head, no codec has to be guessed.
_VALUE: Final = re.compile(r"[\x20-\x7e]*")
_SCALAR: Final = msgspec.json.Decoder(str | int | float | bool | None)
_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def is_announced(name: str, allowed: Sequence[str] = ANNOUNCED) -> bool:
    """Whether the header `name` (any case) matches the allow-list."""
    name = name.lower()
    return any(
        name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
        for pattern in allowed
    )


def announced(fields: bytes, allowed: Sequence[str] = ANNOUNCED) -> list[tuple[str, str]]:
    """The allowed headers of the raw JSON object `fields`, names in lower case.

    Values are strings or numbers, both seen from Codex's backend (protocol.md §3.4 d); anything
    else, and a value that a header cannot carry, is left out. Never raises.
    """
    try:
        values = decoded(_FIELDS, fields)
    except EventError:
        return []
    headers = []
    for name, raw in values.items():
        text = _text(bytes(raw))
        if text is not None and _NAME.fullmatch(name.lower()) and is_announced(name, allowed):
            headers.append((name.lower(), text))
    return headers


def _text(raw: bytes) -> str | None:
    """The header value that a raw JSON value stands for; a number keeps its lexeme."""
    try:
        value = decoded(_SCALAR, raw)
    except EventError:
        return None
    if value is None or isinstance(value, bool):
        return None
    text = value if isinstance(value, str) else raw.decode()
    if len(text) > MAX_VALUE_BYTES or not _VALUE.fullmatch(text):
        return None
    return text.strip()
