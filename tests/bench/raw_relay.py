"""The floor of the language: bytes from one socket to the other, looked at by nobody.

python -m tests.bench.raw_relay UPSTREAM [--listen HOST:PORT] [--tls PEM]
"""

from __future__ import annotations

import argparse
import asyncio
from typing import cast
from urllib.parse import urlsplit

import uvloop

from tests.bench.source import tls_context


class Half(asyncio.Protocol):
    """One of two sockets; what it reads, the other writes."""

    other: Half | None = None

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is open."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Pass it on, or keep it until the other socket is open."""
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)
        else:
            self._early.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The other one has nobody left to talk to."""
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()

    def joined(self, other: Half) -> None:
        """The other socket is open."""
        self.other, other.other = other, self
        assert other.transport is not None
        other.transport.write(b"".join(self._early))


class Front(Half):
    """The client's side, which opens the other."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__()
        self._address = host, port

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client came."""
        super().connection_made(transport)
        self._opening = asyncio.ensure_future(self._open())

    async def _open(self) -> None:
        _, back = await asyncio.get_running_loop().create_connection(Half, *self._address)
        self.joined(back)


async def main(arguments: argparse.Namespace) -> None:
    """Serve until killed; prints the base URL."""
    url = urlsplit(arguments.upstream)
    assert url.hostname is not None
    assert url.port is not None
    host, port = url.hostname, url.port
    own_host, _, own_port = arguments.listen.rpartition(":")
    server = await asyncio.get_running_loop().create_server(
        lambda: Front(host, port),
        own_host,
        int(own_port),
        ssl=tls_context(arguments.tls) if arguments.tls else None,
    )
    scheme, own_port = "https" if arguments.tls else "http", server.sockets[0].getsockname()[1]
    print(f"{scheme}://{own_host}:{own_port}{url.path}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("upstream", metavar="UPSTREAM", help="a base URL")
    parser.add_argument("--listen", default="127.0.0.1:0", help="port 0 takes a free one")
    parser.add_argument("--tls", metavar="PEM", help="key and certificates: serve over TLS")
    uvloop.run(main(parser.parse_args()))
