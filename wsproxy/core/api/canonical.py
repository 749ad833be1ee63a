"""JSON values as canonical bytes: equal values give equal bytes, and nothing else does.

Equal means: the same types (`true` is not `1`), numbers by lexeme (`1.0` is not `1`), strings by
their characters however they were escaped, object members in any order (contract §5.3).
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from wsproxy.core.ids import Digest

DIGEST_BYTES: Final = 16  # half of SHA-256: 2^64 work for a collision, half the memory

_QUOTED: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.S)
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
_SQUARE: Final = bytes.maketrans(b"{}", b"[]")

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


def is_deeper_than(text: bytes, depth: int) -> bool:
    """Whether valid JSON nests arrays and objects deeper than `depth`.

    Strings are cut out and innermost pairs removed level by level, all in C: a hostile body must
    not reach a recursive parser (CPython raises RecursionError near 1,000 levels).
    """
    if text.count(b"[") + text.count(b"{") <= depth:
        return False
    brackets = _QUOTED.sub(b"", text).translate(_SQUARE, _NOT_BRACKETS)
    for _ in range(depth):
        brackets = brackets.replace(b"[]", b"")
        if not brackets:
            return False
    return bool(brackets)


def value_of(raw: bytes) -> Any:
    """Parse JSON text with numbers kept as lexemes; look at its depth first (`is_deeper_than`).

    Raises `OpaqueError` or `NotStrictError`.
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
    """The value with each number as its exact decimal value: `1.0`, `1` and `1e0` become one.

    Raises `NotStrictError` for an exponent that no decimal number can have.
    """
    if isinstance(value, Number):
        return Number(_decimal(value))
    if isinstance(value, dict):
        return {name: exact_numbers(member) for name, member in value.items()}
    if isinstance(value, list):
        return [exact_numbers(element) for element in value]
    return value


def _decimal(lexeme: str) -> str:
    try:
        sign, digits, exponent = Decimal(lexeme).as_tuple()
    except InvalidOperation as error:
        raise NotStrictError("exponent out of range") from error
    assert isinstance(exponent, int)
    text = "".join(map(str, digits)).lstrip("0")
    minus = "-" if sign else ""  # of a zero too: who writes `-0` as `0` changed what is read
    if not text:
        return f"{minus}0"
    stripped = text.rstrip("0")
    return f"{minus}{stripped}e{exponent + len(text) - len(stripped)}"
