"""Assignment is pure: it says where a turn may run, or what to open and close for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.core.stage import KEY, OTHER_KEY
from wsproxy.core.conversation.plan import Candidate, Route
from wsproxy.core.ids import ConnectionId, LaneName, PoolKey, SessionName, TurnId
from wsproxy.core.multiplex.connection import Connection, ConnectionLimits, Lanes
from wsproxy.core.multiplex.pool import Ask, Hold, Need, Pool, PoolLimits, Use

A, B = SessionName(b"a"), SessionName(b"b")
LIMITS = ConnectionLimits(max_in_flight=2)


@dataclass(eq=False)
class Warm:
    """As much of a checkpoint as a pool looks at."""

    home: tuple[ConnectionId, LaneName]
    is_stored: bool = False


def connection(
    id_: int,
    session: SessionName = A,
    *,
    key: PoolKey = KEY,
    busy: int = 0,
    lanes: Lanes = Lanes.ON,
    is_open: bool = True,
    is_chain_probe: bool = False,
    now: float = 0.0,
) -> Connection:
    it = Connection(
        ConnectionId(id_),
        key,
        session,
        now,
        limits=LIMITS,
        belief=lanes,
        is_chain_probe=is_chain_probe,
    )
    if is_open:
        it.opened(now, 0.0)
    for number in range(busy):
        lane = it.free_lane()
        assert lane is not None
        it.take(TurnId(f"t{id_}.{number}"), lane, now)
    return it


def pool(*connections: Connection, **limits: int) -> Pool:
    it = Pool(PoolLimits(**limits))
    it.connections.extend(connections)
    return it


def ask(session: SessionName = A, **more: Any) -> Ask:
    return Ask(KEY, session, **more)


def warm(it: Connection, lane: str = "l01", *, is_stored: bool = False) -> Candidate:
    """The lane has just completed a response."""
    checkpoint: Any = Warm((it.id, LaneName(lane)), is_stored)
    it.take(TurnId("before"), LaneName(lane), 0.0)
    it.settle(TurnId("before"), checkpoint, "resp", 0.0)
    return Candidate(checkpoint, 1)


def where(found: Use | Hold) -> tuple[int, str] | Need:
    return (found.connection.id, found.lane) if isinstance(found, Use) else found.need


CASES: list[tuple[str, Callable[[], Pool], Ask, tuple[int, str] | Need]] = [
    ("nothing there", pool, ask(), Need.DIAL),
    ("its session's", lambda: pool(connection(1, B), connection(2, A)), ask(), (2, "l01")),
    ("beside another", lambda: pool(connection(1, busy=1)), ask(), (1, "l02")),
    ("its session's is full", lambda: pool(connection(1, busy=2)), ask(), Need.DIAL),
    ("another session's", lambda: pool(connection(1, B)), ask(), Need.DIAL),
    ("another key's", lambda: pool(connection(1, key=OTHER_KEY)), ask(), Need.DIAL),
    ("being dialled", lambda: pool(connection(1, is_open=False)), ask(), Need.DIAL),
    (
        "least loaded at the limit",
        lambda: pool(connection(1, B, busy=1), connection(2, B, busy=2), max_per_key_with_lanes=2),
        ask(),
        (1, "l02"),
    ),
    (
        "all full at the limit",
        lambda: pool(connection(1, B, busy=2), max_per_key_with_lanes=1),
        ask(),
        Need.ROOM,
    ),
    (
        "finding out",
        lambda: pool(connection(1, busy=1, lanes=Lanes.UNKNOWN)),
        ask(),
        Need.DISCOVERY,
    ),
    (
        "found out for too long",
        lambda: pool(connection(1, busy=1, lanes=Lanes.UNKNOWN)),
        ask(waits_for_discovery=False),
        Need.DIAL,
    ),
    ("no dial allowed", pool, ask(dial_from=float("inf")), Need.ROOM),
    ("dial allowed later", pool, ask(dial_from=99.0), Need.DIAL),
    (
        "no dial allowed but another session's open",
        lambda: pool(connection(1, B)),
        ask(dial_from=float("inf")),
        (1, "l01"),
    ),
]


@pytest.mark.parametrize(
    ("stage", "wish", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_where_a_turn_goes(
    stage: Callable[[], Pool], wish: Ask, expected: tuple[int, str] | Need
) -> None:
    its = stage()
    before = repr(its)
    assert where(its.assign(wish, 1.0)) == expected
    assert repr(its) == before, "assign changes nothing"


def test_what_is_waited_for_and_what_is_opened() -> None:
    dialled = connection(1, is_open=False)
    assert pool(dialled).assign(ask(), 1.0) == Hold(Need.DIAL, on=dialled)
    assert pool().assign(ask(), 1.0) == Hold(Need.DIAL, opens=True)
    assert pool().assign(ask(dial_from=9.0), 1.0) == Hold(Need.DIAL, until=9.0)


def test_a_dial_carries_no_more_waiting_turns_than_the_connection_will() -> None:
    dialled = connection(1, is_open=False, lanes=Lanes.OFF)
    found = pool(dialled).assign(ask(claims={dialled.id: 1}), 1.0)
    assert found == Hold(Need.DIAL, opens=True)


def test_the_longest_warm_conversation_wins() -> None:
    it = connection(1)
    candidate = warm(it)
    assert pool(it).assign(ask(B, candidates=(candidate,)), 1.0) == Use(
        it, LaneName("l01"), Route.DELTA, candidate
    )


def test_a_busy_lane_is_forked() -> None:
    it = connection(1)
    candidate = warm(it)
    it.take(TurnId("t"), LaneName("l01"), 1.0)
    found = pool(it).assign(ask(candidates=(candidate,)), 1.0)
    assert found == Use(it, LaneName("l02"), Route.FORK, candidate)


def test_a_full_connection_is_neither_continued_nor_forked() -> None:
    it = connection(1)
    candidate = warm(it)
    for lane in ("l02", "l03"):
        it.take(TurnId(lane), LaneName(lane), 1.0)
    assert pool(it).assign(ask(candidates=(candidate,)), 1.0) == Hold(Need.DIAL, opens=True)


def test_a_checkpoint_that_is_not_the_latest_of_its_lane_is_not_warm() -> None:
    it = connection(1)
    old = warm(it)
    warm(it)
    found = pool(it).assign(ask(candidates=(old,)), 1.0)
    assert isinstance(found, Use)
    assert (found.route, found.candidate) == (Route.FULL, None)


@pytest.mark.parametrize("may_chain", [True, False], ids=["on", "off"])
def test_a_stored_checkpoint_chains_by_id_anywhere(may_chain: bool) -> None:
    gone, it = connection(1), connection(2)
    candidate = warm(gone, is_stored=True)
    found = pool(it).assign(ask(candidates=(candidate,), chains_by_id=may_chain), 1.0)
    assert isinstance(found, Use)
    assert (found.candidate is candidate, found.is_by_id) == (may_chain, may_chain)


def test_a_silent_connection_is_proven_first_and_only_once() -> None:
    it = connection(1)
    its = pool(it)
    assert its.assign(ask(), 100.0) == Hold(Need.PROBE, on=it, is_probe_due=True)
    it.probing_since = 100.0
    assert its.assign(ask(), 100.5) == Hold(Need.PROBE, on=it)


def test_an_old_connection_takes_no_new_turn() -> None:
    it = connection(1)
    assert pool(it).assign(ask(), 3000.0) == Hold(Need.DIAL, opens=True)


def test_room_is_made_by_the_connection_longest_idle() -> None:
    old, young = connection(1, B), connection(2, B, now=5.0)
    found = pool(old, young, max_per_key_with_lanes=2).assign(ask(), 6.0)
    assert found == Hold(Need.DIAL, opens=True, closes=(old,))


def test_at_the_limit_of_all_unused_keys_give_first() -> None:
    own, foreign = connection(1, B), connection(2, key=OTHER_KEY)
    its = pool(own, foreign, max_total=2, key_idle_s=300)
    assert its.assign(ask(), 299.0) == Hold(Need.DIAL, opens=True, closes=(own,))
    assert its.assign(ask(), 300.0) == Hold(Need.DIAL, opens=True, closes=(foreign,))


def test_a_key_in_use_never_gives() -> None:
    foreign = [connection(1, key=OTHER_KEY), connection(2, key=OTHER_KEY, busy=1)]
    assert pool(*foreign, max_total=2).assign(ask(), 1000.0) == Hold(Need.ROOM)


def test_the_owner_of_a_response_is_the_lane_whose_latest_it_is() -> None:
    it = connection(1)
    warm(it)
    assert pool(it).owner(KEY, "resp") == (1, "l01")
    assert pool(it).owner(OTHER_KEY, "resp") is None
    assert pool(it).owner(KEY, "other") is None


@pytest.mark.parametrize(
    ("busy_lanes", "now", "expected"),
    [
        ([], 3000.0, (1, "l01")),
        (["l01"], 3000.0, (1, "l02")),
        (["l02", "l03"], 3000.0, (2, "l01")),
        ([], 3001.0, (2, "l01")),
    ],
    ids=["its lane", "beside its lane", "no room there", "too old"],
)
def test_a_parent_that_the_client_names_draws_the_turn_to_the_lane_that_owns_it(
    busy_lanes: list[str], now: float, expected: tuple[int, str]
) -> None:
    it, preferred = connection(1, now=1.0), connection(2, B, now=2999.0)
    warm(it)
    it.received_at = now
    for lane in busy_lanes:
        it.take(TurnId(lane), LaneName(lane), 2.0)
    found = pool(it, preferred).assign(ask(B, own_parent_home=(it.id, LaneName("l01"))), now)
    assert isinstance(found, Use)
    assert (where(found), found.route, found.candidate) == (expected, Route.FULL, None)


def test_the_road_to_a_parent_that_the_client_names_is_proven_first() -> None:
    it = connection(1)
    warm(it)
    found = pool(it).assign(ask(own_parent_home=(it.id, LaneName("l01"))), 100.0)
    assert found == Hold(Need.PROBE, on=it, is_probe_due=True)


@pytest.mark.parametrize(
    ("its", "has_room"),
    [
        (lambda: pool(connection(1), max_per_key_with_lanes=2), True),
        (lambda: pool(connection(1), connection(2), max_per_key_with_lanes=2), False),
        (lambda: pool(connection(1, lanes=Lanes.OFF), max_per_key_without_lanes=1), False),
        (lambda: pool(connection(1, key=OTHER_KEY), max_per_key_without_lanes=1), True),
        (lambda: pool(connection(1, key=OTHER_KEY), max_total=1), False),
        (lambda: pool(connection(1, key=OTHER_KEY), max_total=2), True),
    ],
    ids=["below", "of key", "of key, no lanes", "another key's", "of all", "below all"],
)
def test_there_is_room_below_the_limits_of_the_key_and_of_all(
    its: Callable[[], Pool], has_room: bool
) -> None:
    assert its().has_room_for(KEY) is has_room


def test_idle_connections_expire_and_the_few_last_used_later() -> None:
    its = pool(*(connection(number, now=float(number)) for number in range(1, 5)), max_warm_idle=2)
    assert [c.id for c in its.expired(120.9)] == []
    assert [c.id for c in its.expired(121.0)] == [1]
    assert [c.id for c in its.expired(123.0)] == [2, 1]
    assert [c.id for c in its.expired(903.0)] == [3, 2, 1]
    assert [c.id for c in its.expired(904.0)] == [4, 3, 2, 1]


@pytest.mark.parametrize(
    "it",
    [
        lambda: connection(1, busy=1),
        lambda: connection(1, is_open=False),
        lambda: connection(1, is_chain_probe=True),
    ],
    ids=["busy", "being dialled", "a chain probe's"],
)
def test_what_is_not_idle_and_open_for_turns_does_not_expire(it: Callable[[], Connection]) -> None:
    assert pool(it(), max_warm_idle=0).expired(5000.0) == []


# ── Ageing ───────────────────────────────────────────────────────────────────────────────────


def ageing(now: float, *connections: Connection) -> list[int]:
    """All are too old at 100; they are replaced 30 s ahead."""
    return [c.id for c in pool(*connections).ageing(now, 30.0, lambda _: 100.0)]


def test_a_successor_is_needed_ahead_of_the_end_of_an_age() -> None:
    assert ageing(69.9, connection(1)) == []
    assert ageing(70.0, connection(1)) == [1]


def test_no_successor_is_needed_for_what_has_been_idle_for_long() -> None:
    assert ageing(129.9, connection(1, now=10.0)) == [1]
    assert ageing(130.0, connection(1, now=10.0)) == []
    assert ageing(130.0, connection(1, busy=1, now=10.0)) == [1]


def test_a_connection_has_one_successor_as_long_as_that_lives() -> None:
    it, successor = connection(1, busy=1), connection(2, is_open=False)
    it.successor = successor.id
    assert ageing(100.0, it, successor) == []
    assert ageing(100.0, it) == [1]


def test_only_connections_that_turns_run_on_need_successors() -> None:
    dialled, probe = connection(1, is_open=False), connection(2, is_chain_probe=True)
    assert ageing(100.0, dialled, probe) == []
