"""The upstream of the simulation: true transcripts, every documented limit, no sockets.

Rules of this file
------------------
1. What the model is asked and what it says comes from `wsproxy.simulator`, whole and unchanged;
   here are only connections, lanes and time.
2. A turn counts as run from the moment its frame has arrived, unless upstream refuses it in a
   frame: what is silent may have cost money.
3. Whatever the proxy must never do upstream is seen here (`Ledger.violate`).
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

from tests.simulation.arrivals import constant_members, judge_arrival, judge_context
from tests.simulation.ledger import Ledger
from tests.simulation.plan import Strike, Upstream
from tests.simulation.runs import Run
from wsproxy.simulator.errors import ApiError, named_error, unknown_parameter
from wsproxy.simulator.faults import Faults
from wsproxy.simulator.frames import error_frame, frame
from wsproxy.simulator.lanes import DEFAULT_LANE, Lanes
from wsproxy.simulator.log import Log
from wsproxy.simulator.noise import NOISE_AFTER, NOISE_BEFORE, NOISE_WITHIN
from wsproxy.simulator.outputs import Event
from wsproxy.simulator.request import parse_object
from wsproxy.simulator.store import Kept, Store
from wsproxy.simulator.turns import Caller, Turn, Turns

if TYPE_CHECKING:
    from tests.simulation.link import FakeLink
    from tests.simulation.nemesis import Nemesis

_FORGETS_AFTER = 2  # turns of a chain, where upstream forgets
_FOREIGN_ID = "resp_of_somebody_else"
_NOISE_AT_EVENT = 3


class Service:
    """Everything behind all connections."""

    def __init__(self, upstream: Upstream, seed: int, ledger: Ledger) -> None:
        self.upstream = upstream
        self.rules = upstream.rules
        self.seed = seed
        self.ledger = ledger
        self.turns = Turns(self.rules, Faults(), Log(10_000))
        if upstream.keeps_nothing:
            self.turns.store = Store(0)
        self.parents: dict[tuple[str, str], Kept] = {}  # every response that was ever completed
        self.nemesis: Nemesis | None = None
        self._https_caller = Caller("", 0, "http", lambda _: None, None)

    def answer_https(self, fields: dict[str, Any], owner: str) -> None:
        """The model runs for a call over HTTPS. Raises `ApiError`."""
        turn = self.turns.prepare(fields, 0, Caller(owner, 0, "http", lambda _: None, None))
        self.remember(owner, turn, self.turns.commit(turn))

    def remember(self, owner: str, turn: Turn, kept: Kept | None) -> None:
        """For the oracle: what this response stands for, wherever it is still known."""
        if kept is not None:
            self.parents[owner, turn.reply.response_id] = kept


class Session:
    """Upstream's end of one WebSocket."""

    def __init__(self, service: Service, link: FakeLink, id_: int, owner: str) -> None:
        self.service = service
        self.link = link
        self.id = id_
        self.owner = owner
        self.rules = service.rules
        self.ledger = service.ledger
        in_flight = self.rules.max_in_flight if self.rules.lanes == "on" else 1
        self.lanes: Lanes[Run, Kept] = Lanes(in_flight, self.rules.max_lanes)
        self.runs: list[Run] = []  # that are not over
        self.names: set[str] = set()  # of lanes
        self.late: dict[str, Event] = {}  # a terminal event that comes again with the next turn
        self.has_echoed = False
        self.is_closing = False  # it has said so: what arrives now does not run
        self.opened_at = link.loop.time()
        self._number = 0
        self._life = link.loop.call_later(self.rules.connection_life_s, self._expire)

    # -- a frame arrives -----------------------------------------------------------------------

    def receive(self, payload: bytes) -> None:
        """One text message, whole."""
        fields = parse_object(payload)
        number = len(self.ledger.runs)
        dice = Random(self.service.seed * 1009 + number)
        lane = fields.get("stream_id", DEFAULT_LANE)
        run = Run(number, self, lane if self.rules.lanes == "on" else DEFAULT_LANE, fields, dice)
        self.ledger.runs.append(run)
        self.ledger.note("create", run, fields.get("previous_response_id") or "in full")
        judge_arrival(self.ledger, run, payload)
        if self.service.nemesis is not None:
            run.strikes.extend(self.service.nemesis.strikes_on_run(run))
        if self.is_closing:
            run.is_refused = True
            return
        if "stream_id" in fields and self.rules.lanes == "refused":
            self.refuse(run, unknown_parameter("stream_id"))
            return
        try:
            self.lanes.name(run.lane)
        except ApiError as error:
            self.ledger.violate("I9", f"{run}: {error.message}")
            self.refuse(run, error)
            return
        self.runs.append(run)
        started = self.lanes.push(run.lane, run)
        if not started:
            self.ledger.violate("queued upstream", f"{run} waits behind {self.runs[:-1]}")
        for _, ready in started:
            self._start(ready)

    def _start(self, run: Run) -> None:
        first_s = run.dice.choice((0.0, 0.01, 0.05, 0.2, 0.2, 1.0))
        run.timer = self.link.loop.call_later(first_s, self._begin, run)

    def _begin(self, run: Run) -> None:
        if (late := self.late.pop(run.lane, None)) is not None:
            self.ledger.hit(self.id, "late event, with the next turn")
            self.emit(late, run.lane)
        strike = run.strikes[0] if run.strikes else None
        if strike is not None and strike.what == "error" and strike.after == 0:
            run.strikes.popleft()
            self.ledger.hit(self.id, f"error {strike.argument}")
            self.fail(run, named_error(strike.argument))
            return
        try:
            self._prepare(run)
        except ApiError as error:
            self.fail(run, error)
            return
        self._go_on(run)

    def _prepare(self, run: Run) -> None:
        caller = Caller(self.owner, self.id, "ws", self.lanes.find, None, run.lane)
        for name in ("stream", "background"):
            if name in run.fields:
                raise unknown_parameter(name)
        turn = self.service.turns.prepare(run.fields, 0, caller)
        turn.on_commit = lambda kept: self._committed(run, kept)
        run.turn = turn
        if self._was_forgotten(run, turn):
            if self.service.upstream.forgets == "foreign":
                self.ledger.hit(self.id, "context lost")
                turn.shown["previous_response_id"] = _FOREIGN_ID
                turn.done["previous_response_id"] = _FOREIGN_ID
        elif run.canary:
            judge_context(self.ledger, run, turn)
        run.events = list(turn.events())
        fail = turn.reply.script.fail
        if fail.startswith("after_created:"):
            run.error = named_error(fail.removeprefix("after_created:"))
        count = run.dice.choice((0, 0, 1, 1, 2))
        run.pauses = sorted(run.dice.randrange(1, len(run.events)) for _ in range(count))

    def _was_forgotten(self, run: Run, turn: Turn) -> bool:
        return turn.request.previous_response_id is not None and turn.depth == 0

    def _committed(self, run: Run, kept: Kept | None) -> None:
        assert run.turn is not None
        if kept is None:
            self.lanes.forget(run.lane)
            return
        self.lanes.remember(run.lane, run.turn.reply.response_id, kept)
        self.service.remember(self.owner, run.turn, kept)
        id_ = run.turn.reply.response_id
        self.ledger.made_with[self.owner, id_] = constant_members(run.fields)

    # -- telling -------------------------------------------------------------------------------

    def _go_on(self, run: Run) -> None:
        """Tell events until a pause, a strike that ends or delays the turn, or the end."""
        run.timer = None
        while not run.is_over and run.at < len(run.events):
            strike = self._due(run)
            if strike is not None:
                if not self._perform(strike, run):
                    return
                continue
            if run.error is not None and run.at == 1:
                self.fail(run, run.error)
                return
            if run.pauses and run.at == run.pauses[0]:
                run.pauses.pop(0)
                self.pause(run, run.dice.choice((0.01, 0.1, 0.5)))
                return
            self._tell(run)

    def _due(self, run: Run) -> Strike | None:
        if not run.strikes or run.strikes[0].after < 0:
            return None
        due = min(run.strikes[0].after, len(run.events) - 1)
        return run.strikes.popleft() if run.at >= due else None

    def _perform(self, strike: Strike, run: Run) -> bool:
        """Whether the turn goes on at once."""
        nemesis = self.service.nemesis
        assert nemesis is not None
        return nemesis.strike_run(strike, run)

    def pause(self, run: Run, seconds: float) -> None:
        """The model says nothing for a while."""
        run.timer = self.link.loop.call_later(seconds, self._go_on, run)

    def _tell(self, run: Run) -> None:
        event = run.events[run.at]
        if self.rules.noise:
            self._noise(NOISE_BEFORE if run.at == 0 else NOISE_WITHIN, run.at)
        is_last = run.at == len(run.events) - 1
        event["sequence_number"] = self._numbered(run) + run.gap
        run.at += 1
        if is_last:
            assert run.turn is not None
            self.service.turns.commit(run.turn)
            self._over(run)
        self.emit(event, run.lane)
        if is_last:
            if self.rules.noise:
                self._noise(NOISE_AFTER, 0)
            self._after_terminal(run, event)
            self._next(run)

    def _after_terminal(self, run: Run, event: Event) -> None:
        while run.strikes and self.service.nemesis is not None:
            self.service.nemesis.strike_after_terminal(run.strikes.popleft(), run, event)

    def _numbered(self, run: Run) -> int:
        if not self.rules.sequence_per_connection:
            return run.at
        self._number += 1
        return self._number - 1

    def _noise(self, events: tuple[Event, ...], at: int) -> None:
        if at in (0, _NOISE_AT_EVENT):
            for event in events:
                self.emit(event, DEFAULT_LANE)

    def emit(self, event: Event, lane: str) -> None:
        """One event leaves."""
        self.has_echoed = self.has_echoed or bool(lane)
        self.link.deliver(frame(event, lane, self.rules))

    # -- refusing ------------------------------------------------------------------------------

    def refuse(self, run: Run, error: ApiError, *, names_lane: bool = True) -> None:
        """Say the error on the run's lane; if nothing was told yet, the model never ran."""
        run.is_refused = not run.has_started
        self.ledger.said[run.canary].append(error)
        self.ledger.note("refuse", run, error.status, error.code or error.message)
        lane = run.lane if names_lane else DEFAULT_LANE
        self.link.deliver(error_frame(error, lane, self.rules))

    def fail(self, run: Run, error: ApiError, *, names_lane: bool = True) -> None:
        """The run ends with an error; a parent that it named is evicted."""
        self.lanes.evict(run.lane, run.fields.get("previous_response_id"))
        self._over(run)
        self.refuse(run, error, names_lane=names_lane)
        self._next(run)

    def _over(self, run: Run) -> None:
        run.stop()
        if run in self.runs:
            self.runs.remove(run)

    def _next(self, run: Run) -> None:
        for _, ready in self.lanes.finish(run.lane):
            self._start(ready)

    def refuse_all(self, error: ApiError) -> None:
        """A refusal of the connection: what had not started never will."""
        self.is_closing = True
        self.ledger.said_to_all[self.id].append(error)
        self.link.deliver(error_frame(error, DEFAULT_LANE, self.rules))
        for run in self.runs:
            if not run.has_started:
                run.is_refused = True
                self.ledger.said[run.canary].append(error)
                run.stop()

    # -- ending --------------------------------------------------------------------------------

    def _expire(self) -> None:
        self.ledger.note("connection", self.id, "has reached its last minute")
        if self.runs and not self.ledger.hits[self.id]:
            self.ledger.violate("age", f"connection {self.id} expired under {self.runs}")
        self.refuse_all(named_error("websocket_connection_limit_reached"))
        self.link.close_from_peer(1000)

    def gone(self) -> None:
        """The connection is over: what ran on it is cancelled."""
        self._life.cancel()
        for run in self.runs:
            run.stop()
        self.runs.clear()
