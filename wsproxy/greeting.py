"""What people are told of where a daemon is. Programs of this machine use `Daemon.base_url`.

Rules of this file
------------------
1. The token is never shown: the word TOKEN stands in its place, as in refusals.
2. A URL whose Host would be refused is no URL to use: one that is allowed, or the word HOST.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

from wsproxy.config import Settings
from wsproxy.downstream.guard import has_port
from wsproxy.downstream.listening import Address, is_loopback
from wsproxy.options import Upstream

#: To the operator, where agents of other machines are expected and no name is theirs to use.
NAMELESS: Final = (
    "requests that name any host but 127.0.0.1, localhost or [::1] are refused until "
    "allowed_hosts names it"
)


def base_url(settings: Settings, address: Address) -> str:
    """What a person points an agent at; `address` is one that the daemon listens on."""
    token = "/t/TOKEN" if settings.token_file else ""
    return f"http://{_authority(settings, address)}{token}{Upstream.of(settings.upstream).base}"


def is_nameless(settings: Settings, addresses: Iterable[Address]) -> bool:
    """Whether other machines can reach us, but by no Host that is answered."""
    return not settings.allowed_hosts and not all(is_loopback(one.host) for one in addresses)


def _authority(settings: Settings, address: Address) -> str:
    if is_loopback(address.host):
        return str(address)
    if settings.allowed_hosts:
        name = settings.allowed_hosts[0]
        return name if has_port(name) else f"{name}:{address.port}"
    return f"HOST:{address.port}" if _is_any(address.host) else str(address)


def _is_any(host: str) -> bool:
    return ipaddress.ip_address(host.partition("%")[0]).is_unspecified
