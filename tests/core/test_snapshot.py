"""The pool as a table: what is shown of a moment, and that looking changes nothing."""

from __future__ import annotations

import json

import msgspec
import pytest

from tests.core.playbook import Playbook, Told
from tests.core.stage import KEY, OTHER_KEY, arrived, book, created, opened, passed, sent
from wsproxy.core.events import DialFailed
from wsproxy.core.ids import ConnectionId, PoolKey
from wsproxy.core.multiplex import snapshot as module
from wsproxy.core.multiplex.recovery import Fault
from wsproxy.core.multiplex.snapshot import Snapshot, shown, snapshot


def look(story: Playbook) -> Snapshot:
    core = story.core
    return snapshot(core.pool.connections, core.turns.values(), core.beliefs, story.now)


def play(story: Playbook, *told: Told) -> None:
    """Tell all of it; what the core orders is not of interest here."""
    for one in told:
        story >> one
        story.take()


def test_a_turn_that_waits_for_a_dial_makes_a_row_with_its_wait() -> None:
    with book() as story:
        play(story, arrived("t1"), passed(2))
        found = look(story)
    assert (found.turns, found.queued, found.longest_wait_s) == (1, 1, 2.0)
    [row] = found.sessions
    assert (row.key, row.session) == (shown(KEY), shown(b"s"))
    assert (row.transport, row.connections, row.queued) == ("dialling", 1, 1)
    assert (row.lanes_max, row.in_flight, row.longest_wait_s) == (32, 0, 2.0)


def test_keys_and_sessions_have_the_names_that_the_caller_has_for_them() -> None:
    with book() as story:
        play(story, arrived("t1", session=None), opened(1))
        core = story.core
        pool, turns = core.pool.connections, core.turns.values()
        found = snapshot(pool, turns, core.beliefs, story.now, lambda *of: f"name {len(of)}")
    [row], [connection], [key] = found.sessions, found.connections, found.keys
    assert (row.key, row.session) == ("name 1", "name 2")
    assert (connection.key, connection.sessions, key.key) == ("name 1", ["name 2"], "name 1")


def test_a_running_turn_is_in_flight_on_a_lane() -> None:
    with book() as story:
        play(story, arrived("t1"), opened(1), sent("t1"), created(1, "l01"), passed(1))
        found = look(story)
    [row], [connection] = found.sessions, found.connections
    assert (row.transport, row.in_flight, row.in_flight_max) == ("websocket", 1, 16)
    assert (row.queued, row.longest_wait_s, found.queued) == (0, 0.0, 0)
    assert (connection.state, connection.lanes, connection.lanes_used) == ("open", "on", 1)
    assert (connection.lanes_warm, connection.in_flight, connection.heard_s) == (0, 1, 1.0)


def test_sessions_and_keys_have_rows_of_their_own_and_the_longest_wait_is_first() -> None:
    with book() as story:
        play(
            story,
            arrived("t1", session="a"),
            opened(1),
            sent("t1"),
            arrived("t2", session="b", key=OTHER_KEY),
            passed(1),
            arrived("t3", session="c", key=OTHER_KEY),
            passed(0.5),
        )
        rows = look(story).sessions
    assert [row.session for row in rows] == [shown(b"b"), shown(b"c"), shown(b"a")]
    assert [row.key for row in rows] == [shown(OTHER_KEY), shown(OTHER_KEY), shown(KEY)]


@pytest.mark.parametrize(
    ("fault", "is_whole_upstream"),
    [(Fault.UPGRADE_UNAUTHORIZED, False), (Fault.UPGRADE_UNSUPPORTED, True)],
    ids=["this key", "this upstream"],
)
def test_where_no_websocket_is_to_be_had_the_time_left_is_told(
    fault: Fault, is_whole_upstream: bool
) -> None:
    with book() as story:
        play(story, arrived("t1"), DialFailed(ConnectionId(1), fault, None, None, "no"), passed(10))
        found = look(story)
    [key] = found.keys
    assert found.url_no_websocket_s == (590.0 if is_whole_upstream else 0.0)
    assert key.no_websocket_s == (0.0 if is_whole_upstream else 50.0)
    assert key.fault == ("" if is_whole_upstream else fault.value)
    assert key.dial_failures == 1


def test_a_snapshot_is_json_that_can_be_read_back() -> None:
    with book() as story:
        play(story, arrived("t1"))
        found = look(story)
    text = json.dumps(msgspec.to_builtins(found))
    assert msgspec.json.decode(text, type=Snapshot) == found
    assert KEY.hex() not in text


def test_many_sessions_are_cut_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ROWS", 3)
    with book() as story:
        for number in range(5):
            key = PoolKey(bytes([number]) * 32)
            play(story, arrived(f"t{number}", session=str(number), key=key))
        found = look(story)
    assert (len(found.sessions), len(found.keys), found.left_out) == (3, 3, 4)
    assert found.queued == 5


def test_looking_changes_nothing() -> None:
    with book() as story:
        play(story, arrived("t1"), opened(1))
        before = repr(story.core), story.core.next_alarm()
        assert look(story) == look(story)
        assert (repr(story.core), story.core.next_alarm()) == before
