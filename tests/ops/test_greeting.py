"""What people are told of where a daemon is: a URL that works once TOKEN and HOST are put in."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

from wsproxy import greeting
from wsproxy.config import Settings
from wsproxy.downstream.listening import Address

LOCAL: Final = Address("127.0.0.1", 8787)
ANY: Final = Address("0.0.0.0", 8787)
REMOTE: Final = Address("192.0.2.7", 8787)
TOKEN: Final = {"token_file": Path("/never/read")}


@pytest.mark.parametrize(
    ("address", "settings", "told"),
    [
        (LOCAL, {}, "http://127.0.0.1:8787/v1"),
        (Address("::1", 9), {}, "http://[::1]:9/v1"),
        (LOCAL, {"upstream": "http://127.0.0.1:9"}, "http://127.0.0.1:8787"),
        (LOCAL, TOKEN, "http://127.0.0.1:8787/t/TOKEN/v1"),
        (LOCAL, {"allowed_hosts": ("proxy.lan",)}, "http://127.0.0.1:8787/v1"),
        (ANY, TOKEN, "http://HOST:8787/t/TOKEN/v1"),
        (Address("::", 9), TOKEN, "http://HOST:9/t/TOKEN/v1"),
        (REMOTE, TOKEN, "http://192.0.2.7:8787/t/TOKEN/v1"),
        (ANY, {**TOKEN, "allowed_hosts": ("a.lan", "b.lan")}, "http://a.lan:8787/t/TOKEN/v1"),
        (ANY, {**TOKEN, "allowed_hosts": ("a.lan:80",)}, "http://a.lan:80/t/TOKEN/v1"),
        (ANY, {**TOKEN, "allowed_hosts": ("[fd00::7]",)}, "http://[fd00::7]:8787/t/TOKEN/v1"),
        (REMOTE, {**TOKEN, "allowed_hosts": ("a.lan",)}, "http://a.lan:8787/t/TOKEN/v1"),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
def test_the_url_names_a_host_that_is_answered_and_never_the_token(
    address: Address, settings: dict[str, Any], told: str
) -> None:
    assert greeting.base_url(Settings(**settings), address) == told


@pytest.mark.parametrize(
    ("addresses", "allowed", "expected"),
    [
        ([LOCAL, Address("::1", 8787)], (), False),
        ([ANY], (), True),
        ([LOCAL, REMOTE], (), True),
        ([ANY], ("proxy.lan",), False),
    ],
    ids=["loopback", "any", "one of two", "named"],
)
def test_other_machines_need_a_name_that_is_answered(
    addresses: list[Address], allowed: tuple[str, ...], expected: bool
) -> None:
    assert greeting.is_nameless(Settings(allowed_hosts=allowed), addresses) is expected
