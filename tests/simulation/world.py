"""One world: real core, real driver, everything else of `tests/simulation`, in virtual time."""

from __future__ import annotations

import asyncio
import json
import traceback
from random import Random
from typing import Any, Final

from tests.canary import WATCH
from tests.simulation.agents import Agent
from tests.simulation.client import Sink, leaver
from tests.simulation.clock import VirtualLoop, new_loop
from tests.simulation.invariants import judge_call, judge_runs, patience_s
from tests.simulation.leavings import Leavings
from tests.simulation.ledger import Call, Ledger
from tests.simulation.link import FakeDialer
from tests.simulation.nemesis import Nemesis
from tests.simulation.oracle import Oracle
from tests.simulation.plan import AgentPlan, Knobs, Plan, Strike
from tests.simulation.service import Service
from wsproxy.config.settings import Settings
from wsproxy.core.commands import Note
from wsproxy.core.conversation.fields import FieldReader
from wsproxy.core.conversation.history import History
from wsproxy.core.conversation.identity import HeaderClasses, Identities, Patterns
from wsproxy.core.multiplex.beliefs import Chains
from wsproxy.core.multiplex.connection import ConnectionLimits, Lanes
from wsproxy.core.multiplex.pool import PoolLimits
from wsproxy.core.multiplex.readers import ReaderLimits
from wsproxy.core.multiplex.recovery import Fault
from wsproxy.core.multiplexer import Multiplexer, Options
from wsproxy.driver import Driver, DriverOptions
from wsproxy.reading import Inbound
from wsproxy.simulator.errors import ApiError

#: No plan takes longer than this unless somebody waits for ever.
_MAX_S: Final = 40_000.0
_FAREWELL_S: Final = 5.0
#: Journals of one world in four are told again, pages and objects of one in eight looked at: that
#: takes as long as the world itself. Odd seeds alone have a nemesis, so pairs of them are counted.
_REPLAYED_EVERY: Final = 4
_LOOKED_AT_EVERY: Final = 8
#: Others are running by then, as a rule.
_LOOKED_AT_CALL: Final = 3
_MASS_RESET: Final = (Fault.CONNECTION_RESET, "everything was reset")
_SETTINGS: Final = Settings()
_CLASSES: Final = HeaderClasses(
    identity=Patterns(_SETTINGS.identity_headers),
    session=_SETTINGS.session_headers,
    per_request=Patterns(_SETTINGS.per_request_headers),
    hop_by_hop=Patterns(_SETTINGS.hop_by_hop_headers),
)


