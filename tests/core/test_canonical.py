"""Equal JSON values give equal bytes, and nothing else does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsproxy.core.api.canonical import (
    DIGEST_BYTES,
    NotStrictError,
    OpaqueError,
    digest_of,
    encoded,
    exact_numbers,
    is_deeper_than,
    sha,
    value_of,
)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=8,
)


def respelled(value: Any) -> str:
    """The same value with its members turned round, spaced out and escaped."""
    if isinstance(value, dict):
        members = [f"{json.dumps(n)} :\t{respelled(v)}" for n, v in reversed(value.items())]
        return "{ " + " ,\n".join(members) + " }"
    if isinstance(value, list):
        return "[ " + " , ".join(map(respelled, value)) + "\r]"
    if isinstance(value, str):
        units = value.encode("utf-16-be", "surrogatepass").hex()
        return '"' + "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4)) + '"'
    return json.dumps(value)


@given(VALUES)
@settings(deadline=None, print_blob=True)
def test_the_spelling_does_not_matter(value: Any) -> None:
    plain = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    assert encoded(value_of(plain)) == encoded(value_of(respelled(value).encode()))


@given(VALUES, VALUES)
@settings(deadline=None, print_blob=True)
def test_the_value_does(a: Any, b: Any) -> None:
    def is_same(x: Any, y: Any) -> bool:
        if type(x) is not type(y):
            return False
        if isinstance(x, dict):
            return x.keys() == y.keys() and all(is_same(x[n], y[n]) for n in x)
        if isinstance(x, list):
            return len(x) == len(y) and all(map(is_same, x, y))
        return bool(x == y)

    digests = [digest_of(value_of(json.dumps(value).encode())) for value in (a, b)]
    assert (digests[0] == digests[1]) is is_same(a, b)


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b'{"a":1,"a":1}', OpaqueError),
        (b'[{"x":{"a":1,"\\u0061":2}}]', OpaqueError),
        (b"1e309", NotStrictError),
        (b"-1E+400", NotStrictError),
        (b"9" * 400, NotStrictError),
        (b"NaN", NotStrictError),
        (b"[Infinity]", NotStrictError),
        (b'"\xff"', NotStrictError),
        (b"{", NotStrictError),
        (b"", NotStrictError),
        (b"1 2", NotStrictError),
        (b"[" * 200_000, NotStrictError),
    ],
    ids=lambda value: value[:14].decode("latin-1") if isinstance(value, bytes) else "",
)
def test_what_has_no_single_value_is_refused(raw: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        value_of(raw)


@pytest.mark.parametrize("raw", [b"1e308", b"1e-400", b"0e999", b"9" * 300, b'"1e999"'])
def test_a_number_that_a_double_can_hold_is_kept_by_its_lexeme(raw: bytes) -> None:
    assert encoded(value_of(raw)) == raw


@pytest.mark.parametrize(
    "lexemes",
    [
        ("1", "1.0", "1e0", "10E-1", "0.1e+1", "1.000"),
        ("0", "0.0", "0e5", "0.000"),
        ("-0", "-0.0", "-0e1"),
        ("100", "1e2", "1.00e2"),
        ("-12.50", "-125e-1", "-12.5"),
        ("0.001", "1e-3", "10e-4"),
    ],
    ids=lambda row: row[0],
)
def test_numbers_in_arguments_are_compared_by_exact_value(lexemes: tuple[str, ...]) -> None:
    values = {encoded(exact_numbers(value_of(f"[{x}]".encode()))) for x in lexemes}
    assert len(values) == 1


@pytest.mark.parametrize(
    ("a", "b"),
    [("1", "-1"), ("0", "-0"), ("1", "10"), ("0.1", "0.10000000000000001"), ("1e300", "1e299"),
     ("9007199254740993", "9007199254740992"), ("1", "11")],
)  # fmt: skip
def test_numbers_of_other_values_stay_apart(a: str, b: str) -> None:
    assert exact_numbers(value_of(a.encode())) != exact_numbers(value_of(b.encode()))


def test_an_exponent_that_no_decimal_can_have_is_refused() -> None:
    with pytest.raises(NotStrictError):
        exact_numbers(value_of(b"1e-99999999999999999999"))


@pytest.mark.parametrize(
    ("raw", "depth"),
    [
        (b"1", 0),
        (b'"[[[["', 0),
        (b"[]", 1),
        (b"{}", 1),
        (b'{"a":[{}]}', 3),
        (b'[["]"],[{"\\"}":[]}]]', 4),
        (b"[" * 70 + b"]" * 70, 70),
        (b'{"a":' * 70 + b"1" + b"}" * 70, 70),
        (b"[[],[],[[]],[],{}]", 3),
        (b"[" + b"[]," * 5_000 + b"[]]", 2),
    ],
    ids=lambda value: value[:16].decode() if isinstance(value, bytes) else "",
)
def test_depth_is_that_of_the_deepest_brackets_outside_strings(raw: bytes, depth: int) -> None:
    assert not is_deeper_than(raw, depth)
    assert depth == 0 or is_deeper_than(raw, depth - 1)


def test_a_digest_is_half_of_sha_256_over_the_parts_joined() -> None:
    assert sha(b"a", b"bc") == sha(b"abc")
    assert len(sha(b"")) == DIGEST_BYTES
    assert sha(b"abc").hex() == "ba7816bf8f01cfea414140de5dae2223"
