"""The journal of a run, through a fresh core: the same commands."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from tests.worlds import KEY, TOOL, World, answers, user, world
from wsproxy.cli.main import main
from wsproxy.core.api.items import Item, read_item
from wsproxy.simulator import Rules
from wsproxy.trace.doors import Words
from wsproxy.trace.keyed import KEY_BYTES, Keyed
from wsproxy.trace.replay import Outcome, outcomes

#: Worlds that make the core decide differently, each with what the agents meet in it.
WORLDS: dict[str, dict[str, Any]] = {
    "all auto": {},
    "no lanes": {"rules": Rules(lanes="ignored")},
    "lanes refused": {"rules": Rules(lanes="refused")},
    "chains by id": {"store": True},
    "few connections": {"max_connections": 1, "max_in_flight_per_connection": 1},
    "no websocket": {"rules": Rules(refuse_upgrade=404)},
    "forgetful upstream": {"rules": Rules(chain_turns=2, chain_loss="refused")},
    "reasoning left out": {"omitted_reasoning": "continue"},
    **{
        fault: {"faults": [fault]}
        for fault in (
            "handshake:reset",
            "handshake:status=429",
            "before_first_event:reset:2",
            "before_first_event:close=1012",
            "before_first_event:error=previous_response_not_found:2",
            "before_first_event:error=rate_limit_exceeded",
            "before_first_event:error=websocket_stream_limit_reached",
            "before_first_event:connection_error=websocket_connection_limit_reached",
            "mid_stream:eof",
            "mid_stream:wrong_lane",
            "mid_stream:garbage=json",
            "after_terminal:late_event",
        )
    },
}


async def wander(w: World, seed: int, *, store: bool) -> None:
    """An agent of many habits: loops, edits, repeats, strings, changed fields, an early end."""
    draw = random.Random(seed)
    items: list[dict[str, Any]] = [user(f"question {seed}")]
    for step in range(6):
        body: dict[str, Any] = {
            "tools": [TOOL],
            "store": store,
            "stream": draw.random() < 0.5,
            "metadata": {"sim.tool_calls": "3", "sim.reasoning": "encrypted"},
        }
        if step == 3:
            body["instructions"] = f"new ones {seed}"
        asked: object = f"in a word, {seed}" if step == 4 else items
        answer = await w.turn(asked, headers={"session-id": f"s{seed % 2}"}, **body)
        if answer.status != 200 or answer.is_cut or step == 4:
            continue
        output = answer.response()["output"]
        items = [*items, *output, *answers(output)]
        if draw.random() < 0.2:
            items[0] = user(f"question {seed}, edited")
        if draw.random() < 0.2:
            items = [item for item in items if item["type"] != "reasoning"]


async def leave_early(w: World) -> None:
    """A client that does not wait for its answer."""
    asking = asyncio.ensure_future(w.turn([user("never mind")], stream=True))
    await asyncio.sleep(0.01)
    asking.cancel()


async def recorded(folder: Path, **given: Any) -> None:
    """Several agents at once in one world, traced."""
    rules, faults = given.pop("rules", Rules()), given.pop("faults", ())
    store = given.pop("store", False)
    tracing = {"trace_dir": folder, "trace_min_free_bytes": 0}
    async with world(rules, faults=faults, **tracing, **given) as w:
        agents = [wander(w, seed, store=store) for seed in range(4)]
        await asyncio.gather(*agents, leave_early(w))
        await w.quiet()


@pytest.mark.parametrize("name", WORLDS)
async def test_the_core_gives_the_same_commands_again(name: str, tmp_path: Path) -> None:
    await recorded(tmp_path / "traces", **WORLDS[name])
    (found,) = outcomes(tmp_path / "traces")
    assert found == Outcome(found.run, found.events, found.commands)
    assert found.commands >= 20


async def test_a_run_that_began_another_day_is_followed_by_its_own(tmp_path: Path) -> None:
    for _ in range(2):
        await recorded(tmp_path / "traces")
    found = list(outcomes(tmp_path / "traces"))
    assert len({outcome.run for outcome in found}) == 2
    assert [outcome.difference for outcome in found] == [None, None]


def changed(folder: Path, old: str, new: str, at: int) -> None:
    """Change the `at`-th line of the journal in which `old` stands."""
    (path,) = folder.glob("journal-*.jsonl")
    lines = path.read_text().splitlines(keepends=True)
    index = [number for number, line in enumerate(lines) if old in line][at]
    lines[index] = lines[index].replace(old, new, 1) if new else ""
    path.write_text("".join(lines))


@pytest.mark.parametrize(
    ("old", "new", "at", "exit_code", "told"),
    [
        ('"route":"DELTA"', '"route":"FULL"', 0, 1, "differs at event"),
        ('"is":"FrameSent"', "", 0, 0, "was not recorded"),
        ('"kind":"core"', "", 0, 0, "its beginning is not in the journal any more"),
        ('"is":"FrameSent"', '"is":"Nothing"', 0, 0, "cannot be read: damaged"),
        ('"max_turns":256', '"max_turns":"x"', 0, 0, "its options or items cannot be read"),
        ('"now":', '"now":1e999,"x":', 3, 0, "was not recorded"),
        (
            '"is":"ConnectionOpened","connection":',
            '"is":"FrameSent","turn":[],"x":',
            0,
            0,
            "damaged",
        ),
        ('"key":"', '"key":"zz', 0, 0, "cannot be read: damaged"),
    ],
    ids=[
        "another command",
        "a missing event",
        "a missing beginning",
        "an unknown event",
        "odd options",
        "a time without end",
        "members of another event",
        "no digest",
    ],
)
async def test_a_difference_is_shown_and_a_gap_is_named(
    old: str,
    new: str,
    at: int,
    exit_code: int,
    told: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    await recorded(tmp_path / "traces", continuation="on")
    changed(tmp_path / "traces", old, new, at)
    assert main(["trace", "replay", "--dir", str(tmp_path / "traces")]) == exit_code
    shown = capsys.readouterr().out
    assert told in shown
    assert ("recorded: {" in shown) == bool(exit_code)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"type":"message","role":"assistant","id":"m","content":[{"type":"output_text","text":"a"}]}',
        b'{"type":"reasoning","id":"r","encrypted_content":"b","summary":[]}',
        b'{"type":"function_call","id":"f","call_id":"c","name":"run","arguments":"{}"}',
        b'{"type":"function_call_output","call_id":"c","output":"done"}',
        b'{"type":"item_reference","id":"m"}',
        b'{"type":"strange","role":"odd"}',
        b'{"a":1,"a":2}',
    ],
    ids=["message", "reasoning", "call", "answer", "reference", "unknown", "opaque"],
)
def test_an_item_is_written_with_all_its_members(raw: bytes) -> None:
    words, item = Words(Keyed(bytes(KEY_BYTES))), read_item(raw)
    assert words.item(item) == {
        field.name: words.plain(getattr(item, field.name), field.name) for field in fields(Item)
    }


async def test_doors_hold_no_text_and_no_id_of_upstream(tmp_path: Path) -> None:
    await recorded(tmp_path / "traces")
    (path,) = (tmp_path / "traces").glob("journal-*.jsonl")
    doors = [line for line in path.read_text().splitlines() if '"kind":"door"' in line]
    assert doors
    for canary in ("question", "never mind", "resp_", '"key":"call_', KEY, "new ones"):
        assert canary not in "".join(doors)
    assert all(json.loads(line) for line in doors)
