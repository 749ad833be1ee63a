"""TLS over a plain transport, with nothing kept back.

asyncio's and uvloop's own TLS transports hide what their TCP transport still holds, so that an
empty write buffer there proves nothing about what has left. Here every record goes to the TCP
transport at once, and its buffer is the only one. (It also saves asyncio's read buffer of
256 KiB a connection, and stacks: TLS through a TLS proxy.)
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path
from typing import Final, Protocol

_RECORD_BYTES: Final = 16 * 1024  # RFC 8446 §5.1: what one record holds at most


class Wire(Protocol):
    """What a connection is written to: asyncio's `Transport`, or TLS above one."""

    def write(self, data: bytes) -> None:
        """Send, or buffer what the layer below does not take."""

    def get_write_buffer_size(self) -> int:
        """Bytes that have not left; 0 also after a failed write, when `is_closing`."""

    def is_closing(self) -> bool:
        """Whether writing is over."""

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """From now on tell this one."""

    def close(self) -> None:
        """Send what is buffered, then end."""

    def abort(self) -> None:
        """End without sending what is buffered."""


def client_context(ca_file: Path | None = None) -> ssl.SSLContext:
    """The system's certificates, or only those of `ca_file`; hostname check; TLS 1.2 and up.

    Raises `OSError` (which `ssl.SSLError` is) if the file cannot be read.
    """
    context = ssl.create_default_context(cafile=str(ca_file) if ca_file is not None else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A write must never have to wait for a read.
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    return context


class TlsWire(asyncio.Protocol):
    """A `Wire` above another one, whose protocol it becomes.

    Await `shake_hands` before writing. From then on `above` is told what comes, of `ssl.SSLError`
    too, as the reason of `connection_lost`.
    """

    def __init__(
        self, below: Wire, context: ssl.SSLContext, host: str, above: asyncio.Protocol
    ) -> None:
        self._below = below
        self._above = above
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._is_established = False
        self._established: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._failure: ssl.SSLError | None = None

    async def shake_hands(self, early: bytes = b"") -> None:
        """Raises `ssl.SSLError`, or `OSError` where the connection ended first.

        `early`: what the wire's protocol until now has read from a server that speaks first.
        """
        if self._below.is_closing():
            raise ConnectionError("the connection ended before the TLS handshake")
        self._below.set_protocol(self)
        self._incoming.write(early)
        self._continue_handshake()
        await self._established

    # ---- Wire ----------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Encrypt and hand on at once. Without renegotiation a write never waits for a read."""
        self._tls.write(data)
        self._flush()

    def get_write_buffer_size(self) -> int:
        """What the TCP transport holds: nothing is held here."""
        return self._below.get_write_buffer_size()

    def is_closing(self) -> bool:
        """Whether writing is over."""
        return self._failure is not None or self._below.is_closing()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """From now on tell this one."""
        assert isinstance(protocol, asyncio.Protocol)
        self._above = protocol

    def close(self) -> None:
        """Say close_notify and end; the peer's own is not waited for."""
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        self._flush()
        self._below.close()

    def abort(self) -> None:
        """End without sending what is buffered."""
        self._below.abort()

    # ---- The protocol of the wire below --------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Hand on what the records hold that are whole, in one piece."""
        self._incoming.write(data)
        if not self._is_established:
            self._continue_handshake()
        if self._is_established:
            self._read()

    def eof_received(self) -> bool | None:
        """The connection ended, with or without close_notify."""
        if self._is_established:
            return self._above.eof_received()
        self._settle(ConnectionError("the connection ended during the TLS handshake"))
        return None

    def resume_writing(self) -> None:
        """The TCP transport's buffer is empty again."""
        self._above.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing leaves any more."""
        if self._is_established:
            self._above.connection_lost(self._failure or exc)
        else:
            self._settle(exc or ConnectionError("the connection ended during the TLS handshake"))

    # ---- TLS -----------------------------------------------------------------------------------

    def _continue_handshake(self) -> None:
        failure: ssl.SSLError | None = None
        try:
            self._tls.do_handshake()
            self._is_established = True
        except ssl.SSLWantReadError:
            self._flush()
            return
        except ssl.SSLError as error:
            failure = error
        self._flush()  # the alert, too
        self._settle(failure)

    def _settle(self, failure: Exception | None) -> None:
        if self._established.done():
            return
        if failure is None:
            self._established.set_result(None)
        else:
            self._established.set_exception(failure)

    def _read(self) -> None:
        plain: list[bytes] = []
        is_over = False
        try:
            while not is_over and (self._incoming.pending or self._tls.pending()):
                plain.append(self._tls.read(_RECORD_BYTES))
                is_over = not plain[-1]  # close_notify
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self._failure = error
        self._flush()
        data = plain[0] if len(plain) == 1 else b"".join(plain)
        if data:
            self._above.data_received(data)
        if self._failure is not None:
            self._below.abort()
        elif is_over and not self._above.eof_received():
            self._below.close()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._below.write(self._outgoing.read())
