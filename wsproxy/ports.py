"""The doors between the driver and its shells: what each side may ask of the other.

`downstream/` and `upstream/` never import each other; they meet here. Everything is called on
the event loop's thread. Methods that are not `async` never block and never raise.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from wsproxy.core.ids import ConnectionId
from wsproxy.core.multiplex.recovery import Fault
from wsproxy.core.wire.websocket import Message

#: Raw header fields in wire order, names as they came, duplicates kept.
Headers = Sequence[tuple[bytes, bytes]]


class Sink(Protocol):
    """One downstream answer. `downstream/turns.py` implements it."""

    @property
    def is_started(self) -> bool:
        """Whether anything of the answer has been written."""

    def start(self, status: int, headers: Headers) -> None:
        """Write the head of a streamed answer; call before `write`, at most once."""

    def write(self, data: bytes) -> int:
        """Hand bytes of the body to the transport at once (one write, nothing waits).

        Returns how many bytes the client has not taken yet.
        """

    def finish(self, data: bytes) -> None:
        """Hand on the last bytes and end a streamed answer in the regular way, in one write."""

    def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """Write a whole answer with its Content-Length, head and body in one go."""

    def abort(self) -> None:
        """Cut the TCP connection without the last chunk, after what was written has left."""

    def drop(self) -> None:
        """Cut the TCP connection at once; what the client has not taken is lost."""

    def buffered_bytes(self) -> int:
        """Bytes that the client has not taken yet."""

    def taken_bytes(self) -> int:
        """Bytes that the client has taken, framing and all. Only its growth tells something: the
        buffer may hold what was written before this answer."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where and as whom a WebSocket is opened.

    `url` is `ws://` or `wss://` with path and query; `headers` are the identity headers of the
    pool key (raw, to be sent on the upgrade as they are).
    """

    url: str
    headers: Headers = field(repr=False)


class Link(Protocol):
    """One upstream WebSocket, from its dial to its end. `upstream/transport.py` implements it."""

    def send(self, payload: bytes, ticket: int) -> None:
        """Send one text message; `LinkEvents.link_sent(ticket)` follows when its last byte left."""

    def ping(self, payload: bytes) -> None:
        """Send a ping (answers to the peer's pings are the link's own business)."""

    def close(self, code: int, reason: str = "") -> None:
        """Start the closing handshake; `link_lost` follows, at the latest after 2 s."""

    def abort(self) -> Sequence[int]:
        """Drop the TCP connection, or stop dialling. No further event follows.

        Gives the tickets of whose frame not a byte has left, nor ever will.
        """


class LinkEvents(Protocol):
    """What a link tells its owner. The driver implements it."""

    def link_opened(self, connection: ConnectionId, headers: Headers, is_compressed: bool) -> None:
        """The upgrade was accepted with these response headers of the 101."""

    def link_refused(
        self,
        connection: ConnectionId,
        fault: Fault,
        status: int | None,
        headers: Headers,
        body: bytes,
        detail: str,
    ) -> None:
        """No connection came of the dial (faults F32–F37); the last event of this link.

        `status`, `headers`, `body` (its first KiB) are those of the upgrade's refusal, if any.
        """

    def link_received(self, connection: ConnectionId, messages: Sequence[Message]) -> None:
        """Everything that one read brought, in order."""

    def link_sent(self, connection: ConnectionId, ticket: int) -> None:
        """The last byte of that message has left our buffers."""

    def link_lost(
        self, connection: ConnectionId, fault: Fault, detail: str, unsent: Sequence[int]
    ) -> None:
        """The connection is over (F01–F19); `unsent`: tickets whose frame had not wholly left.

        The last event of this link. `detail` is in our own words: upstream's may hold a user's.
        """


class Dialer(Protocol):
    """Opens links. `upstream/dialer.py` implements it."""

    def dial(self, connection: ConnectionId, target: Target, events: LinkEvents) -> Link:
        """Start dialling at once, in the background; the outcome comes through `events`."""


class RestResponse(Protocol):
    """An upstream HTTP answer whose body has not been read yet."""

    @property
    def status(self) -> int:
        """The status code."""

    @property
    def reason(self) -> str:
        """The reason phrase, as upstream sent it."""

    @property
    def headers(self) -> Headers:
        """End-to-end headers, raw, hop-by-hop ones removed."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives, content codings untouched."""

    def close(self) -> None:
        """Drop the upstream connection unless the body was read to its end."""


class RestError(Exception):
    """No HTTP answer could be had. `status` (502 or 504) and `code` are for the client."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Rest(Protocol):
    """Plain HTTP(S) to the upstream origin. `upstream/rest.py` implements it."""

    async def send(
        self,
        method: str,
        raw_target: str,
        headers: Headers,
        body: bytes | AsyncIterator[bytes] | None,
    ) -> RestResponse:
        """Send one request and return when its response head has arrived.

        `raw_target` is path and query exactly as the client wrote them. Raises `RestError`.
        """
