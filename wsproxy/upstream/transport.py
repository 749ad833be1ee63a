"""One upstream WebSocket on the event loop: the shell around `core/wire/websocket.py`.

Rules of this file
------------------
1. No event is told from within a method of `Link`: whoever calls one is not called back meanwhile.
2. `link_lost` (or `link_refused`) is told once and last. Its `unsent` is a proof: none of the
   bytes that are missing then can leave later. So the owner is told when the wire is gone, or at
   once if nothing is on its way.
3. `link_sent` is told before any message that came after it, and before `link_lost`.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Sequence
from enum import Enum, auto
from typing import Final

from wsproxy.core.api.errors import code_in_close_reason
from wsproxy.core.ids import ConnectionId
from wsproxy.core.multiplex.recovery import Fault
from wsproxy.core.wire.handshake import Accepted, Refused
from wsproxy.core.wire.websocket import Ended, WebSocket
from wsproxy.ports import LinkEvents
from wsproxy.upstream.outbox import Outbox
from wsproxy.upstream.tls import Wire

#: How long the peer may take to answer a close frame, and to end the connection after it.
CLOSE_TIMEOUT_S: Final = 2.0

#: The path is gone, not the peer: what TCP_USER_TIMEOUT and routers report.
_PATH_ERRORS: Final = frozenset(
    (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTDOWN)
)


class _State(Enum):
    DIALLING = auto()
    OPEN = auto()
    CLOSING = auto()  # our close frame is on its way, or sent
    LOST = auto()  # the wire is being dropped; the owner is told when it is gone
    OVER = auto()  # the owner was told, or does not want to be


class WebSocketLink(asyncio.Protocol):
    """A `ports.Link`; the dialer calls `opened` or `refused` once."""

    def __init__(self, connection: ConnectionId, events: LinkEvents) -> None:
        self._connection = connection
        self._events = events
        self._loop = asyncio.get_running_loop()
        self._state = _State.DIALLING
        self._outbox = Outbox(self._on_sent)
        self._dial: asyncio.Task[None] | None = None
        self._wire: Wire | None = None
        self._websocket: WebSocket | None = None
        self._loss: tuple[Fault, str] = (Fault.CONNECTION_ENDED, "the connection ended")
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<WebSocketLink {self._connection} {self._state.name} {self._websocket!r}>"

    # ---- Link ----------------------------------------------------------------------------------

    def send(self, payload: bytes, ticket: int) -> None:
        """Send one text message, after the upgrade if that is still to come.

        A message that never leaves is in `unsent` of `link_lost`. After `link_lost` or
        `link_refused` nothing is told of it any more.
        """
        if self._state is not _State.OVER:
            self._outbox.put_text(payload, ticket)

    def ping(self, payload: bytes) -> None:
        """Send a ping of up to 125 bytes."""
        if self._state is _State.OPEN and self._websocket is not None:
            self._outbox.put_control(self._websocket.ping(payload))

    def close(self, code: int, reason: str = "") -> None:
        """Start the closing handshake; messages that were not begun stay unsent."""
        if self._state is _State.DIALLING:
            self._lose(Fault.CLOSED_NORMALLY, "closed by us while dialling")
        elif self._state is _State.OPEN and self._websocket is not None:
            self._state = _State.CLOSING
            self._outbox.stop()
            self._outbox.put_control(self._websocket.close(code, reason))
            self._timer = self._loop.call_later(CLOSE_TIMEOUT_S, self._close_unanswered)

    def abort(self) -> Sequence[int]:
        """Drop the connection, or stop dialling; no event follows. See `Link.abort`."""
        self._state = _State.OVER
        self._outbox.stop()
        self._drop()
        return self._outbox.unbegun()

    # ---- The dialer's side -----------------------------------------------------------------------

    def is_dialled_by(self, dial: asyncio.Task[None]) -> None:
        """Stop this task when the link is closed or aborted."""
        self._dial = dial

    def opened(self, wire: Wire, accepted: Accepted, websocket: WebSocket, rest: bytes) -> None:
        """The upgrade was accepted; `rest`: what was read behind the bytes of `accepted`."""
        self._dial = None
        self._wire = wire
        self._websocket = websocket
        self._state = _State.OPEN
        wire.set_protocol(self)
        is_compressed = accepted.deflate is not None
        self._events.link_opened(self._connection, accepted.headers, is_compressed)
        self._outbox.open(wire, websocket)
        if accepted.trailing or rest:
            # Before anything is sent: a close frame here (1008 is usual) leaves all turns unsent.
            self.data_received(accepted.trailing + rest)
        self._outbox.pump()

    def refused(self, refusal: Refused) -> None:
        """No connection came of the dial."""
        if self._state is _State.DIALLING:
            self._state = _State.OVER
            self._events.link_refused(
                self._connection,
                refusal.fault,
                refusal.status,
                refusal.headers,
                refusal.body,
                refusal.detail,
            )

    # ---- The wire's side -------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Hand on everything that one read brought, in one piece."""
        websocket = self._websocket
        if websocket is None or self._state is _State.OVER or self._state is _State.LOST:
            return
        messages = websocket.feed(data)
        ended = websocket.ended
        if ended is not None:
            self._outbox.stop()
        elif websocket.has_outgoing:
            self._outbox.put_pong(websocket.take_outgoing())
        if self._outbox.is_unsettled:
            self._outbox.settle()
            self._announce()
        self._events.link_received(self._connection, messages)
        if ended is not None:
            self._end(ended, websocket.take_outgoing())

    def eof_received(self) -> bool | None:
        """The peer ended the connection; it may not hold on to its half of it."""
        self._lose(Fault.CONNECTION_ENDED, "the connection ended without a close frame")
        return None

    def resume_writing(self) -> None:
        """All that was written has left."""
        self._outbox.drained()

    def connection_lost(self, exc: Exception | None) -> None:
        """The wire is gone: what has not left by now never will."""
        if exc is not None:
            self._lose(*_cause(exc))
        if self._state is not _State.OVER:
            self._tell_loss()
        self._stop_timer()

    # ---- Ends ------------------------------------------------------------------------------------

    def _end(self, ended: Ended, farewell: bytes) -> None:
        """The peer said close, or something that we cannot accept."""
        if self._state is _State.OVER or self._state is _State.LOST:
            return
        # The peer's own words may hold what a user said; a code that we know is one of the API's.
        known = code_in_close_reason(ended.reason) or ""
        detail = f"close {ended.code} {known if ended.is_said else ended.reason}".rstrip()
        if not self._outbox.is_between_frames or self._wire is None:
            # Inside a frame nothing else can be said, and the rest of it must not leave.
            self._lose(ended.fault, detail)
            return
        self._loss = (ended.fault, detail)
        if farewell:
            self._wire.write(farewell)
        self._tell_loss()
        self._linger()

    def _lose(self, fault: Fault, detail: str) -> None:
        """Drop the wire; the owner is told when it is gone."""
        if self._state is _State.OVER or self._state is _State.LOST:
            return
        if self._state is _State.CLOSING:
            fault, detail = Fault.CLOSED_NORMALLY, f"while closing: {detail}"
        self._state = _State.LOST
        self._loss = (fault, detail)
        if self._wire is None:
            self._loop.call_soon(self._tell_loss)
        self._drop()

    def _close_unanswered(self) -> None:
        self._lose(Fault.CLOSED_NORMALLY, "our close frame was not answered")

    def _tell_loss(self) -> None:
        if self._state is _State.OVER:
            return
        self._announce()
        self._state = _State.OVER
        self._events.link_lost(self._connection, *self._loss, self._outbox.unsent())

    def _drop(self) -> None:
        self._stop_timer()
        if self._dial is not None:
            self._dial.cancel()
        if self._wire is not None:
            self._wire.abort()

    def _linger(self) -> None:
        """Let the close frame arrive: to drop what is unread now would reset the connection."""
        self._stop_timer()
        self._timer = self._loop.call_later(CLOSE_TIMEOUT_S, self._drop)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # ---- Tickets ---------------------------------------------------------------------------------

    def _on_sent(self) -> None:
        self._loop.call_soon(self._announce)

    def _announce(self) -> None:
        if not self._outbox.has_sent:
            return
        for ticket in self._outbox.take_sent():
            if self._state is not _State.OVER:
                self._events.link_sent(self._connection, ticket)


def _cause(error: Exception) -> tuple[Fault, str]:
    """Which fault a lost wire is. Never F03: of other turns on it, whole frames had left."""
    if isinstance(error, OSError) and error.errno in _PATH_ERRORS:
        return Fault.PATH_DEAD, f"the path is dead: {error}"
    return Fault.CONNECTION_RESET, f"the connection was reset: {error}"
