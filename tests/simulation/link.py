"""A WebSocket without a socket: `ports.Dialer` and `ports.Link` over virtual time.

As the real one promises: `link_sent` comes before any message that came after it and before
`link_lost`; after `abort` nothing comes; what has not wholly left is in `unsent`. A frame that is
on its way out when the link is dropped leaves now and then all the same, and is in no proof.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

from tests.simulation.arrivals import judge_pool
from tests.simulation.ledger import Ledger
from tests.simulation.service import Service, Session
from wsproxy.core.ids import ConnectionId
from wsproxy.core.multiplex.recovery import Fault
from wsproxy.core.wire.websocket import Message, Pong
from wsproxy.ports import LinkEvents, Target

if TYPE_CHECKING:
    from tests.simulation.nemesis import Nemesis

#: As `upstream/dialer.py` and `upstream/transport.py` have them.
DIAL_TIMEOUT_S = 15.0
CLOSE_TIMEOUT_S = 2.0
_DEAD_AFTER_S = (20.0, 30.0)  # TCP_USER_TIMEOUT, and one ping interval on top


class FakeDialer:
    """A `ports.Dialer`."""

    def __init__(self, service: Service, nemesis: Nemesis | None, ledger: Ledger) -> None:
        self.service = service
        self.nemesis = nemesis
        self.ledger = ledger
        self.links: list[FakeLink] = []

    def dial(self, connection: ConnectionId, target: Target, events: LinkEvents) -> FakeLink:
        """See `ports.Dialer`."""
        link = FakeLink(self, connection, target, events)
        self.links.append(link)
        alive = [each for each in self.links if each.state in ("dialling", "open")]
        judge_pool(self.ledger, sum(each.owner == link.owner for each in alive), len(alive))
        return link


class FakeLink:
    """A `ports.Link` and the wire behind it."""

    def __init__(
        self, dialer: FakeDialer, connection: ConnectionId, target: Target, events: LinkEvents
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.connection = connection
        self.ledger = dialer.ledger
        self.state = "dialling"  # open | closing | over
        self.session: Session | None = None
        self._service = dialer.service
        self._nemesis = dialer.nemesis
        self._events = events
        self._dice = Random(dialer.service.seed * 1013 + connection)
        self.owner = _authorization(target)
        self._outbox: list[tuple[bytes, int]] = []  # what has not wholly left, in order
        self._outbox_timer: asyncio.TimerHandle | None = None
        self._is_blocked = False
        self._inbox: list[Message] = []
        self._inbox_timer: asyncio.TimerHandle | None = None
        self._held_until = 0.0
        self.is_frozen = False
        self._timers: list[asyncio.TimerHandle] = []
        self.ledger.note("dial", connection)
        strike = self._nemesis.strike_on_dial() if self._nemesis is not None else None
        if strike is None or not self._nemesis_dials(strike):
            self.after(self._dice.choice((0.0, 0.01, 0.05, 0.3)), self.opened)

    def __repr__(self) -> str:
        return f"<FakeLink {self.connection} {self.state}>"

    def _nemesis_dials(self, strike: object) -> bool:
        assert self._nemesis is not None
        return self._nemesis.strike_dial(strike, self)  # type: ignore[arg-type]

    # -- ports.Link ----------------------------------------------------------------------------

    def send(self, payload: bytes, ticket: int) -> None:
        """See `ports.Link`."""
        if self.state == "over":
            return
        if ticket:
            self.ledger.given(self.connection, payload)
            self._judge_age()
        self._outbox.append((payload, ticket))
        self._pump()

    def ping(self, payload: bytes) -> None:
        """See `ports.Link`."""
        if self.state != "open":
            return
        if self.is_frozen:
            self._doom()
        elif self._service.rules.answer_pings:
            self.after(self._dice.choice((0.0, 0.02, 0.2)), self.deliver, Pong(payload))

    def close(self, code: int, reason: str = "") -> None:
        """See `ports.Link`."""
        if self.state == "dialling":
            self.die(Fault.CLOSED_NORMALLY, "closed by us while dialling")
        elif self.state == "open":
            self.state = "closing"
            self.ledger.note("close", self.connection, code)
            wait = CLOSE_TIMEOUT_S if self.is_frozen else self._dice.choice((0.0, 0.05))
            self.after(wait, self.die, Fault.CLOSED_NORMALLY, "closed by us")

    def abort(self) -> Sequence[int]:
        """See `ports.Link`. What is on its way out may leave all the same."""
        is_begun = self._outbox_timer is not None or self._is_blocked
        begun, unsent = self._outbox[:is_begun], self._outbox[is_begun:]
        for payload, _ in begun:
            may_leave = self.session is not None and not (self._is_blocked or self.is_frozen)
            if may_leave and self._dice.random() < 0.5:
                self.session.receive(payload)
        self.ledger.note("abort", self.connection)
        self._over()
        return [ticket for _, ticket in unsent]

    def _judge_age(self) -> None:
        age_s = self.loop.time() - self.session.opened_at if self.session is not None else 0.0
        if age_s > self.ledger.knobs.max_age_s:
            self.ledger.violate("age", f"connection {self.connection} used after {age_s:.1f} s")

    # -- the way up ----------------------------------------------------------------------------

    def opened(self) -> None:
        """The upgrade is accepted."""
        if self.state != "dialling":
            return
        self.state = "open"
        self.session = Session(self._service, self, self.connection, self.owner)
        self.ledger.note("open", self.connection)
        self._events.link_opened(self.connection, (), False)
        if self._nemesis is not None:
            self._nemesis.strike_opened(self)
        self._pump()

    def refused(
        self, fault: Fault, status: int | None = None, *, retry_after_s: int | None = None
    ) -> None:
        """The dial fails."""
        if self.state != "dialling":
            return
        self._over()
        self.ledger.note("refused", self.connection, fault.name, status)
        headers = [] if retry_after_s is None else [(b"retry-after", b"%d" % retry_after_s)]
        detail = f"refused on order: {fault.what}"
        self._events.link_refused(self.connection, fault, status, headers, b"", detail)

    def _pump(self) -> None:
        """Let the next frame leave: one at a time, each taking its time."""
        if self.state != "open" or self._is_blocked or not self._outbox or self._outbox_timer:
            return
        _, ticket = self._outbox[0]
        seconds = self._dice.choice((0.0, 0.0, 0.002, 0.02))
        if ticket and self._nemesis is not None:
            strike = self._nemesis.strike_on_send()
            if strike is not None and strike.what == "unsent":
                self._nemesis.strike_send(strike, self, seconds)
                return
            if strike is not None:
                seconds = self._nemesis.strike_send(strike, self, seconds)
        self._outbox_timer = self.loop.call_later(seconds, self._left)

    def block(self) -> None:
        """The frame being sent never wholly leaves."""
        self._is_blocked = True

    def _left(self) -> None:
        self._outbox_timer = None
        payload, ticket = self._outbox.pop(0)
        self._events.link_sent(self.connection, ticket)
        if self.is_frozen:
            self._doom()
        elif self.session is not None and self.state == "open":
            self.session.receive(payload)
        self._pump()

    # -- the way down --------------------------------------------------------------------------

    def deliver(self, message: Message) -> None:
        """A message is on its way; what arrives together is told in one read."""
        if self.state == "over" or self.is_frozen:
            return
        self._inbox.append(message)
        if self._inbox_timer is None:
            seconds = self._dice.choice((0.0, 0.0, 0.001, 0.03))
            at = max(self.loop.time() + seconds, self._held_until)
            self._inbox_timer = self.loop.call_at(at, self._read)

    def hold(self, seconds: float) -> None:
        """Nothing arrives for a while; what was on its way comes late, all at once."""
        self._held_until = self.loop.time() + seconds
        if self._inbox_timer is not None:
            self._inbox_timer.cancel()
            self._inbox_timer = self.loop.call_later(seconds, self._read)

    def _read(self) -> None:
        if self._inbox_timer is not None:
            self._inbox_timer.cancel()
            self._inbox_timer = None
        messages, self._inbox = self._inbox, []
        if messages and self.state != "over":
            self._events.link_received(self.connection, messages)

    # -- ends ----------------------------------------------------------------------------------

    def close_from_peer(self, code: int, fault: Fault = Fault.CLOSED_NORMALLY) -> None:
        """Upstream says close: everything before it arrives first."""
        self.die(fault, f"close {code}", is_orderly=True)

    def die(self, fault: Fault, detail: str, *, is_orderly: bool = False) -> None:
        """The connection is over; `is_orderly`: what was on its way down arrives before."""
        if is_orderly:
            self._read()
        if self.state == "over":
            return
        unsent = [ticket for _, ticket in self._outbox]
        was_closing = self.state == "closing"
        self._over()
        self.ledger.note("lost", self.connection, fault.name, f"unsent={unsent}")
        fault = Fault.CLOSED_NORMALLY if was_closing else fault
        self._events.link_lost(self.connection, fault, detail, unsent)

    def freeze(self) -> None:
        """The path is cut: nothing comes and nothing goes, and only TCP will tell."""
        self.is_frozen = True
        self._inbox.clear()
        if self._outbox or (self.session is not None and self.session.runs):
            self._doom()

    def _doom(self) -> None:
        """Bytes of ours stay unacknowledged (a ping at the latest), so TCP gives up."""
        self.after(self._dice.uniform(*_DEAD_AFTER_S), self.die, Fault.PATH_DEAD, "no ack")

    def after(self, seconds: float, call: object, *args: object) -> None:
        """A timer that dies with the link."""
        self._timers.append(self.loop.call_later(seconds, call, *args))  # type: ignore[arg-type]

    def _over(self) -> None:
        self.state = "over"
        self._inbox.clear()
        for timer in (*self._timers, self._outbox_timer, self._inbox_timer):
            if timer is not None:
                timer.cancel()
        self._timers.clear()
        self._outbox_timer = self._inbox_timer = None
        if self.session is not None:
            self.session.gone()


def _authorization(target: Target) -> str:
    found = [value for name, value in target.headers if name.lower() == b"authorization"]
    return found[0].decode() if found else ""
