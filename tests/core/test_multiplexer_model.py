"""History, lanes, pool and multiplexer together, against a model that keeps what upstream holds.

Whatever order things happen in: a turn has one end, runs once at most, and continues only what
upstream still has; every table keeps its limits; and when upstream falls silent, all turns end.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from tests.core.stage import KEY, OTHER_KEY, Item, arrived, assistant, core, user
from wsproxy.core.api.events import Received
from wsproxy.core.commands import (
    AbortConnection,
    Answer,
    BreakTurn,
    CloseConnection,
    Command,
    Finish,
    Note,
    OpenConnection,
    RefuseTurn,
    RelayError,
    SendChainProbe,
    SendOverHttps,
    SendPing,
    SendTurn,
)
from wsproxy.core.events import (
    ClientLeft,
    ConnectionAborted,
    ConnectionLost,
    ConnectionOpened,
    DialFailed,
    DrainBegun,
    Event,
    FrameSent,
    LoadChanged,
    PongReceived,
    ProbeAnswered,
    Slept,
    Tick,
)
from wsproxy.core.ids import ConnectionId, PoolKey, TurnId
from wsproxy.core.multiplex.alarms import Kind
from wsproxy.core.multiplex.beliefs import Chains
from wsproxy.core.multiplex.connection import ConnectionLimits, Lanes, State
from wsproxy.core.multiplex.pool import PoolLimits
from wsproxy.core.multiplex.recovery import Fault

IN_FLIGHT, NAMES, PER_KEY, TOTAL, TURNS = 3, 4, 2, 3, 10
#: Longer than any deadline below, all of them in a row.
FOREVER_S = 400.0
LOSSES = (
    Fault.CONNECTION_RESET,
    Fault.CONNECTION_ENDED,
    Fault.PATH_DEAD,
    Fault.CLOSED_NORMALLY,
    Fault.CLOSED_POLICY,
    Fault.CLOSED_TOO_BIG,
    Fault.CLOSED_RESTARTING,
    Fault.MALFORMED_FRAME,
)
DIAL_FAULTS = (
    Fault.UNREACHABLE,
    Fault.TLS_FAILED,
    Fault.UPGRADE_UNAUTHORIZED,
    Fault.UPGRADE_UNSUPPORTED,
    Fault.UPGRADE_RATE_LIMITED,
    Fault.UPGRADE_FAILED,
    Fault.OUT_OF_DESCRIPTORS,
)
ERRORS = (
    (400, "previous_response_not_found"),
    (400, "websocket_connection_limit_reached"),
    (400, "websocket_stream_limit_reached"),
    (400, "invalid_stream_id"),
    (422, "other"),
    (429, "rate_limit_exceeded"),
    (503, "server_is_overloaded"),
)


@dataclass
class Sent:
    """A frame upstream has, or will have."""

    turn: TurnId
    lane: str
    context: list[Item]
    parent: str | None
    has_left: bool = False
    events: int = 0

    @property
    def has_begun(self) -> bool:
        return self.events > 0


@dataclass
class Link:
    """One WebSocket as upstream sees it."""

    key: PoolKey
    is_open: bool = False
    is_probe: bool = False
    frames: list[Sent] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    latest: dict[str, str] = field(default_factory=dict)  # lane → response id


@dataclass
class Asked:
    """A turn as its client sees it."""

    key: PoolKey
    items: list[Item]
    is_stored: bool
    may_have_run: bool = False
    end: str = ""


class Story(RuleBasedStateMachine):
    """Rules are what the world does; the core answers with commands, which the model performs."""

    @initialize(
        habit=st.sampled_from(["on", "off", "refuses"]),
        is_known=st.booleans(),
        chains=st.sampled_from([Chains.PROVEN, Chains.UNPROVEN]),
        looks_up_ids=st.booleans(),
    )
    def begin(self, habit: str, is_known: bool, chains: Chains, looks_up_ids: bool) -> None:
        self.looks_up_ids = looks_up_ids
        self.has_lanes = habit == "on"
        self.refuses_lanes = habit == "refuses"
        self.core = core(
            lanes=Lanes.ON if is_known and self.has_lanes else Lanes.UNKNOWN,
            chains=chains,
            connection=ConnectionLimits(max_in_flight=IN_FLIGHT, max_lanes=NAMES, max_age_s=300),
            pool=PoolLimits(
                PER_KEY, PER_KEY, TOTAL, idle_s=60, spare_idle_s=30, max_warm_idle=1, key_idle_s=40
            ),
            max_turns=TURNS,
            first_event_timeout_s=40.0,
            event_idle_timeout_s=60.0,
            ping_busy_s=10.0,
            ping_idle_s=20.0,
        )
        self.now = 1000.0
        self.turns: dict[TurnId, Asked] = {}
        self.links: dict[ConnectionId, Link] = {}
        self.contexts: dict[str, list[Item]] = {}
        self.done: list[tuple[PoolKey, list[Item], bool]] = []
        self.keys: dict[ConnectionId, PoolKey] = {}
        self.is_draining = False
        self.numbered = 0

    # ── Performing ───────────────────────────────────────────────────────────────────────────

    def tell(self, event: Event) -> None:
        commands = self.core.handle(event, self.now)
        links = dict(self.links)
        for command in commands:
            self.perform(command)
        for command in commands:
            if isinstance(command, AbortConnection):
                self.aborted(command.connection, links[command.connection])

    def aborted(self, id_: ConnectionId, link: Link) -> None:
        """A frame that was on its way out has left all the same; those behind it have not."""
        begun, *unsent = [frame.turn for frame in link.frames if not frame.has_left] or [None]
        if begun is not None:
            self.turns[begun].may_have_run = True
        self.tell(ConnectionAborted(id_, unsent))

    def perform(self, command: Command) -> None:
        match command:
            case OpenConnection(id_, key):
                assert id_ not in self.keys, "an id is used once"
                self.links[id_], self.keys[id_] = Link(key), key
            case CloseConnection(id_) | AbortConnection(id_):
                self.dropped(self.links.pop(id_))
            case SendTurn():
                self.send(command)
            case SendChainProbe(id_):
                self.links[id_].is_probe = True
            case SendPing(id_):
                assert self.links[id_].is_open
            case Answer(id_):
                assert not self.turns[id_].end
            case SendOverHttps(id_):
                self.assert_did_not_run(id_)
                self.end(id_, "https")
            case RefuseTurn():
                asked = self.turns[command.turn]
                assert command.is_outcome_unknown or not asked.may_have_run
                self.end(command.turn, "refused")
            case Finish() | RelayError() | BreakTurn():
                self.end(command.turn, type(command).__name__)
            case Note():
                pass

    def end(self, id_: TurnId, how: str) -> None:
        assert not self.turns[id_].end, "one end a turn"
        self.turns[id_].end = how

    def assert_did_not_run(self, id_: TurnId) -> None:
        asked = self.turns[id_]
        assert not asked.end
        assert not asked.may_have_run, "it may have run"
        on_its_way = [f for link in self.links.values() for f in link.frames if f.turn == id_]
        assert not on_its_way, "its frame may still leave"

    def send(self, command: SendTurn) -> None:
        self.assert_did_not_run(command.turn)
        link, asked = self.links[command.connection], self.turns[command.turn]
        assert link.is_open
        assert link.key == asked.key, "a connection has one key"
        assert not link.is_probe
        assert all(frame.lane != command.lane for frame in link.frames), "a lane has one turn"
        context = asked.items
        if command.parent is not None:
            assert self.core.beliefs.chains(asked.key) is Chains.PROVEN
            assert command.parent in self.contexts
            context = [*self.contexts[command.parent], *asked.items[command.delta_from :]]
            assert json.dumps(context) == json.dumps(asked.items), "what upstream then holds"
            is_warm = command.parent in link.latest.values()
            assert is_warm or asked.is_stored, "nobody has that parent"
        link.frames.append(Sent(command.turn, command.lane, context, command.parent))
        if command.lane:
            link.names.add(command.lane)
        assert len(link.frames) <= IN_FLIGHT
        assert len(link.names) <= NAMES

    def dropped(self, link: Link) -> None:
        for frame in link.frames:
            if not frame.has_left:
                self.turns[frame.turn].may_have_run = False

    def hear(self, id_: ConnectionId, **event: Any) -> None:
        """One message from upstream through the connection's relay."""
        self.core.heard(id_, self.now)
        significant = self.core.relays[id_].receive(json.dumps(event).encode(), self.now)
        if significant is not None and not isinstance(significant, Received):
            self.tell(significant)

    def named(self, frame: Sent) -> dict[str, str]:
        return {"stream_id": frame.lane} if frame.lane and self.has_lanes else {}

    def open_links(self) -> list[ConnectionId]:
        return [id_ for id_, link in self.links.items() if link.is_open]

    def at_work(self) -> Iterator[tuple[ConnectionId, Sent]]:
        for id_, link in self.links.items():
            yield from ((id_, frame) for frame in link.frames if frame.has_left)

    # ── The agents ───────────────────────────────────────────────────────────────────────────

    @rule(
        data=st.data(),
        session=st.sampled_from(["a", "b", None]),
        is_stored=st.booleans(),
        is_streaming=st.booleans(),
        goes_on=st.booleans(),
    )
    def arrive(
        self,
        data: st.DataObject,
        session: str | None,
        is_stored: bool,
        is_streaming: bool,
        goes_on: bool,
    ) -> None:
        self.numbered += 1
        name = f"t{self.numbered}"
        key, items = data.draw(st.sampled_from([KEY, KEY, KEY, OTHER_KEY])), [user(name)]
        if self.done and goes_on:
            key, before, is_stored = data.draw(st.sampled_from(self.done[-6:]))
            items = [*before, user(name)]
        self.turns[TurnId(name)] = Asked(key, items, is_stored)
        event = arrived(
            name, *items, session=session, key=key, store=is_stored, is_streaming=is_streaming
        )
        self.tell(event)

    @rule(data=st.data())
    @precondition(lambda self: self.core.turns)
    def client_leaves(self, data: st.DataObject) -> None:
        id_ = data.draw(st.sampled_from(list(self.core.turns)))
        self.end(id_, "left")
        self.tell(ClientLeft(id_))

    # ── Upstream, on a good day ──────────────────────────────────────────────────────────────

    @rule(data=st.data(), steps=st.integers(1, 8))
    @precondition(lambda self: self.links)
    def go_on(self, data: st.DataObject, steps: int) -> None:
        """Something moves: a dial is accepted, a frame leaves, an event comes."""
        for _ in range(steps):
            moves = list(self.moves())
            if moves:
                move, *what = data.draw(st.sampled_from(moves))
                move(*what)

    @rule()
    @precondition(lambda self: self.links)
    def come_to_rest(self) -> None:
        """All that can move does, until every answer is whole."""
        for _ in range(200):
            moves = list(self.moves())
            if not moves:
                break
            move, *what = moves[0]
            move(*what)

    def moves(self) -> Iterator[tuple[Any, ...]]:
        for id_, link in self.links.items():
            if not link.is_open:
                yield self.accept, id_
            elif link.is_probe:
                yield self.answer_probe, id_, self.looks_up_ids
            unsent = [frame for frame in link.frames if not frame.has_left]
            if unsent:
                yield self.leave, id_, unsent[0]
            for frame in link.frames:
                if frame.has_left:
                    yield self.answer, id_, frame

    def accept(self, id_: ConnectionId) -> None:
        self.links[id_].is_open = True
        self.tell(ConnectionOpened(id_, 30.0 * (id_ % 2)))

    def answer_probe(self, id_: ConnectionId, looks_up_ids: bool) -> None:
        self.tell(ProbeAnswered(id_, looks_up_ids))

    def leave(self, id_: ConnectionId, frame: Sent) -> None:
        """The oldest frame in a connection's buffers has left."""
        frame.has_left = True
        self.turns[frame.turn].may_have_run = True
        self.tell(FrameSent(frame.turn, id_))

    def answer(self, id_: ConnectionId, frame: Sent) -> None:
        response = f"resp_{frame.turn}_{id_}"
        named = self.named(frame)
        if self.refuses_lanes and frame.lane and not frame.events:
            self.fail(id_, frame, 400, "invalid_stream_id", is_named=False)
            return
        frame.events += 1
        if frame.events == 1:
            parent = {"previous_response_id": frame.parent}
            self.hear(id_, type="response.created", response={"id": response, **parent}, **named)
        elif frame.events == 2:
            self.hear(id_, type="response.output_text.delta", delta="x", **named)
        else:
            self.complete(id_, frame, response)

    def complete(self, id_: ConnectionId, frame: Sent, response: str) -> None:
        link, output = self.links[id_], assistant(f"of {frame.turn}")
        named = self.named(frame)
        link.frames.remove(frame)
        link.latest[frame.lane] = response
        self.contexts[response] = [*frame.context, output]
        asked = self.turns[frame.turn]
        self.done.append((asked.key, self.contexts[response], asked.is_stored))
        done = {"output_index": 0, "item": output}
        self.hear(id_, type="response.output_item.done", **done, **named)
        final = {"id": response, "output": [output]}
        self.hear(id_, type="response.completed", response=final, **named)

    # ── Upstream, on a bad day ───────────────────────────────────────────────────────────────

    @rule(data=st.data(), fault=st.sampled_from(DIAL_FAULTS))
    @precondition(lambda self: any(not link.is_open for link in self.links.values()))
    def refuse(self, data: st.DataObject, fault: Fault) -> None:
        dialled = [id_ for id_, link in self.links.items() if not link.is_open]
        if self.numbered % 3:
            return
        id_ = data.draw(st.sampled_from(dialled))
        del self.links[id_]
        self.tell(DialFailed(id_, fault, None, None, "", 0.5))

    @rule(data=st.data(), error=st.sampled_from(ERRORS), is_named=st.booleans())
    @precondition(lambda self: any(self.at_work()))
    def err(self, data: st.DataObject, error: tuple[int, str], is_named: bool) -> None:
        id_, frame = data.draw(st.sampled_from(list(self.at_work())))
        self.fail(id_, frame, *error, is_named=is_named)

    def fail(
        self, id_: ConnectionId, frame: Sent, status: int, code: str, *, is_named: bool
    ) -> None:
        """An error frame ends a turn if it names it, or if it can only mean that one."""
        link = self.links[id_]
        named = self.named(frame) if is_named else {}
        is_certain = bool(named) or len(link.frames) == 1
        left = [f for f in link.frames if f.has_left and not f.has_begun]
        is_sole_sent = left == [frame] and code == "websocket_connection_limit_reached"
        if is_certain or is_sole_sent:
            goes_on = frame.has_begun and code == "websocket_connection_limit_reached"
            if not goes_on:
                link.frames.remove(frame)
                link.latest.pop(frame.lane, None)
            if not frame.has_begun:
                self.turns[frame.turn].may_have_run = False
        body = {"message": "no", "code": code}
        self.hear(id_, type="error", status=status, error=body, **named)

    @rule(data=st.data(), fault=st.sampled_from(LOSSES))
    @precondition(lambda self: self.numbered % 3 == 2 and self.open_links())
    def lose(self, data: st.DataObject, fault: Fault) -> None:
        id_ = data.draw(st.sampled_from(self.open_links()))
        link = self.links.pop(id_)
        self.dropped(link)
        sent = [f for f in link.frames if f.has_left and not f.has_begun]
        live = [f for f in sent if not self.turns[f.turn].end]
        if fault is Fault.CLOSED_TOO_BIG and len(live) == 1:
            self.turns[live[0].turn].may_have_run = False
        unsent = [f.turn for f in link.frames if not f.has_left]
        self.tell(ConnectionLost(id_, fault, "", unsent, 0.5))

    @rule(data=st.data(), lane=st.sampled_from(["l01", "l02", "l99", None]))
    @precondition(lambda self: self.numbered % 4 == 2 and self.open_links())
    def babble(self, data: st.DataObject, lane: str | None) -> None:
        """An event that no turn waits for."""
        id_ = data.draw(st.sampled_from(self.open_links()))
        link = self.links[id_]
        busy = {f.lane if self.has_lanes else "" for f in link.frames}
        if link.is_probe or (lane or "") in busy:
            return
        if lane is None and self.core.relays[id_].default is not None:
            return
        named = {} if lane is None else {"stream_id": lane}
        self.hear(id_, type="response.output_text.delta", delta="x", **named)

    @rule(data=st.data())
    @precondition(lambda self: self.open_links())
    def pong(self, data: st.DataObject) -> None:
        id_ = data.draw(st.sampled_from(self.open_links()))
        self.core.heard(id_, self.now)
        self.tell(PongReceived(id_))

    # ── Time and ourselves ───────────────────────────────────────────────────────────────────

    @rule(seconds=st.sampled_from([0.1, 0.5, 3.0, 12.0, 45.0]))
    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        for _ in range(500):
            at = self.core.next_alarm()
            if at is None or at > until:
                break
            self.now = max(self.now, at)
            self.tell(Tick())
        else:
            raise AssertionError("the alarm rings without end")
        self.now = until

    @rule(seconds=st.sampled_from([10.0, 100.0, 4000.0]))
    @precondition(lambda self: self.numbered % 4 == 3)
    def sleep(self, seconds: float) -> None:
        self.tell(Slept(seconds))

    @rule()
    @precondition(lambda self: self.numbered % 5 == 4)
    def overload(self) -> None:
        """For the length of one turn."""
        self.tell(LoadChanged(True))
        self.numbered += 1
        id_ = f"t{self.numbered}"
        self.turns[TurnId(id_)] = Asked(KEY, [], False)
        self.tell(arrived(id_))
        self.tell(LoadChanged(False))

    @rule()
    @precondition(lambda self: self.numbered > 30 and not self.is_draining)
    def drain(self) -> None:
        self.is_draining = True
        self.tell(DrainBegun(self.now + 20))

    # ── What always holds ────────────────────────────────────────────────────────────────────

    @invariant()
    def every_turn_is_in_the_queue_or_on_a_lane(self) -> None:
        ended = {id_ for id_, asked in self.turns.items() if asked.end}
        assert not ended & set(self.core.turns)
        assert set(self.core.turns) | ended == set(self.turns)
        waiting = set(self.core.waiting)
        for turn in self.core.turns.values():
            connection = self.core.pool.get(turn.connection) if turn.connection else None
            assert (turn.id in waiting) is (connection is None)
            assert connection is None or connection.lanes[turn.lane].turn == turn.id
            kind = Kind.WAIT if connection is None else Kind.EVENTS
            assert self.core._board.alarms.is_set(kind, turn.id), "nobody looks at it again"

    @invariant()
    def no_lane_is_busy_for_nobody(self) -> None:
        for connection in self.core.pool.connections:
            for name, lane in connection.lanes.items():
                assert lane.name == name
                if lane.turn is not None:
                    assert lane.is_draining is (lane.turn not in self.core.turns)
                    # What drains on a retired connection ends with the last turn beside it.
                    is_watched = self.core._board.alarms.is_set(Kind.EVENTS, lane.turn)
                    assert is_watched or (connection.state is State.RETIRED and connection.is_live)
            relay = self.core.relays[connection.id]
            heard = {s.turn for s in [*relay.streams.values(), relay.default] if s is not None}
            assert heard == set(connection.running())

    @invariant()
    def pool_relays_and_links_agree(self) -> None:
        pool = self.core.pool
        ids = [connection.id for connection in pool.connections]
        assert ids == list(self.links)
        assert set(ids) == set(self.core.relays)
        for connection in pool.connections:
            link = self.links[connection.id]
            assert connection.key == self.keys[connection.id]
            assert (connection.state is State.DIALLING) is (not link.is_open)
            assert set(connection.running()) == {frame.turn for frame in link.frames}

    @invariant()
    def every_limit_holds(self) -> None:
        pool = self.core.pool
        assert len(pool.connections) <= TOTAL
        assert all(len(pool.of_key(key)) <= PER_KEY for key in (KEY, OTHER_KEY))
        assert len(self.core.turns) <= TURNS
        for connection in pool.connections:
            assert connection.in_flight <= connection.capacity <= IN_FLIGHT
            assert len(connection.lanes) <= NAMES
        assert len(self.core._board.alarms) <= 2 * len(self.core.turns) + 4 * TOTAL + 2 * NAMES

    def teardown(self) -> None:
        """Upstream falls silent: everything ends by its deadline, and nothing is left behind."""
        if not hasattr(self, "core"):
            return
        until = self.now + FOREVER_S
        for _ in range(5000):
            at = self.core.next_alarm()
            if at is None or at > until:
                break
            self.now = max(self.now, at)
            self.tell(Tick())
        assert not self.core.turns, repr(self.core)
        assert all(connection.is_idle for connection in self.core.pool.connections)
        assert all(asked.end for asked in self.turns.values())


#: 15 s of a core; the rest is for machines that have more to do.
TestStory = pytest.mark.timeout(240)(Story.TestCase)
TestStory.settings = settings(
    max_examples=300,
    stateful_step_count=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
