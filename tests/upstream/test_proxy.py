"""Which proxy is used for which URL."""

from __future__ import annotations

import base64

import pytest

from tests.canary import SECRET
from wsproxy.upstream.proxy import Address, Proxy, ProxyError, choose_proxy

URL = "wss://api.example.com/v1/responses"
BOTH = {"HTTPS_PROXY": "http://secure:3128", "HTTP_PROXY": "http://plain:3128"}
SECURE = Proxy(Address("secure", 3128, is_tls=False))
PLAIN = Proxy(Address("plain", 3128, is_tls=False))


@pytest.mark.parametrize(
    ("url", "setting", "environment", "expected"),
    [
        (URL, "env", {}, None),
        (URL, "env", BOTH, SECURE),
        ("https://api.example.com/v1", "env", BOTH, SECURE),
        ("ws://api.example.com/v1", "env", BOTH, PLAIN),
        (URL, "env", {"HTTP_PROXY": "http://plain:3128"}, None),
        (URL, "env", {**BOTH, "https_proxy": "plain:3128"}, PLAIN),
        (URL, "none", BOTH, None),
        (URL, "http://plain:3128", {**BOTH, "NO_PROXY": "*"}, PLAIN),
        (URL, "https://tls", {}, Proxy(Address("tls", 443, is_tls=True))),
        ("wss://127.0.0.1/", "env", BOTH, None),
        ("wss://[::1]/", "http://plain:3128", BOTH, None),
        ("wss://localhost:8443/", "env", BOTH, None),
    ],
)
def test_the_proxy_is_the_one_for_the_scheme(
    url: str, setting: str, environment: dict[str, str], expected: Proxy | None
) -> None:
    assert choose_proxy(url, setting, environment) == expected


@pytest.mark.parametrize(
    ("no_proxy", "is_excepted"),
    [
        ("*", True),
        ("example.com", True),
        (".example.com", True),
        ("*.example.com", True),
        ("other, API.example.com", True),
        ("api.example.com:443", True),
        ("api.example.com:8443", False),
        ("ample.com", False),
        ("example.org", False),
        (" , ", False),
    ],
)
def test_no_proxy_excepts_domains(no_proxy: str, is_excepted: bool) -> None:
    found = choose_proxy(URL, "env", {**BOTH, "NO_PROXY": no_proxy})
    assert (found is None) is is_excepted


@pytest.mark.parametrize(
    ("host", "no_proxy", "is_excepted"),
    [
        ("10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "10.1.2.3", True),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("[fd00::1]", "fd00::/8", True),
        ("[fd00::1]", "[fd00::1]:443", True),
        ("[fd00::1]", "10.0.0.0/8", False),
    ],
)
def test_no_proxy_excepts_addresses_and_networks(
    host: str, no_proxy: str, is_excepted: bool
) -> None:
    found = choose_proxy(f"wss://{host}/", "env", {**BOTH, "no_proxy": no_proxy})
    assert (found is None) is is_excepted


@pytest.mark.parametrize(
    ("name", "proxy", "problem"),
    [
        ("HTTPS_PROXY", "socks5://host:1080", "a proxy of scheme socks5 is not supported"),
        ("https_proxy", "SOCKS5H://host", "a proxy of scheme socks5h is not supported"),
        ("HTTPS_PROXY", "ws://host", "a proxy of scheme ws is not supported"),
        ("HTTPS_PROXY", "http://host:abc", "the URL of the proxy cannot be read"),
        ("HTTPS_PROXY", "[::1", "the URL of the proxy cannot be read"),
    ],
)
def test_a_variable_that_names_no_http_proxy_is_told_with_what_to_do(
    name: str, proxy: str, problem: str
) -> None:
    with pytest.raises(ProxyError) as raised:
        choose_proxy(URL, "env", {name: proxy, "no_proxy": "example.org"})
    assert raised.value.problem == f"environment {name}: {problem}"
    assert "add api.example.com to no_proxy" in raised.value.advice
    assert choose_proxy(URL, "env", {name: proxy, "NO_PROXY": "api.example.com"}) is None


def test_a_setting_that_names_no_http_proxy_is_called_by_its_name() -> None:
    with pytest.raises(ProxyError) as raised:
        choose_proxy(URL, "socks4://host", {})
    assert raised.value.problem == "upstream_proxy: a proxy of scheme socks4 is not supported"
    assert '"none"' in raised.value.advice


def test_a_password_that_is_no_utf_8_goes_as_it_was_given() -> None:
    given = b"http://me:p\xff@proxy".decode(errors="surrogateescape")
    proxy = choose_proxy(URL, "env", {"HTTPS_PROXY": given})
    assert proxy is not None
    assert proxy.authorization == b"Basic " + base64.b64encode(b"me:p\xff")


@pytest.mark.parametrize(
    "setting", [f"socks5://u:{SECRET}@host", f"http://u:{SECRET}@:x", f"http://u:{SECRET}@"]
)
def test_a_proxy_that_cannot_be_used_is_named_without_its_credentials(setting: str) -> None:
    with pytest.raises(ProxyError) as raised:
        choose_proxy(URL, setting, {})
    assert SECRET not in str(raised.value)


def test_credentials_are_not_shown() -> None:
    proxy = choose_proxy(URL, f"http://user:{SECRET}@proxy", {})
    assert repr(proxy) == "Proxy(proxy:80 with credentials)"
