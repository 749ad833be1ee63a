"""JSON values as canonical bytes: equal values give equal bytes, and nothing else does.

Equal means: the same types (`true` is not `1`), numbers by lexeme (`1.0` is not `1`), strings by
their characters however they were escaped, object members in any order (contract §5.3).
"""

from __future__ import annotations

import hashlib
import json
import math
from decimal import Decimal
from typing import Any, Final

from wsproxy.core.ids import Digest

DIGEST_BYTES: Final = 16  # half of SHA-256: 2^64 work for a collision, half the memory

_quoted = json.encoder.encode_basestring_ascii


class OpaqueError(ValueError):
    """The value has no single meaning (a name stands twice in one object)."""


class NotStrictError(ValueError):
    """The text is JSON by grammar, but no value of it can be had (1e400, lone constants)."""


class Number(str):
    """A number by its lexeme."""

    __slots__ = ()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise OpaqueError("a name stands twice in one object")
    return members


def _number(lexeme: str) -> Number:
    if len(lexeme) > 300 or "e" in lexeme or "E" in lexeme:
        try:
            is_finite = math.isfinite(float(lexeme))
        except ValueError as error:
            raise NotStrictError(lexeme[:40]) from error
        if not is_finite:
            raise NotStrictError("number out of range")
    return Number(lexeme)


def _constant(name: str) -> Any:
    raise NotStrictError(name)


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_int=_number,
    parse_float=_number,
    parse_constant=_constant,
)


def value_of(raw: bytes) -> Any:
    """Parse JSON text with numbers kept as lexemes.

    Raises `OpaqueError` or `NotStrictError`; the text must be valid JSON already.
    """
    try:
        return _DECODER.decode(raw.decode())
    except (json.JSONDecodeError, RecursionError, UnicodeDecodeError) as error:
        raise NotStrictError(str(error)) from error


def encoded(value: Any) -> bytes:
    """The canonical bytes of a parsed value."""
    parts: list[str] = []
    _write(value, parts)
    return "".join(parts).encode()


def _write(value: Any, out: list[str]) -> None:
    if isinstance(value, Number):
        out.append(value)
    elif isinstance(value, str):
        out.append(_quoted(value))
    elif isinstance(value, dict):
        out.append("{")
        for name in sorted(value):
            out.append(_quoted(name))
            out.append(":")
            _write(value[name], out)
            out.append(",")
        out.append("}")
    elif isinstance(value, list):
        out.append("[")
        for element in value:
            _write(element, out)
            out.append(",")
        out.append("]")
    else:
        out.append("null" if value is None else "true" if value else "false")


def digest_of(value: Any) -> Digest:
    """The digest of a parsed value."""
    return sha(encoded(value))


def sha(*parts: bytes) -> Digest:
    """SHA-256 over the parts joined, cut to `DIGEST_BYTES`."""
    state = hashlib.sha256()
    for part in parts:
        state.update(part)
    return Digest(state.digest()[:DIGEST_BYTES])


def exact_numbers(value: Any) -> Any:
    """The value with each number as its exact decimal value: `1.0`, `1` and `1e0` become one."""
    if isinstance(value, Number):
        return Number(_decimal(value))
    if isinstance(value, dict):
        return {name: exact_numbers(member) for name, member in value.items()}
    if isinstance(value, list):
        return [exact_numbers(element) for element in value]
    return value


def _decimal(lexeme: str) -> str:
    sign, digits, exponent = Decimal(lexeme).as_tuple()
    text = "".join(map(str, digits)).lstrip("0")
    if not text:
        return "0"
    stripped = text.rstrip("0")
    assert isinstance(exponent, int)
    return f"{'-' if sign else ''}{stripped}e{exponent + len(text) - len(stripped)}"
