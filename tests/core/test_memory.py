"""What a history costs to keep and to search, against what the contract allows.

Measured with tracemalloc, scaled down 50 times: 200 conversations stand for 10,000. Text is not
kept, so the sizes of items do not matter to what stays; their number does.
"""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Callable
from typing import Final

import pytest

from tests.core.conversation_stage import (
    Json,
    Stage,
    answers,
    body,
    calls,
    says,
    thinks,
    user,
)
from wsproxy.core.conversation.history import History

SCALE: Final = 50
CONVERSATIONS: Final = 10_000 // SCALE
ITEMS: Final = 100


def grown(stage: Stage, name: str, items: int, turns: int, size_bytes: int = 0) -> list[Json]:
    """A tool loop of so many items, of which the last `turns` are run; its items."""
    pad = "x" * size_bytes
    sent: list[Json] = [user(f"q {name}")]
    total = (items - 1) // 3
    for n in range(total):
        made = [thinks(f"{name}{n}", f"blob {name} {n}"), calls(f"{name}{n}")]
        if n >= total - turns:
            stage.run(
                body(sent, store=False),
                [(made[0], thinks(f"{name}{n}", f"again {name} {n}")), made[1]],
            )
        sent += [*made, answers(f"{name}{n}", pad)]
    return sent


def sizes(story: Callable[[Stage], object]) -> tuple[int, int]:
    """What the history says it costs after a story, and what is freed when it is dropped."""
    gc.collect()
    tracemalloc.start()
    stage = Stage()
    story(stage)
    gc.collect()
    counted, before = stage.history.size_bytes, tracemalloc.get_traced_memory()[0]
    stage.history = History()
    gc.collect()
    measured = before - tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return counted, measured


def many(stage: Stage) -> None:
    for n in range(CONVERSATIONS):
        grown(stage, str(n), ITEMS, turns=4)
    assert len(list(stage.history)) == 4 * CONVERSATIONS


@pytest.mark.timeout(180)  # tracemalloc slows everything down
def test_ten_thousand_conversations_of_a_hundred_items_fit_in_200_mb() -> None:
    counted, measured = sizes(many)
    assert measured * SCALE < 200_000_000
    assert 0.7 < counted / measured < 1.3


@pytest.mark.timeout(180)
@pytest.mark.parametrize("turns", [1, 333], ids=["one turn", "every turn"])
def test_a_history_of_1_mb_and_1000_items_keeps_200_kb(turns: int) -> None:
    size_bytes = 2_800 if turns == 1 else 28  # what is kept does not depend on it
    assert size_bytes == 28 or len(body(grown(Stage(), "a", 1_000, 0, size_bytes))) > 1_000_000
    counted, measured = sizes(lambda stage: grown(stage, "a", 1_000, turns, size_bytes))
    assert measured < 200_000
    assert 0.7 < counted / measured < 1.3


STORIES: Final[dict[str, Callable[[Stage], object]]] = {
    "small": lambda stage: [stage.run(body([user(f"{n}")]), [says("a")]) for n in range(300)],
    "with fields": lambda stage: [
        stage.run(body([user(f"{n}")], tools=[], instructions="", include=[], text={}), [says("a")])
        for n in range(300)
    ],
    "loops": lambda stage: [grown(stage, str(n), ITEMS, turns=33) for n in range(5)],
    "branches": lambda stage: [
        stage.run(body([*grown(stage, "a", 100, turns=1), user(f"{n}")]), [says("a")])
        for n in range(20)
    ],
}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("story", STORIES)
def test_what_is_kept_is_counted_right_within_30_percent(story: str) -> None:
    counted, measured = sizes(STORIES[story])
    assert 0.7 < counted / measured < 1.3


# ── What is looked at ────────────────────────────────────────────────────────────────────────


def test_a_lookup_parses_only_what_is_new() -> None:
    stage = Stage()
    items = grown(stage, "a", 1_000, turns=1)
    seen = stage.run(body(items), [says("x")], "next")
    assert seen.parent is not None
    assert seen.transcript.read_count == 3  # an echo of two items, and an answer
    following = [*items, says("x"), user("on")]
    seen = stage.look(body(following))
    assert (seen.parent, seen.transcript.read_count) == ("next", 2)


def test_a_respelled_history_is_parsed_whole_and_still_matched() -> None:
    stage = Stage()
    items = grown(stage, "a", 100, turns=1)
    respelled = [json.dumps(dict(reversed(item.items()))).encode() for item in items]
    seen = stage.look(body(respelled))
    assert seen.parent is not None
    assert seen.transcript.read_count == len(items)


def test_a_regenerated_turn_of_a_long_history_parses_next_to_nothing() -> None:
    stage = Stage()
    items = grown(stage, "a", 1_000, turns=2)
    stage.run(body(items), [says("x")], "one")
    seen = stage.look(body(items))
    assert seen.parent is not None
    assert seen.transcript.read_count <= 3
