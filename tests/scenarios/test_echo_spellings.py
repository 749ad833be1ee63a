"""However a client writes the model's output back: what goes upstream is only what is new."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.differential.spellings import (
    EDITED_SPELLINGS,
    LOSSY_SPELLINGS,
    SPELLINGS,
    STORED_SPELLINGS,
    Made,
    Spelling,
)
from tests.scenarios.conftest import Start
from tests.worlds import TOOL, Answer, Item, World, answers, user
from wsproxy.simulator import Rules

TURNS = 20
#: Every second answer is a call, the others are messages; each comes with reasoning.
ORDERS = {"sim.tool_calls": "1", "sim.parallel": "2", "sim.reasoning": "encrypted"}


async def loop(scene: World, spelling: Spelling, **fields: Any) -> list[tuple[Answer, int]]:
    """A loop in one spelling; each answer with the number of items that were new to upstream."""
    items: list[Item] = [user("begin")]
    told: list[tuple[Answer, int]] = []
    fresh = 1
    for number in range(TURNS):
        answer = await scene.turn(items, tools=[TOOL], metadata=ORDERS, stream=True, **fields)
        assert answer.status == 200, answer.body
        told.append((answer, fresh))
        items += [item for made in outputs(answer) if (item := spelling(made)) is not None]
        done = [made.done for made in outputs(answer)]
        new = answers(done) or [user(f"go on {number}")]
        items, fresh = items + new, len(new)
    return told


def outputs(answer: Answer) -> Sequence[Made]:
    """The output items in both versions that a streaming client sees."""
    events = answer.events()
    done = [e["item"] for e in events if e["type"] == "response.output_item.done"]
    final = events[-1]["response"]["output"]
    return [Made(one, two) for one, two in zip(done, final, strict=True)]


def assert_all_deltas(scene: World, told: list[tuple[Answer, int]]) -> None:
    """Every turn after the first was a delta that held exactly the new items."""
    assert [answer.route for answer, _ in told] == ["full"] + ["delta"] * (TURNS - 1)
    assert [create.items for create in scene.seen] == [fresh for _, fresh in told]
    assert all(create.previous_response_id for create in scene.seen[1:])


@pytest.mark.parametrize("store", [{"store": False}, {"store": None}], ids=["unstored", "stored"])
@pytest.mark.parametrize("name", SPELLINGS)
async def test_every_turn_after_the_first_is_a_delta(
    scene: World, name: str, store: dict[str, Any]
) -> None:
    assert_all_deltas(scene, await loop(scene, SPELLINGS[name], **store))


@pytest.mark.parametrize("name", STORED_SPELLINGS)
async def test_what_upstream_stores_may_be_named_by_id(scene: World, name: str) -> None:
    assert_all_deltas(scene, await loop(scene, STORED_SPELLINGS[name], store=True))


@pytest.mark.parametrize("rules", [Rules(reencrypt_reasoning=False), Rules(noise=True)])
async def test_other_upstreams_of_the_protocol_are_continued_too(
    start: Start, rules: Rules
) -> None:
    scene = await start(rules, continuation="on")
    assert_all_deltas(scene, await loop(scene, SPELLINGS["exact"]))


async def test_an_empty_output_at_the_end_does_not_stop_deltas(start: Start) -> None:
    scene = await start(Rules(empty_completed_output=True), continuation="on")
    items = [user("begin")]
    routes = []
    for _ in range(5):
        answer = await scene.turn(items, tools=[TOOL], metadata=ORDERS)
        routes.append(answer.route)
        output = answer.response()["output"]
        assert output, "a document's output is filled from the events"
        items += [*output, *(answers(output) or [user("more")])]

    assert routes == ["full"] + ["delta"] * 4


@pytest.mark.parametrize("name", [*LOSSY_SPELLINGS, "reasoning without blob"])
async def test_what_would_show_upstream_more_than_was_sent_goes_in_full(
    start: Start, name: str
) -> None:
    scene = await start(Rules(verify_reasoning=False), lanes="on", continuation="on")
    spelling = {**LOSSY_SPELLINGS, **STORED_SPELLINGS}[name]
    told = await loop(scene, spelling)

    assert {answer.route for answer, _ in told} == {"full"}
    assert {answer.reason for answer, _ in told[1:]} == {"omitted_reasoning"}
    assert len({create.connection for create in scene.seen}) == 1


@pytest.mark.parametrize("name", EDITED_SPELLINGS)
async def test_an_edit_of_the_models_words_goes_in_full(scene: World, name: str) -> None:
    orders = {**ORDERS, "sim.items": "commentary"}
    items = [user("begin")]
    first = await scene.turn(items, tools=[TOOL], metadata=orders, stream=True)
    items += [i for made in outputs(first) if (i := EDITED_SPELLINGS[name](made)) is not None]
    items += answers([made.done for made in outputs(first)])
    answer = await scene.turn(items, tools=[TOOL], metadata=orders)

    assert (answer.status, answer.route, answer.reason) == (200, "full", "history_edited")


@pytest.mark.parametrize("name", [*LOSSY_SPELLINGS, "reasoning without blob"])
async def test_an_operator_may_choose_to_continue_without_reasoning(
    start: Start, name: str
) -> None:
    scene = await start(
        Rules(verify_reasoning=False),
        lanes="on",
        continuation="on",
        omitted_reasoning="continue",
    )
    spelling = {**LOSSY_SPELLINGS, **STORED_SPELLINGS}[name]
    assert_all_deltas(scene, await loop(scene, spelling))
