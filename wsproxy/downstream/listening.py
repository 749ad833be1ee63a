"""Listening sockets: several addresses, and errors that say what to do."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from collections.abc import Sequence
from typing import Final, NamedTuple

BACKLOG: Final = 512  # as many as downstream connections
_ANY_PORT: Final = 0
#: This machine has no such address or no such address family.
_ABSENT: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT})


class Address(NamedTuple):
    """Where to listen. Port 0: any free one; an optional address may be missing."""

    host: str
    port: int
    is_optional: bool = False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class ListenError(Exception):
    """A port cannot be opened; the message says what to do."""


async def bind(listen: Sequence[Address], *, is_remote_allowed: bool) -> list[socket.socket]:
    """Bind every address, or none: raises `ListenError`.

    An optional address with port 0 takes the port that the first one got.
    """
    bound: list[socket.socket] = []
    try:
        for address in listen:
            for family, host in await _resolved(address):
                _check_reach(host, is_remote_allowed=is_remote_allowed)
                sock = _bound(family, host, address, bound)
                if sock is not None:
                    bound.append(sock)
        if not bound:
            raise ListenError("No address to listen on; see --listen.")
    except ListenError:
        for sock in bound:
            sock.close()
        raise
    return bound


def is_loopback(host: str) -> bool:
    """True if only this machine can reach the address."""
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback


def _check_reach(host: str, *, is_remote_allowed: bool) -> None:
    if not is_remote_allowed and not is_loopback(host):
        raise ListenError(
            f"{host} can be reached from other machines: that needs --allow-remote and "
            "--token-file. Or listen on 127.0.0.1."
        )


async def _resolved(address: Address) -> list[tuple[int, str]]:
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(address.host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        if address.is_optional:
            return []
        raise ListenError(f"{address.host} is no address of this machine.") from error
    return list(dict.fromkeys((family, str(place[0])) for family, _, _, _, place in found))


def _bound(
    family: int, host: str, address: Address, earlier: Sequence[socket.socket]
) -> socket.socket | None:
    is_follower = address.is_optional and address.port == _ANY_PORT and bool(earlier)
    port = earlier[0].getsockname()[1] if is_follower else address.port
    try:
        return _opened(family, host, port)
    except OSError as error:
        if address.is_optional and (is_follower or error.errno in _ABSENT):
            return None
        raise ListenError(_advice(Address(host, port), error)) from error


def _opened(family: int, host: str, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _advice(address: Address, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"{address} is in use, perhaps by another wsproxy. Stop that one, or choose another "
            f"port: --listen {Address(address.host, address.port + 1)}"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{address} may not be opened by this user; choose a port above 1023: --listen"
    if error.errno in _ABSENT:
        return f"{address.host} is no address of this machine; try --listen 127.0.0.1:8787"
    return f"{address} cannot be opened: {error.strerror}"
