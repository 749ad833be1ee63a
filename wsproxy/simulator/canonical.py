"""JSON as values: strict reading, one spelling for equal values, digests, sealed reasoning.

Two spellings of one model output (protocol.md §7.3) have the same `meaning`; items that the client
itself wrote are compared value for value.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

#: One item of a conversation: a JSON object.
Item = dict[str, Any]

_SEAL_PREFIX: Final = "gAAAAAB"  # what blobs of the real service begin with
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 8
IDENTITY_BYTES: Final = 25  # as in the ids: 50 hex digits

_TEXT_PARTS: Final = frozenset({"output_text", "input_text", "text"})
#: Members of a model's item that say nothing about what the model wrote.
_UNSPOKEN: Final = frozenset({"id", "status", "created_by"})


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"number out of range: {text}")
    return value


def _no_constant(text: str) -> float:
    raise ValueError(f"not JSON: {text}")


_decoder = json.JSONDecoder(parse_float=_finite, parse_constant=_no_constant)
_exact_decoder = json.JSONDecoder(
    parse_float=Decimal, parse_int=Decimal, parse_constant=_no_constant
)
_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


def strict_json(text: str) -> Any:
    """Parse JSON; raise ValueError for NaN, 1e400, trailing bytes or nesting beyond reason."""
    try:
        return _decoder.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def canonical(value: object) -> str:
    """The one spelling of a JSON value: sorted names, no spaces. 1, 1.0 and true all differ."""
    return _canonical(value)


def digest(*parts: bytes | str) -> bytes:
    """BLAKE2b over length-prefixed parts, 32 bytes."""
    state = hashlib.blake2b(digest_size=32)
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        state.update(len(raw).to_bytes(8, "big"))
        state.update(raw)
    return state.digest()


def seal(identity: bytes, nonce_label: str, size: int = 160) -> str:
    """An `encrypted_content` of about `size` characters that opens to `identity`."""
    nonce = digest(identity, nonce_label)[:_NONCE_BYTES]
    hidden = bytes(a ^ b for a, b in zip(identity, digest(nonce), strict=False))
    pad = hashlib.shake_128(nonce + b"pad").digest(max(0, size * 3 // 4 - 50))
    tag = digest(nonce, identity)[:_TAG_BYTES]
    return _SEAL_PREFIX + base64.urlsafe_b64encode(nonce + hidden + tag + pad).decode()


def unseal(blob: str) -> bytes | None:
    """The identity inside a blob of ours, or None if it is not one."""
    try:
        raw = base64.urlsafe_b64decode(blob.removeprefix(_SEAL_PREFIX).encode("ascii"))
    except (binascii.Error, UnicodeEncodeError, ValueError):
        return None
    nonce, rest = raw[:_NONCE_BYTES], raw[_NONCE_BYTES:]
    identity = bytes(a ^ b for a, b in zip(rest[:IDENTITY_BYTES], digest(nonce), strict=False))
    tag = rest[IDENTITY_BYTES : IDENTITY_BYTES + _TAG_BYTES]
    is_ours = blob.startswith(_SEAL_PREFIX) and tag == digest(nonce, identity)[:_TAG_BYTES]
    return identity if is_ours else None


# -- what the model sees -------------------------------------------------------------------------


def item_type(item: Mapping[str, Any]) -> str:
    """The item's type; a typeless item with a role is a message."""
    kind = item.get("type")
    if isinstance(kind, str):
        return kind
    return "message" if "role" in item else ""


def is_from_model(item: Mapping[str, Any]) -> bool:
    """Is this an item that a model wrote (or a client's echo of one)?"""
    kind = item_type(item)
    if kind == "message":
        return item.get("role") == "assistant"
    return kind.endswith("_call") or kind in {
        "reasoning",
        "compaction",
        "mcp_list_tools",
        "mcp_approval_request",
        "program",
    }


def meaning(item: Mapping[str, Any]) -> str:
    """What the model sees of one item, in one spelling."""
    kind = item_type(item)
    if not is_from_model(item):
        return _canonical(item if "type" in item else {**item, "type": kind})
    if kind == "message":
        return _canonical([kind, "assistant", _parts(item.get("content")), item.get("phase")])
    if kind == "reasoning":
        return _canonical([kind, reasoning_identity(item)])
    spoken = {
        name: value
        for name, value in item.items()
        if value is not None and (name not in _UNSPOKEN or kind == "mcp_approval_request")
    }
    spoken.pop("status", None)
    if kind == "function_call":
        spoken["arguments"] = _arguments(item.get("arguments"))
    return _canonical([kind, spoken])


def reasoning_identity(item: Mapping[str, Any]) -> str:
    """Hex identity behind a reasoning item: by its blob, else by its id."""
    blob = item.get("encrypted_content")
    if isinstance(blob, str):
        identity = unseal(blob)
        return identity.hex() if identity is not None else "foreign:" + blob
    return str(item.get("id", "")).removeprefix("rs_")


def _parts(content: object) -> list[object]:
    if isinstance(content, str):
        return [["text", content]]
    if not isinstance(content, list):
        return []
    return [_part(part) for part in content]


def _part(part: object) -> object:
    if not isinstance(part, dict):
        return part
    if part.get("type") in _TEXT_PARTS:
        return ["text", part.get("text")]
    return {name: value for name, value in part.items() if value is not None}


def _arguments(text: object) -> str:
    if not isinstance(text, str):
        return _canonical(text)
    try:
        return _canonical(_plain(_exact_decoder.decode(text)))
    except (ValueError, RecursionError, InvalidOperation):
        return "text:" + text


def _plain(value: Any) -> Any:
    """Decimals as their exact value: 1.0, 1 and 1e0 are one number."""
    if isinstance(value, Decimal):
        return ["number", _exact(value)]
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return value


def _exact(number: Decimal) -> list[int | str]:
    sign, digits, exponent = number.as_tuple()
    text = "".join(map(str, digits)).lstrip("0")
    kept = text.rstrip("0")
    if not kept:
        return [sign, "0", 0]
    return [sign, kept, int(exponent) + len(text) - len(kept)]
