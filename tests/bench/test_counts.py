"""What must not creep up, in counts that no load of the machine can change."""

from __future__ import annotations

import gc
import json
import sys
from functools import partial

import pytest

from tests.bench.bodies import SHAPES, Shape, Talk, loop
from tests.bench.source import reply_items
from tests.bench.stage import Stage, calls_of, deltas
from tests.core.playbook import Playbook
from tests.core.stage import arrived, core, finished, started
from wsproxy.core.api.items import hold, read_item
from wsproxy.core.api.request import parse
from wsproxy.core.conversation.history import History
from wsproxy.core.conversation.transcript import Transcript
from wsproxy.core.ids import ConnectionId, LaneName, PoolKey, SessionName
from wsproxy.core.multiplex.connection import ConnectionLimits
from wsproxy.core.multiplex.pool import PoolLimits

KEY = PoolKey(b"k" * 32)
ORDER = b'{"model":"m","input":"%d","stream":true,"store":false}'
#: Python functions that one delta passes through, a read and a write of its own included: 18
#: with four of this test's own, and two to spare.
CALLS_AN_EVENT = 20
#: One more delta in the same read.
CALLS_A_FURTHER_EVENT = 6
#: For a turn that waits, another one like it having been told that there is no room: 18 measured.
CALLS_A_TURN_THAT_WAITS = 20
#: What the client has asked and been answered already, and must not be parsed again.
NEW_ITEMS = 2


async def test_what_one_read_brings_is_written_to_each_client_once() -> None:
    stage = Stage()
    reads: list[list[bytes]] = []
    clients = []
    for number in range(4):
        client, _ = await stage.ask(ORDER % number)
        events = deltas(8, stage.road.lane)
        stage.hears(events[:1])
        clients.append((client, client.writes))
        reads.append(events[1:])
    stage.hears([event for of_all in zip(*reads, strict=True) for event in of_all])
    assert [client.writes - before for client, before in clients] == [1, 1, 1, 1]


async def test_an_event_passes_through_few_functions() -> None:
    stage = Stage()
    await stage.ask(ORDER % 0)
    created, *events = deltas(300, stage.road.lane)
    stage.hears([created, *events[:100]])
    alone = calls_of(partial(stage.hears, events[100:101]))
    among = calls_of(partial(stage.hears, events[101:201])) - alone
    assert alone <= CALLS_AN_EVENT
    assert among <= CALLS_A_FURTHER_EVENT * 99


async def test_a_relayed_event_leaves_nothing_behind() -> None:
    stage = Stage()
    await stage.ask(ORDER % 0)
    created, *events = deltas(1_200, stage.road.lane)
    stage.hears([created])
    for event in events[:200]:
        stage.hears([event])
    gc.collect()
    before = sys.getallocatedblocks()
    for event in events[200:]:
        stage.hears([event])
    assert sys.getallocatedblocks() - before < 100  # of 1,000 events


def test_of_turns_that_come_at_once_each_is_placed_by_itself() -> None:
    few, many = (
        calls_of(partial(crowd.tell, arrived("late", session="late")))
        for crowd in (crowded(10), crowded(100))
    )
    assert many < 2 * few  # a call or two may differ; to look at all of them takes ten times


def test_turns_that_are_alike_are_looked_at_together_when_there_may_be_room() -> None:
    few, many = (calls_of(partial(finished, crowd, "t0")) for crowd in (crowded(10), crowded(100)))
    assert many - few <= 90 * CALLS_A_TURN_THAT_WAITS


def crowded(waiting: int) -> Playbook:
    """One lane, taken, and so many turns that wait for it, each of a session of its own."""
    limits = ConnectionLimits(max_in_flight=1)
    story = Playbook(core(connection=limits, pool=PoolLimits(max_per_key_with_lanes=1)))
    started(story, "t0")
    for number in range(waiting):
        story.tell(arrived(f"w{number}", session=f"s{number}"))
    assert story.take() == []
    return story


def test_each_turn_parses_only_what_is_new() -> None:
    history, talk = History(), Talk.of_bytes(40_000, "parses")
    outputs = [hold([read_item(json.dumps(item).encode())]) for item in reply_items("text")]
    counts = []
    for number in range(40):
        transcript = Transcript(parse(talk.body()))
        reading = history.read(KEY, transcript)
        counts.append(transcript.read_count)
        history.commit(
            KEY,
            transcript,
            reading,
            fields={},
            response_id=f"resp_{number}",
            outputs=outputs,
            open_calls=(),
            session=SessionName(b"s"),
            home=(ConnectionId(1), LaneName("l01")),
            now=0.0,
        )
        talk.answered()
    assert counts[0] == 20  # all of the first
    assert set(counts[1:]) == {NEW_ITEMS}


@pytest.mark.parametrize(
    ("shape", "bytes_a_turn"),
    [(SHAPES[0], 2_400), (SHAPES[1], 20_600), (SHAPES[2], 3_300)],
    ids=[shape.name for shape in SHAPES],
)
async def test_a_turn_of_a_loop_sends_what_is_new_and_no_more(
    shape: Shape, bytes_a_turn: int
) -> None:
    stage = Stage()
    sent = []
    for number, body in enumerate(loop(shape, 20)):
        sent.append(await stage.answer(body, f"call-{number}" if number < 20 else "text"))
    assert max(sent[1:]) <= bytes_a_turn
    assert max(sent[1:]) - min(sent[1:]) < 20  # ids and numbers get a digit longer
