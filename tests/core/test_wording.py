"""Where a request leaves what was expected: the index, the type, and what is only left out."""

from __future__ import annotations

import pytest

from tests.core.conversation_stage import Json, Stage, answers, body, calls, says, thinks, user

REASONED = [thinks("1", "b1"), thinks("2", "b2"), calls("c")]


@pytest.mark.parametrize(
    ("items", "why"),
    [
        ([thinks("2", "b2"), calls("c")], "omitted_reasoning; index=1"),
        ([calls("c")], "omitted_reasoning; index=1"),
        ([thinks("1"), thinks("2", "b2"), calls("c")], "omitted_reasoning; index=1"),
        ([thinks("1", "b1"), calls("c")], "omitted_reasoning; index=2"),
        ([thinks("1", "b?"), *REASONED[1:]], "history_edited; index=1; type=reasoning"),
        ([thinks("9"), *REASONED[1:]], "history_edited; index=1; type=reasoning"),
        ([REASONED[0], thinks("2", "b?"), calls("c")], "history_edited; index=2; type=reasoning"),
    ],
    ids=["first", "both", "a blob", "second", "another blob", "another id", "second's blob"],
)
def test_reasoning_that_is_left_out_is_told_from_reasoning_that_differs(
    items: list[Json], why: str
) -> None:
    stage = Stage()
    stage.run(body([user("q")]), list(REASONED), "r1")
    assert stage.look(body([user("q"), *items, answers("c")])).why == why


@pytest.mark.parametrize("at", [1, 2], ids=["of the model", "of the client"])
def test_an_item_that_cannot_be_read_in_one_way_is_nobodys_echo(at: int) -> None:
    stage = Stage()
    stage.run(body([user("q")]), [says("a")])
    items: list[Json | bytes] = [user("q"), says("a"), user("p"), says("b")]
    stage.run(body(items[:3]), [says("b")])
    items[at] = b'{"role":"user","content":"p","content":"p"}'
    seen = stage.look(body([*items, user("on")]))
    assert (seen.parent, seen.why) == (None, f"history_edited; index={at}; type=opaque")


def test_a_first_item_in_other_words_begins_a_new_conversation() -> None:
    stage = Stage()
    stage.run(body([user("q")]), [says("a")])
    parts = {"role": "user", "content": [{"type": "input_text", "text": "q"}]}
    assert stage.look(body([parts, says("a"), user("on")])).why == "new_conversation"