class World:
    """Everything that exists; `run` is its whole life."""

    def __init__(self, plan: Plan, loop: VirtualLoop, ledger: Ledger) -> None:
        self.plan = plan
        self.ledger = ledger
        self._loop = loop
        self._service = Service(plan.upstream, plan.seed, ledger)
        self._nemesis = Nemesis(plan.strikes, ledger)
        self._service.nemesis = self._nemesis
        self._dialer = FakeDialer(self._service, self._nemesis, ledger)
        self._oracle = Oracle(plan.upstream.rules, self._service.turns.store)
        self._slept_s = 0.0
        self._leavings = Leavings(loop.time)
        remembered = {"max_conversations": plan.knobs.conversations}
        self.core = Multiplexer(_core_options(plan), History(**remembered))
        self.driver = Driver(
            _driver_options(plan.knobs),
            self.core,
            Identities(_CLASSES, b"a secret of this world"),
            FieldReader(_SETTINGS.changeable_fields),
            self._dialer,
            note=self._note,
            tracers=self._leavings.tracers,
            doors=self._leavings.doors(self.core, remembered),
            dice=Random(plan.seed),
            clock_gap=lambda: self._slept_s,
        )
        self._leavings.watch(self.driver)
        self.agents = [Agent(agent, self) for agent in plan.agents]

    def _is_one_in(self, count: int) -> bool:
        return self.plan.seed // 2 % count == 0

    def _note(self, note: Note) -> None:
        self.ledger.note("note", note)
        self._leavings.note(note)

    # -- one call ------------------------------------------------------------------------------

    async def call(
        self,
        agent: AgentPlan,
        owner: str,
        headers: list[tuple[bytes, bytes]],
        body: dict[str, Any],
        *,
        leave_after_s: float | None = None,
        leave_after_writes: int | None = None,
    ) -> Call:
        """Send one request and judge its answer."""
        sink = Sink(self._loop.time, agent.takes_bytes_per_s)
        call = self._registered(agent, owner, body, sink)
        raw = json.dumps(body, ensure_ascii=False).encode()
        task = self._loop.create_task(self._answered(call, Inbound(headers, "", raw)))
        sink.on_drop = task.cancel
        if leave_after_s is not None:
            leaving = self._loop.call_later(leave_after_s, task.cancel)
            task.add_done_callback(lambda _: leaving.cancel())
        if leave_after_writes is not None:
            sink.on_write = leaver(task, leave_after_writes)
        try:
            await task
        except asyncio.CancelledError:
            call.left_at = self._loop.time()
        call.ended_at = self._loop.time()
        self.ledger.running -= 1
        self.ledger.note("end", call)
        judge_call(self.ledger, call)
        return call

    def _registered(self, agent: AgentPlan, owner: str, body: dict[str, Any], sink: Sink) -> Call:
        expectations = [self._oracle.expected(body, owner)]
        if expectations[0].turn is None and body.get("previous_response_id") is not None:
            kept = self._service.parents
            expectations.append(
                self._oracle.expected(body, owner, lambda id_: kept.get((owner, id_)))
            )
        ledger = self.ledger
        canary = body["metadata"]["canary"]
        number = len(ledger.calls)
        now = self._loop.time()
        call = Call(number, agent.number, owner, canary, body, expectations, sink, now)
        ledger.calls.append(call)
        ledger.of_canary[canary].append(call)
        ledger.running += 1
        if len(self.core.turns) > self.plan.knobs.max_turns:
            ledger.violate("I9", f"{len(self.core.turns)} turns in all")
        ledger.note("call", canary, f"{len(body['input'])} items", f"key {agent.key}")
        if number == _LOOKED_AT_CALL and self._is_one_in(_LOOKED_AT_EVERY):
            self._leavings.look()
        return call

    async def _answered(self, call: Call, inbound: Inbound) -> None:
        call.over_https = await self.driver.run(inbound, call.sink)
        if call.over_https is not None:
            self.ledger.counts["over HTTPS"] += 1
            await self._relayed(call)

    async def _relayed(self, call: Call) -> None:
        """The same request over HTTPS, as `downstream/turns.py` would relay it."""
        await asyncio.sleep(0.05)
        if self._nemesis.strikes_https():
            self.ledger.counts["strike https"] += 1
            return
        try:
            self._service.answer_https(call.body, call.owner)
        except ApiError as error:
            self.ledger.said[call.canary].append(error)
            return
        self.ledger.https_runs[call.canary] += 1
        call.was_answered_over_https = True

    # -- from beginning to end -----------------------------------------------------------------

    async def run(self) -> None:
        """Everybody lives, then everything must come to rest and be gone."""
        self._loop.set_exception_handler(self._raised)
        for strike in self._nemesis.of("time"):
            self._loop.call_later(strike.at, self._strike, strike)
        lives = [self._loop.create_task(agent.live()) for agent in self.agents]
        _, late = await asyncio.wait(lives, timeout=_MAX_S)
        for life in lives:
            if life in late:
                self.ledger.violate("I10", f"agents still wait: {self.core!r}")
                life.cancel()
            elif (error := life.exception()) is not None:
                self.ledger.violate("crash", "".join(traceback.format_exception(error)))
        await asyncio.sleep(patience_s(self.plan.knobs))
        self._judge_rest()
        self.driver.close()
        await asyncio.sleep(_FAREWELL_S)
        self._judge_left()
        judge_runs(self.ledger)
        if self._is_one_in(_REPLAYED_EVERY):
            self._judge_journal()

    def _raised(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        lines = traceback.format_exception(error) if error is not None else [context["message"]]
        self.ledger.violate("crash", "".join(lines))

    def _strike(self, strike: Strike) -> None:
        match strike.what:
            case "sleep":
                self._slept_s += 100.0
                for link in self._open_links():
                    self.ledger.hit(link.connection, f"slept {strike.argument}")
                    if strike.argument == "dead":
                        link.freeze()
            case "drain":
                ledger, now = self.ledger, self._loop.time()
                ledger.counts["strike drain"] += 1
                ledger.drain_at = now if ledger.drain_at is None else ledger.drain_at
                # Of two the sooner one counts: turns that it cut do not come back.
                ledger.drain_deadline = min(ledger.drain_deadline, now + float(strike.argument))
                self.driver.drain(float(strike.argument))
            case "reset":
                for link in self._open_links():
                    self.ledger.hit(link.connection, "mass reset")
                    link.die(*_MASS_RESET)

    def _open_links(self) -> list[Any]:
        return [link for link in self._dialer.links if link.state == "open"]

    # -- afterwards ----------------------------------------------------------------------------

    def _judge_rest(self) -> None:
        """I10: nobody waits, nothing is taken, nothing runs for nobody."""
        core, driver, ledger = self.core, self.driver, self.ledger
        if len(core.history) > self.plan.knobs.conversations:
            ledger.violate("I9", f"{core.history!r}")
        if driver.running_count or core.turns or core.waiting:
            ledger.violate("I10", f"turns left behind: {core!r}")
        sessions = {link.connection: link.session for link in self._dialer.links}
        for connection in core.pool.connections:
            session = sessions[connection.id]
            running = session.runs if session is not None else []
            if connection.in_flight > len(running):
                ledger.violate("I10", f"{connection!r} holds lanes, upstream runs {running}")
            if self.plan.knobs.idle_s < 60 and not running and not connection.is_chain_probe:
                ledger.violate("I10", f"{connection!r} was idle and is still there")
        if core.relays.keys() != {connection.id for connection in core.pool.connections}:
            ledger.violate("I10", f"relays {sorted(core.relays)} of {core.pool!r}")
        if any(driver._tickets.values()):
            ledger.violate("I10", f"tickets left behind: {driver._tickets}")

    def _judge_journal(self) -> None:
        """The core, told the same again, decides the same."""
        outcome = self._leavings.replayed()
        if outcome.difference or outcome.missing:
            self.ledger.violate("replay", f"{outcome}")

    def _judge_left(self) -> None:
        """I10: after the end there is no link, no task, no timer of a link."""
        for link in self._dialer.links:
            if link.state != "over":
                self.ledger.violate("I10", f"{link!r} after the end")
        driver = self.driver
        if driver._links or driver._tickets or driver._probes or driver._announced:
            self.ledger.violate("I10", f"{driver._links} {driver._tickets} {driver._announced}")
        tasks = asyncio.all_tasks(self._loop) - {asyncio.current_task(self._loop)}
        if tasks:
            self.ledger.violate("I10", f"tasks left behind: {tasks}")


def _driver_options(knobs: Knobs) -> DriverOptions:
    return DriverOptions(
        "wss://upstream.test/v1/responses",
        age_jitter_s=knobs.age_jitter_s,
        readers=ReaderLimits(
            per_turn_bytes=knobs.max_behind_bytes,
            stall_s=knobs.reader_stall_s,
            total_bytes=knobs.max_buffered_bytes,
        ),
    )


def _core_options(plan: Plan) -> Options:
    knobs = plan.knobs
    is_known = plan.upstream.is_known
    return Options(
        lanes=Lanes.ON if is_known else Lanes.UNKNOWN,
        chains=Chains.PROVEN if is_known else Chains.UNPROVEN,
        chains_by_id=knobs.chains_by_id,
        connection=_connection_limits(knobs, plan.upstream.rules.connection_life_s),
        pool=PoolLimits(
            max_per_key_with_lanes=knobs.max_per_key_with_lanes,
            max_per_key_without_lanes=knobs.max_per_key_without_lanes,
            max_total=knobs.max_connections,
            idle_s=knobs.idle_s,
            spare_idle_s=knobs.spare_idle_s,
        ),
        max_turns=knobs.max_turns,
        max_frame_bytes=knobs.max_frame_bytes,
        queue_wait_s=knobs.queue_wait_s,
        handshake_wait_s=knobs.handshake_wait_s,
        discovery_wait_s=knobs.discovery_wait_s,
        first_event_timeout_s=knobs.first_event_timeout_s,
        event_idle_timeout_s=knobs.event_idle_timeout_s,
    )


def _connection_limits(knobs: Knobs, life_s: float) -> ConnectionLimits:
    return ConnectionLimits(
        max_in_flight=knobs.max_in_flight,
        max_lanes=knobs.max_lanes,
        max_age_s=knobs.max_age_s,
        last_turn_end_s=knobs.max_age_s + 0.9 * (life_s - knobs.max_age_s),
        max_life_s=life_s,
        probe_after_s=knobs.probe_after_s,
    )


def simulate(plan: Plan, *, is_journal_kept: bool = False) -> Ledger:
    """Run one world to its end; its ledger says whether anything was violated."""
    loop = new_loop()
    ledger = Ledger(plan, loop.time, is_journal_kept=is_journal_kept)
    told = len(WATCH.leaks)
    try:
        loop.run_until_complete(_lived(plan, loop, ledger))
    except Exception as error:
        ledger.violate("crash", "".join(traceback.format_exception(error)))
    finally:
        loop.close()
    for leak in WATCH.leaks[told:]:
        ledger.violate("C-01", leak)
    del WATCH.leaks[told:]  # a later world may leak the same again
    return ledger


async def _lived(plan: Plan, loop: VirtualLoop, ledger: Ledger) -> None:
    await World(plan, loop, ledger).run()
