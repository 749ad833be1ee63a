"""Which HTTP proxy, if any, stands between us and upstream.

`HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` are honoured as the ecosystem expects; the lower-case
names win, as they do in curl. Loopback is never reached through a proxy.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from wsproxy.config import SettingsError

_DEFAULT_PORTS: Final = {"ws": 80, "wss": 443, "http": 80, "https": 443}
_NAME_ANOTHER: Final = "name a proxy as http://HOST:PORT"


class ProxyError(SettingsError):
    """A proxy that cannot be used; the message never holds its credentials."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a URL's TCP connection goes; `is_tls`: https or wss."""

    host: str
    port: int
    is_tls: bool

    @classmethod
    def of(cls, url: SplitResult) -> Address:
        """Raises `ValueError` if the URL has no host, an odd port or another scheme."""
        if not url.hostname or url.scheme not in _DEFAULT_PORTS:
            raise ValueError(f"not the URL of a server: {url.scheme}://{url.hostname or ''}")
        port = url.port or _DEFAULT_PORTS[url.scheme]
        return cls(url.hostname, port, url.scheme in ("wss", "https"))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy that is asked to CONNECT. `authorization` is secret and not in the `repr`."""

    address: Address
    authorization: bytes | None = None

    def __repr__(self) -> str:
        return f"Proxy({self.address}{' with credentials' if self.authorization else ''})"


def choose_proxy(url: str, setting: str, environment: Mapping[str, str]) -> Proxy | None:
    """The proxy for `url`. `setting`: "env", "none" or the URL of a proxy.

    Raises `ProxyError` for the URL of a proxy that is none, `ValueError` for an odd `url`.
    """
    address = Address.of(urlsplit(url))
    if setting == "none" or is_loopback(address.host):
        return None
    if setting != "env":
        return _parse(setting, "upstream_proxy", f'{_NAME_ANOTHER}, or set it to "none"')
    name = _variable(environment, "https_proxy" if address.is_tls else "http_proxy")
    exceptions = _variable(environment, "no_proxy")
    if not name or _is_excepted(address, environment.get(exceptions, "")):
        return None
    advice = f"{_NAME_ANOTHER}, or add {address.host} to {exceptions or 'NO_PROXY'}"
    return _parse(environment[name], f"environment {name}", advice)


def is_loopback(host: str) -> bool:
    """Whether a host name or address can only mean this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _variable(environment: Mapping[str, str], name: str) -> str:
    """How that variable is spelled where it says something, else ""."""
    return next((each for each in (name, name.upper()) if environment.get(each)), "")


def _parse(proxy_url: str, where: str, advice: str) -> Proxy:
    if "://" not in proxy_url:
        proxy_url = f"http://{proxy_url}"
    try:
        url = urlsplit(proxy_url)
        address = Address.of(url) if url.scheme in ("http", "https") else None
    except ValueError:
        raise ProxyError(f"{where}: the URL of the proxy cannot be read", advice) from None
    if address is None:
        scheme = url.scheme or "unknown"
        raise ProxyError(f"{where}: a proxy of scheme {scheme} is not supported", advice)
    return Proxy(address, _authorization(url))


def _authorization(url: SplitResult) -> bytes | None:
    if url.username is None:
        return None
    login = f"{unquote(url.username)}:{unquote(url.password or '')}"
    # What is no UTF-8 in the environment was escaped by Python, and goes as it was given.
    return b"Basic " + base64.b64encode(login.encode(errors="surrogateescape"))


def _is_excepted(address: Address, no_proxy: str) -> bool:
    entries = (entry.strip().lower() for entry in no_proxy.split(","))
    return any(_is_match(address, entry) for entry in entries if entry)


def _is_match(address: Address, entry: str) -> bool:
    """One entry of NO_PROXY: `*`, a domain, an address or a network, perhaps with a port."""
    host, port = _split_port(entry)
    if port and port != str(address.port):
        return False
    if host == "*":
        return True
    try:
        return ipaddress.ip_address(address.host) in ipaddress.ip_network(host, strict=False)
    except ValueError:
        domain = host.removeprefix("*").lstrip(".")
        return address.host == domain or address.host.endswith(f".{domain}")


def _split_port(entry: str) -> tuple[str, str]:
    if entry.startswith("["):
        host, _, port = entry[1:].partition("]")
        return host, port.removeprefix(":")
    if entry.count(":") == 1:
        host, _, port = entry.partition(":")
        return host, port
    return entry, ""
