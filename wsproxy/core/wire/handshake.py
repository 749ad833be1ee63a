"""The opening handshake, client side: the request to be written, and what the answer means.

h11 reads and writes HTTP; this file holds the rules of RFC 6455 §4 and the faults F34–F37.
Whatever a 101 says that was not asked for is refused: nothing is known then of what the bytes
after it mean.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import h11

from wsproxy.core.multiplex.recovery import Fault
from wsproxy.core.wire import deflate
from wsproxy.core.wire.deflate import DeflateError, DeflateParameters

#: All of the answer's head; upstream's own limit for a request's is the same.
MAX_HEAD_BYTES: Final = 64 * 1024
#: What is kept of a refusal's body: enough for an OpenAI error.
MAX_BODY_BYTES: Final = 1024

_ACCEPT_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3

RawHeaders: TypeAlias = Sequence[tuple[bytes, bytes]]


class HandshakeError(Exception):
    """The request cannot be written: a header or the target holds what HTTP does not allow."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The 101. `trailing`: bytes after it, which are frames already."""

    headers: RawHeaders = field(repr=False)
    deflate: DeflateParameters | None
    trailing: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Refused:
    """No WebSocket. `status` is absent where no answer could be read; `body`: its first KiB."""

    fault: Fault
    status: int | None
    headers: RawHeaders = field(repr=False)
    body: bytes = field(repr=False)
    detail: str


Outcome: TypeAlias = Accepted | Refused


