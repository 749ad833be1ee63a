"""The nemesis: performs the strikes of a plan, and marks what they touched.

It tells the truth: what it says was refused did not run, and what it leaves unsaid may have.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from tests.simulation.ledger import Ledger
from tests.simulation.plan import Strike
from wsproxy.core.multiplex.recovery import Fault
from wsproxy.simulator.errors import named_error
from wsproxy.simulator.outputs import Event

if TYPE_CHECKING:
    from tests.simulation.link import FakeLink
    from tests.simulation.runs import Run

#: How a connection may end, and what its link then reports.
ENDS: Final[dict[str, Fault]] = {
    "reset": Fault.CONNECTION_RESET,
    "eof": Fault.CONNECTION_ENDED,
    "dead": Fault.PATH_DEAD,
    "1000": Fault.CLOSED_NORMALLY,
    "1001": Fault.CLOSED_NORMALLY,
    "1002": Fault.CLOSED_BLAMING_US,
    "1003": Fault.CLOSED_BLAMING_US,
    "1007": Fault.CLOSED_BLAMING_US,
    "1008": Fault.CLOSED_POLICY,
    "1009": Fault.CLOSED_TOO_BIG,
    "1011": Fault.CLOSED_INTERNAL,
    "1012": Fault.CLOSED_RESTARTING,
    "1013": Fault.CLOSED_RESTARTING,
    "4000": Fault.CLOSED_NORMALLY,
    "too-big": Fault.MESSAGE_TOO_BIG,
    "malformed": Fault.MALFORMED_FRAME,
    "rsv": Fault.UNNEGOTIATED_COMPRESSION,
    "utf8": Fault.INVALID_UTF8,
    "binary": Fault.BINARY_MESSAGE,
}
#: How an upgrade may be answered.
REFUSALS: Final[dict[str, Fault]] = {
    "401": Fault.UPGRADE_UNAUTHORIZED,
    "403": Fault.UPGRADE_UNAUTHORIZED,
    "302": Fault.UPGRADE_UNSUPPORTED,
    "404": Fault.UPGRADE_UNSUPPORTED,
    "405": Fault.UPGRADE_UNSUPPORTED,
    "426": Fault.UPGRADE_UNSUPPORTED,
    "501": Fault.UPGRADE_UNSUPPORTED,
    "429": Fault.UPGRADE_RATE_LIMITED,
    "500": Fault.UPGRADE_FAILED,
    "503": Fault.UPGRADE_FAILED,
}
GARBAGE: Final[dict[str, bytes]] = {
    "json": b'{"type":"response.output_text.delta","delta":',
    "array": b"[1,2,3]",
    "type": b'{"type":"bad type\\n","sequence_number":1}',
    "untyped": b'{"sequence_number":1}',
    "nan": b'{"type":"response.output_text.delta","delta":NaN}',
}
_UNKNOWN: Final[Event] = {"type": "response.sim.unknown", "note": "nobody has heard of it"}
_NOBODYS_LANE: Final = "lane_of_nobody"
_GAP: Final = 3


class Nemesis:
    """Serves the strikes of one plan."""

    def __init__(self, strikes: tuple[Strike, ...], ledger: Ledger) -> None:
        self._ledger = ledger
        self._strikes: defaultdict[str, list[Strike]] = defaultdict(list)
        for strike in strikes:
            self._strikes[strike.where].append(strike)
        self._counts: defaultdict[str, int] = defaultdict(int)
        self._close_when_open: dict[int, Strike] = {}

    def of(self, where: str) -> list[Strike]:
        """Every strike of one kind of place."""
        return self._strikes[where]

    def _due(self, where: str) -> list[Strike]:
        number = self._counts[where]
        self._counts[where] += 1
        found = self._strikes.get(where)
        return [strike for strike in found if strike.at == number] if found else []

    # -- dials ---------------------------------------------------------------------------------

    def strike_on_dial(self) -> Strike | None:
        """What befalls the dial that begins now."""
        return next(iter(self._due("dial")), None)

    def strike_dial(self, strike: Strike, link: FakeLink) -> bool:
        """Whether the dial's outcome is taken care of."""
        self._ledger.hit(link.connection, f"dial {strike.what} {strike.argument}".rstrip())
        match strike.what:
            case "refuse":
                retry_after = 7 if strike.argument == "429" else None
                self._refuse(link, REFUSALS[strike.argument], int(strike.argument), retry_after)
            case "unreachable":
                self._refuse(link, Fault.UNREACHABLE)
            case "tls":
                self._refuse(link, Fault.TLS_FAILED)
            case "hang":
                link.after(15.0, link.refused, Fault.UNREACHABLE)
            case "slow":
                link.after(float(strike.argument), link.opened)
            case "close":
                self._close_when_open[link.connection] = strike
                return False
        return True

    def _refuse(
        self,
        link: FakeLink,
        fault: Fault,
        status: int | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        link.after(0.02, lambda: link.refused(fault, status, retry_after_s=retry_after_s))

    def strike_opened(self, link: FakeLink) -> None:
        """A close frame right behind the 101, before anything of ours has left."""
        strike = self._close_when_open.pop(link.connection, None)
        if strike is not None:
            code = strike.argument
            link.close_from_peer(int(code), ENDS[code])

    # -- frames on their way up ----------------------------------------------------------------

    def strike_on_send(self) -> Strike | None:
        """What befalls the frame that would leave now."""
        return next(iter(self._due("send")), None)

    def strike_send(self, strike: Strike, link: FakeLink, seconds: float) -> float:
        """How long the frame takes to leave; a blocked link lets nothing leave any more."""
        self._ledger.hit(link.connection, f"send {strike.what} {strike.argument}".rstrip())
        match strike.what:
            case "unsent":
                link.block()
                link.after(0.05, link.die, ENDS[strike.argument], "on order, before it had left")
            case "lost":
                link.freeze()
                link.after(0.05, link.die, ENDS[strike.argument], "on order, before it arrived")
            case "slow":
                return float(strike.argument)
        return seconds

    # -- runs ----------------------------------------------------------------------------------

    def strikes_on_run(self, run: Run) -> list[Strike]:
        """What befalls the run that begins now, in order."""
        due = self._due("run")
        if not run.canary:  # a probe: an error on order would be a lie about the upstream itself
            due = [strike for strike in due if not strike.what.startswith("error")]
        return sorted(due, key=lambda s: s.after if s.after >= 0 else 1 << 30)

    def strike_run(self, strike: Strike, run: Run) -> bool:
        """Perform it; whether the run goes on at once."""
        perform: Callable[[Strike, Run], bool] = getattr(self, f"_run_{strike.what}")
        link = run.session.link
        if link.state != "open" or link.is_frozen:
            return True
        return perform(strike, run)

    def _run_error(self, strike: Strike, run: Run) -> bool:
        self._ledger.hit(run.session.id, f"error {strike.argument}")
        run.session.fail(run, named_error(strike.argument))
        return False

    def _run_error_for_all(self, strike: Strike, run: Run) -> bool:
        """An error without a lane: with several turns in flight nobody can say whose it is."""
        self._ledger.hit(run.session.id, f"error for all {strike.argument}")
        error = named_error(strike.argument)
        self._ledger.said_to_all[run.session.id].append(error)
        is_sole = len(run.session.runs) == 1
        was_started = run.has_started
        run.session.fail(run, error, names_lane=False)
        run.is_refused = is_sole and not was_started
        return False

    def _run_limit(self, strike: Strike, run: Run) -> bool:
        """The connection has reached its limit; what had not started never will."""
        self._ledger.hit(run.session.id, "connection limit")
        session = run.session
        session.refuse_all(named_error("websocket_connection_limit_reached"))
        session.link.after(0.2, session.link.close_from_peer, 1000)
        return not run.is_over

    def _run_end(self, strike: Strike, run: Run) -> bool:
        self._ledger.hit(run.session.id, f"end {strike.argument}")
        unstarted = [each for each in run.session.runs if not each.has_started]
        if strike.argument == "1009" and len(unstarted) == 1:
            unstarted[0].is_refused = True  # RFC 6455 §7.4.1: too big to process
        is_orderly = strike.argument not in ("reset", "dead") or run.dice.random() < 0.5
        run.session.link.die(ENDS[strike.argument], "on order", is_orderly=is_orderly)
        return False

    def _run_garbage(self, strike: Strike, run: Run) -> bool:
        self._ledger.hit(run.session.id, f"garbage {strike.argument}")
        run.session.link.deliver(GARBAGE[strike.argument])
        return True

    def _run_wrong_lane(self, strike: Strike, run: Run) -> bool:
        if run.session.has_echoed and run.at:
            self._ledger.hit(run.session.id, "wrong lane")
            run.session.emit(run.events[run.at - 1], _NOBODYS_LANE)
        return True

    def _run_no_lane(self, strike: Strike, run: Run) -> bool:
        if run.session.has_echoed and run.at and run.lane:
            self._ledger.hit(run.session.id, "no lane")
            run.session.emit(run.events[run.at - 1], "")
        return True

    def _run_unknown(self, strike: Strike, run: Run) -> bool:
        self._ledger.hit(run.session.id, "unknown event")
        run.inserted.setdefault(run.at, []).append(_UNKNOWN)
        run.session.emit(_UNKNOWN, run.lane)
        return True

    def _run_gap(self, strike: Strike, run: Run) -> bool:
        self._ledger.hit(run.session.id, "sequence gap")
        run.gap += _GAP
        return True

    def _run_silence(self, strike: Strike, run: Run) -> bool:
        self._ledger.hit(run.session.id, "silence")
        run.is_silent = True
        return False

    def _run_stall(self, strike: Strike, run: Run) -> bool:
        self._ledger.hit(run.session.id, f"stall {strike.argument}")
        run.session.pause(run, float(strike.argument))
        return False

    def _run_freeze(self, strike: Strike, run: Run) -> bool:
        self._ledger.hit(run.session.id, "freeze")
        run.session.link.freeze()
        return False

    def _run_hold(self, strike: Strike, run: Run) -> bool:
        self._ledger.counts["strike hold"] += 1
        run.session.link.hold(float(strike.argument))
        return True

    def _run_late(self, strike: Strike, run: Run) -> bool:
        return True  # only after the terminal event

    def strike_after_terminal(self, strike: Strike, run: Run, event: Event) -> None:
        """An event behind the last one, in the same breath or when the lane's next turn runs."""
        if run.session.link.is_frozen:
            return
        if strike.what == "late" and strike.argument == "with the next":
            run.session.late[run.lane] = event
        elif strike.what == "late":
            self._ledger.hit(run.session.id, "late event")
            run.session.emit(event, run.lane)
        elif strike.what == "end":
            self._run_end(strike, run)

    # -- HTTPS ---------------------------------------------------------------------------------

    def strikes_https(self) -> bool:
        """Whether this call over HTTPS fails."""
        return bool(self._due("https"))
