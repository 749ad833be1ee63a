"""One turn's way home: what the core decided, said to its client.

Every method but `write` ends the turn, and says so through `outcome`. Nothing is decided here.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from wsproxy.core.accounts import TurnAccount
from wsproxy.core.api.contents import document, ordered
from wsproxy.core.api.edits import sse
from wsproxy.core.api.errors import UpstreamError, flat_error, flat_event, own_error
from wsproxy.core.api.events import Received
from wsproxy.core.api.request import Request
from wsproxy.core.api.spans import EventError
from wsproxy.core.commands import RefuseTurn, SendTurn
from wsproxy.core.conversation.plan import Route, Why
from wsproxy.core.conversation.transcript import Transcript
from wsproxy.core.ids import TurnId
from wsproxy.core.multiplex.relay import Stream
from wsproxy.ports import Headers, Sink

_DICE: Final = random.SystemRandom()
_JSON: Final = (b"Content-Type", b"application/json")
_SSE: Final = (b"Content-Type", b"text/event-stream; charset=utf-8")


@dataclass(frozen=True, slots=True)
class OverHttps:
    """The turn is to be sent over HTTPS, verbatim; `headers` go beside upstream's own.

    Whoever sends it tells `Driver.ended_over_https` when its answer has ended.
    """

    headers: Headers
    account: TurnAccount


@dataclass(slots=True, eq=False)
class RunningTurn:
    """What the shell keeps of a turn: its bytes, its client, and how it is sent."""

    id: TurnId
    request: Request | None = field(repr=False)  # None once it cannot be sent again
    transcript: Transcript = field(repr=False)
    free_body: Callable[[], None]
    sink: Sink
    outcome: asyncio.Future[OverHttps | None]
    account: TurnAccount
    headers: list[tuple[bytes, bytes]] = field(default_factory=list, repr=False)
    stream: Stream | None = None
    route: Route = Route.NONE
    why: Why | None = None

    def placed(self, command: SendTurn, announced: Sequence[tuple[bytes, bytes]]) -> None:
        """It is about to be sent, on a connection whose 101 announced these headers."""
        self.stream, self.route, self.why = command.stream, command.route, command.why
        self.headers = list(announced)

    def let_go_of_body(self) -> None:
        """It has started: nothing of what was asked is needed any more."""
        self.request = self.account.request = None
        self.transcript.let_go()
        self.free_body()

    # ── Upstream's own words ─────────────────────────────────────────────────────────────────

    def answer(self) -> int:
        """Begin a streamed answer with what is there of it; returns how many bytes were written."""
        self.sink.start(200, [_SSE, *self._told()])
        first = self._stream.take_pending()
        self.sink.write(first)
        return len(first)

    def finish(self, received: Received) -> int:
        """The terminal event has come; returns how many bytes were written."""
        if self._stream.is_streaming:
            last = self._stream.take_pending()
            self.sink.finish(last)
            written = len(last)
        else:
            written = self._respond(received)
        self.end()
        return written

    def _respond(self, received: Received) -> int:
        stream = self._stream
        status = 200
        try:
            body = document(received.payload, ordered(stream.done), stream.restored)
        except EventError as error:
            status, body = 502, own_error(502, "upstream_protocol_error", str(error))
        self.sink.respond(status, [_JSON, *self._told()], body)
        return len(body)

    def relay_error(self, error: UpstreamError) -> None:
        """Upstream refused it, or gave it up in mid-stream."""
        if self.sink.is_started:
            self.sink.finish(self._last(flat_event(error, self._next_number)))
        else:
            headers = [
                (name.encode("latin-1"), value.encode("latin-1")) for name, value in error.headers
            ]
            self.sink.respond(error.status, [_JSON, *headers, *self._told()], error.body)
        self.end()

    # ── Ours ─────────────────────────────────────────────────────────────────────────────────

    def refuse(self, command: RefuseTurn, *, forbids_retry: bool) -> None:
        """`forbids_retry`: SDKs are not to repeat what may have run."""
        headers = [_JSON, *told(self.id, Route.NONE, Why(command.code))]
        if command.is_outcome_unknown:
            headers.append((b"x-wsproxy-outcome", b"unknown"))
            if forbids_retry:
                headers.append((b"x-should-retry", b"false"))
        if command.retry_after_s is not None:
            headers.append((b"retry-after", b"%d" % command.retry_after_s))
        if command.should_retry is not None:
            headers.append((b"x-should-retry", b"true" if command.should_retry else b"false"))
        message = command.message
        if command.is_outcome_unknown:
            message = f"{_lost(command.code)}: {message}. The turn may have run, and {_NOT_AGAIN}"
        body = own_error(command.status, command.code, message)
        self.sink.respond(command.status, headers, body)
        self.end()

    def break_off(self, code: str, message: str) -> None:
        """Upstream was lost in mid-answer: say so, and let nobody take it for whole."""
        message = f"{_lost(code)} in mid-answer: {message}. The turn {_NOT_AGAIN}"
        if self.sink.is_started:
            self.sink.write(self._last(flat_error(code, message, None, self._next_number)))
            self.sink.abort()
        else:
            own = told(self.id, Route.NONE, Why(code))
            headers = [_JSON, *own, (b"x-wsproxy-outcome", b"started")]
            self.sink.respond(502, headers, own_error(502, code, message))
        self.end()

    def send_over_https(self, why: Why | None) -> None:
        """The request is to go that way instead."""
        self.end(OverHttps(told(self.id, Route.HTTP, why), self.account))

    def end(self, outcome: OverHttps | None = None) -> None:
        """It has its answer, or needs none."""
        if not self.outcome.done():
            self.outcome.set_result(outcome)

    # ── Pieces ───────────────────────────────────────────────────────────────────────────────

    @property
    def _stream(self) -> Stream:
        assert self.stream is not None, "it was never sent"
        return self.stream

    @property
    def _next_number(self) -> int:
        return self.stream.next_number if self.stream is not None else 0

    def _last(self, error: bytes) -> bytes:
        return self._stream.take_pending() + sse("error", error)

    def _told(self) -> list[tuple[bytes, bytes]]:
        return [*self.headers, *told(self.id, self.route, self.why)]


#: What befell a turn whose outcome nobody knows, by the code that is told.
_BEFELL: Final = {
    "upstream_protocol_error": "Upstream sent what cannot be accepted",
    "upstream_lost_context": "Upstream lost the conversation",
    "upstream_timeout": "Upstream fell silent",
}
_NOT_AGAIN: Final = "was not sent again by wsproxy."


def _lost(code: str) -> str:
    return _BEFELL.get(code, "The connection to upstream was lost")


def told(id_: TurnId, route: Route, why: Why | None) -> list[tuple[bytes, bytes]]:
    """The two headers that every answer to a turn carries (contract §2)."""
    text = route.value
    if route not in (Route.DELTA, Route.FORK) and why is not None:
        text = f"{text}; {why}"
    return [(b"x-wsproxy-turn", id_.encode()), (b"x-wsproxy-route", text.encode())]


def told_of_refusal(code: str) -> Headers:
    """The same for a turn that was refused before the core heard of it."""
    return told(new_id(_DICE), Route.NONE, Why(code))


def new_id(dice: random.Random) -> TurnId:
    """A turn's id: unique in traces, and unguessable."""
    return TurnId("t" + dice.randbytes(6).hex())