class Handshake:
    """Write `request`, then call `feed` until it gives an outcome, `give_up` when waiting ends.

    `target` is path and query exactly as they go on the wire, `host` the value of `Host`,
    `nonce` 16 unpredictable bytes. `headers` go as they are, in their own case, but for those
    that the handshake itself must say. Raises `HandshakeError`.
    """

    def __init__(
        self,
        *,
        target: bytes,
        host: bytes,
        headers: RawHeaders,
        nonce: bytes,
        is_deflate_offered: bool,
    ) -> None:
        key = base64.b64encode(nonce)
        self._expected = base64.b64encode(hashlib.sha1(key + _ACCEPT_GUID).digest())
        self._is_deflate_offered = is_deflate_offered
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._head_bytes = 0
        self._response: h11.Response | None = None
        self._body = b""
        own = [
            (b"Host", host),
            (b"Upgrade", b"websocket"),
            (b"Connection", b"Upgrade"),
            (b"Sec-WebSocket-Key", key),
            (b"Sec-WebSocket-Version", b"13"),
        ]
        if is_deflate_offered:
            own.append((b"Sec-WebSocket-Extensions", deflate.OFFER))
        self.request = self._write(target, [*own, *_theirs(headers)])

    def _write(self, target: bytes, headers: RawHeaders) -> bytes:
        try:
            request = h11.Request(method=b"GET", target=target, headers=list(headers))
            return (self._http.send(request) or b"") + (self._http.send(h11.EndOfMessage()) or b"")
        except h11.LocalProtocolError:  # whose words repeat the value, and it may be a key
            raise HandshakeError("a header or the target that HTTP does not allow") from None

    @property
    def is_refused(self) -> bool:
        """Whether the status is known already and only the refusal's body is waited for."""
        return self._response is not None

    def feed(self, data: bytes) -> Outcome | None:
        """What was read; `b""` at the end of the connection. `None`: read on."""
        if not data:
            return self.give_up("the connection ended during the upgrade")
        if self._response is None:
            self._head_bytes += len(data)
        try:
            self._http.receive_data(data)
            outcome = self._next()
        except h11.RemoteProtocolError as error:
            return self._refused_unread(Fault.UPGRADE_FAILED, f"not HTTP: {error}")
        if outcome is None and self._response is None and self._head_bytes > MAX_HEAD_BYTES:
            return self._refused_unread(Fault.UPGRADE_FAILED, "the answer's head is too long")
        return outcome

    def give_up(self, detail: str) -> Refused:
        """The refusal with as much of it as came; without a status nobody answered (F32)."""
        if self._response is None:
            return self._refused_unread(Fault.UNREACHABLE, detail)
        return self._refused(self._response)

    def _next(self) -> Outcome | None:
        while True:
            event = self._http.next_event()
            match event:
                case h11.InformationalResponse(status_code=101):
                    return self._judge(event)
                case h11.InformationalResponse():  # 100, 103: the answer is still to come
                    continue
                case h11.Response():
                    self._response = event
                case h11.Data():
                    self._body = (self._body + bytes(event.data))[:MAX_BODY_BYTES]
                    if len(self._body) == MAX_BODY_BYTES and self._response is not None:
                        return self._refused(self._response)
                case h11.EndOfMessage() if self._response is not None:
                    return self._refused(self._response)
                case _:
                    return None

    def _refused_unread(self, fault: Fault, detail: str) -> Refused:
        return Refused(fault, None, (), b"", detail)

    def _refused(self, response: h11.Response) -> Refused:
        status = response.status_code
        headers = response.headers.raw_items()
        detail = f"the upgrade was answered with {status}"
        return Refused(fault_of_status(status), status, headers, self._body, detail)

    # ---- The 101 -------------------------------------------------------------------------------

    def _judge(self, event: h11.InformationalResponse) -> Outcome:
        headers = event.headers.raw_items()
        agreed: DeflateParameters | None = None
        try:
            oddity = self._oddity(headers)
            agreed = self._agreed(headers)
        except DeflateError as error:
            oddity = str(error)
        if oddity:
            return Refused(Fault.UPGRADE_UNSUPPORTED, 101, headers, b"", f"odd 101: {oddity}")
        trailing, _ = self._http.trailing_data
        return Accepted(headers, agreed, trailing)

    def _oddity(self, headers: RawHeaders) -> str:
        """Which rule of RFC 6455 §4.1 the 101 breaks; empty if none."""
        if [value.lower() for value in _values(headers, b"upgrade")] != [b"websocket"]:
            return "no Upgrade: websocket"
        connection = b",".join(_values(headers, b"connection")).lower()
        if b"upgrade" not in (token.strip() for token in connection.split(b",")):
            return "no Connection: Upgrade"
        if list(_values(headers, b"sec-websocket-accept")) != [self._expected]:
            return "bad Sec-WebSocket-Accept"
        if any(_values(headers, b"sec-websocket-protocol")):
            return "an unasked subprotocol"
        return ""

    def _agreed(self, headers: RawHeaders) -> DeflateParameters | None:
        extensions = b",".join(_values(headers, b"sec-websocket-extensions")).strip()
        if not extensions:
            return None
        if not self._is_deflate_offered:
            raise DeflateError("an unasked extension")
        return deflate.parse_agreement(extensions)


def fault_of_status(status: int) -> Fault:
    """The row of the fault matrix for an upgrade that was answered with this status."""
    match status:
        case 401 | 403:
            return Fault.UPGRADE_UNAUTHORIZED
        case 404 | 405 | 426 | 501:
            return Fault.UPGRADE_UNSUPPORTED
        case 429:
            return Fault.UPGRADE_RATE_LIMITED
        case _ if 300 <= status < 400:  # never followed: our credentials are for this origin only
            return Fault.UPGRADE_UNSUPPORTED
        case _:
            return Fault.UPGRADE_FAILED


def _theirs(headers: RawHeaders) -> Iterator[tuple[bytes, bytes]]:
    for name, value in headers:
        lowered = name.lower()
        if not lowered.startswith(b"sec-websocket-") and lowered not in _OWN:
            yield name, value


#: Said by the handshake itself, or wrong for a request without a body.
_OWN: Final = frozenset(
    (b"host", b"upgrade", b"connection", b"content-length", b"transfer-encoding")
)


def _values(headers: RawHeaders, name: bytes) -> Iterator[bytes]:
    return (value for key, value in headers if key.lower() == name)
