"""Listening: several addresses, missing IPv6, and errors that say what to do."""

from __future__ import annotations

import asyncio
import socket

import pytest

from wsproxy.downstream.listening import Address, ListenError, bind, is_loopback

ABSENT = "2001:db8::1"  # documentation range: no machine has it


def closed(sockets: list[socket.socket]) -> list[int]:
    """Close them; the ports they had."""
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


async def test_a_free_port_is_found_and_shared_with_the_optional_address() -> None:
    listen = [Address("127.0.0.1", 0), Address("::1", 0, is_optional=True)]
    ports = closed(await bind(listen, is_remote_allowed=False))
    assert ports[0] > 0
    assert set(ports) == {ports[0]}


async def test_a_missing_optional_address_is_no_error() -> None:
    listen = [Address("127.0.0.1", 0), Address(ABSENT, 0, is_optional=True)]
    assert len(closed(await bind(listen, is_remote_allowed=True))) == 1


async def test_several_addresses_are_served() -> None:
    listen = [Address("127.0.0.1", 0), Address("127.0.0.2", 0), Address("localhost", 0)]
    assert len(closed(await bind(listen, is_remote_allowed=False))) >= 3


async def test_a_port_in_use_is_told_with_what_to_do() -> None:
    taken = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    with pytest.raises(ListenError) as caught:
        await bind([Address("127.0.0.1", 0), Address("127.0.0.1", port)], is_remote_allowed=False)
    assert f"127.0.0.1:{port} is in use" in str(caught.value)
    assert f"--listen 127.0.0.1:{port + 1}" in str(caught.value)
    taken.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ABSENT, "192.0.2.1"])
async def test_beyond_loopback_needs_permission(host: str) -> None:
    with pytest.raises(ListenError, match="--allow-remote and --token-file"):
        await bind([Address(host, 0)], is_remote_allowed=False)


@pytest.mark.parametrize(
    ("host", "advice"),
    [
        ("192.0.2.1", "no address of this machine"),
        ("no such name.invalid", "no address of this machine"),
    ],
)
async def test_a_foreign_address_is_told(host: str, advice: str) -> None:
    with pytest.raises(ListenError, match=advice):
        await bind([Address(host, 0)], is_remote_allowed=True)


@pytest.mark.parametrize(
    ("host", "is_local"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("10.0.0.1", False), ("::", False)],
)
def test_loopback_is_known(host: str, is_local: bool) -> None:
    assert is_loopback(host) is is_local


@pytest.mark.parametrize(
    ("address", "text"),
    [(Address("127.0.0.1", 80), "127.0.0.1:80"), (Address("::1", 80), "[::1]:80")],
)
def test_an_address_reads_as_in_a_url(address: Address, text: str) -> None:
    assert str(address) == text
