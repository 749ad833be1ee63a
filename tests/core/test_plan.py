"""What may follow a checkpoint, and what is said where nothing may."""

from __future__ import annotations

from typing import Any, Final

import pytest

from tests.core.conversation_stage import Json, Stage, answers, body, calls, says, system, user
from tests.core.conversation_stage import without as less
from wsproxy.core.api.items import ANSWERS, Pairing
from wsproxy.core.conversation.plan import Route, Why, are_paired, safe
from wsproxy.core.conversation.wording import Difference


def call_of(kind: str, key: str, **members: Any) -> Json:
    """A call of any kind in the table, as the model's output has it."""
    item: Json = {"type": kind, "id": key, "execution": "client", **members}
    return item | ({} if ANSWERS[kind][0] == "id" else {"call_id": key})


def answer_of(kind: str, key: str) -> Json:
    _, answer, keys = ANSWERS[kind]
    return {"type": answer, keys[0]: key, "output": "o"}


def verdict(outputs: list[Json], delta: list[Json]) -> str:
    """What becomes of a request that echoes these outputs and adds this delta."""
    stage = Stage()
    stage.run(body([user("q")]), list(outputs), "r1")
    seen = stage.look(body([user("q"), *outputs, *delta]))
    assert seen.plan.candidates == () or seen.delta_from == 1 + len(outputs)
    return seen.parent or seen.why


@pytest.mark.parametrize("kind", ANSWERS)
def test_each_call_needs_exactly_one_answer_of_its_kind(kind: str) -> None:
    a, b = call_of(kind, "a"), call_of(kind, "b")
    to_a, to_b = answer_of(kind, "a"), answer_of(kind, "b")
    assert verdict([a], [to_a]) == "r1"
    assert verdict([a], [to_a, user("and")]) == "r1"
    assert verdict([a], [user("and"), to_a]) == "r1"
    assert verdict([a, b], [to_b, to_a]) == "r1"
    assert verdict([a], [user("and")]) == "unanswered_call"
    assert verdict([a, b], [to_a]) == "unanswered_call"
    assert verdict([a], [to_a, to_a]) == "unanswered_call"
    assert verdict([a], [to_a, to_b]) == "unanswered_call"
    assert verdict([a], [to_b]) == "unanswered_call"
    assert verdict([a, a], [to_a]) == "unanswered_call"
    assert verdict([a, a], [to_a, to_a]) == "unanswered_call"
    assert verdict([says("x")], [to_a]) == "unanswered_call"


@pytest.mark.parametrize("kind", ANSWERS)
def test_an_answer_of_another_kind_is_none(kind: str) -> None:
    for other in ANSWERS.keys() - {kind}:
        assert verdict([call_of(kind, "a")], [answer_of(other, "a")]) == "unanswered_call"


@pytest.mark.parametrize("kind", ["shell_call", "apply_patch_call", "tool_search_call"])
def test_a_call_answered_in_its_own_response_needs_no_other(kind: str) -> None:
    call, answer = call_of(kind, "a"), answer_of(kind, "a")
    assert verdict([call, answer], [user("and")]) == "r1"
    assert verdict([call, answer], [answer]) == "unanswered_call"


HOSTED: Final[list[Json]] = [
    {"type": "web_search_call", "id": "i", "action": {"type": "search", "query": "q"}},
    {"type": "file_search_call", "id": "i", "queries": ["q"], "results": None},
    {"type": "code_interpreter_call", "id": "i", "code": "1", "container_id": "c"},
    {"type": "image_generation_call", "id": "i", "result": "r"},
    {"type": "mcp_call", "id": "i", "arguments": "{}", "name": "n", "server_label": "s"},
    {"type": "mcp_list_tools", "id": "i", "server_label": "s", "tools": []},
    {"type": "tool_search_call", "id": "i", "execution": "server", "call_id": None},
    {"type": "compaction", "id": "i", "encrypted_content": "b"},
]


@pytest.mark.parametrize("item", HOSTED, ids=lambda item: item["type"])
def test_hosted_calls_need_no_answer(item: Json) -> None:
    assert verdict([item], [user("and")]) == "r1"
    assert verdict([item, says("x")], [system("and")]) == "r1"


FOREIGN: Final[list[tuple[str, Json | Any]]] = [
    ("message", {"role": "assistant", "content": "x"}),
    ("message", {"role": "critic", "content": "x"}),
    ("reasoning", {"type": "reasoning", "summary": []}),
    ("function_call", calls("z")),
    ("item_reference", {"type": "item_reference", "id": "msg_a"}),
    ("additional_tools", {"type": "additional_tools", "tools": []}),
    ("compaction_trigger", {"type": "compaction_trigger"}),
    ("configuration_update", {"type": "configuration_update"}),
    ("function_call_output", {"type": "function_call_output", "output": "x"}),
    ("odd?type?", {"type": "odd\r\ntype\n"[:3] + " type\u20ac"}),
    ("opaque", {"id": "msg_a"}),
    ("opaque", 7),
]


@pytest.mark.parametrize(
    ("kind", "item"), FOREIGN, ids=[f"{n} {row[0]}" for n, row in enumerate(FOREIGN)]
)
def test_whatever_else_is_new_sends_the_turn_in_full(kind: str, item: Any) -> None:
    stage = Stage()
    stage.run(body([user("q")], store=True), [says("a")], "r1")
    seen = stage.look(body([user("q"), says("a"), user("and"), item, user("so")], store=True))
    assert (seen.parent, seen.why) == (None, f"foreign_item; index=3; type={kind}")


def test_what_was_foreign_once_is_foreign_again() -> None:
    stage = Stage()
    stage.run(body([user("q")]), [says("a")], "r1")
    request = body([user("q"), says("a"), {"type": "additional_tools", "tools": []}])
    for _ in range(2):
        assert stage.run(request, [says("b")]).why == "foreign_item; index=2; type=additional_tools"


def test_a_call_of_an_earlier_response_cannot_be_answered_now() -> None:
    stage = Stage()
    approval = call_of("mcp_approval_request", "m")
    stage.run(body([user("q"), approval, answers("x")]), [says("a")], "r1")
    seen = stage.look(
        body([user("q"), approval, answers("x"), says("a"), answer_of("mcp_approval_request", "m")])
    )
    assert seen.why == "unanswered_call"


@pytest.mark.parametrize(
    "members",
    [{"previous_response_id": "resp_0"}, {"conversation": "conv_0"}],
    ids=lambda members: next(iter(members)),
)
def test_a_client_that_chains_by_itself_is_left_alone(members: Json) -> None:
    stage = Stage()
    stage.run(body([user("q")]), [says("a")], "r1")
    seen = stage.look(body([user("q"), says("a"), user("on")], **members))
    assert (seen.plan.candidates, seen.why) == ((), "own_context")


def test_changed_fields_are_named_a_few_of_them() -> None:
    stage = Stage()
    stage.run(body([user("q")], tools=[]), [says("a")], "r1")
    following = [user("q"), says("a"), user("on")]
    seen = stage.look(body(following, tools=[1], **{"a\nb": 1}))
    assert seen.why == "fields_changed; fields=a?b,tools"
    many = {f"f{n}": n for n in range(20)}
    assert stage.look(body(following, **many)).why.count(",") == 7


def test_the_first_sound_candidate_wins_over_a_longer_one_that_is_not() -> None:
    stage = Stage()
    stage.run(body([user("q")], tools=[]), [says("a")], "old tools")
    stage.run(body([user("q")], tools=[1]), [says("a")], "new tools")
    following = [user("q"), says("a"), user("on")]
    assert stage.look(body(following, tools=[])).parent == "old tools"
    assert stage.look(body(following, tools=[1])).parent == "new tools"
    assert stage.look(body(following)).why == "fields_changed; fields=tools"


def test_a_response_without_output_leaves_two_ways_to_go_on() -> None:
    stage = Stage()
    stage.run(body([user("q")]), [says("a")], "r1")
    stage.run(body([user("q"), says("a"), user("p")]), [], "r2")
    seen = stage.look(body([user("q"), says("a"), user("p"), user("o")]))
    found = [(c.checkpoint.response_id, c.delta_from) for c in seen.plan.candidates]
    assert found == [("r2", 3), ("r1", 2)]
    assert seen.why == "parent_evicted"


def test_a_delta_never_holds_what_the_model_made() -> None:
    stage = Stage()
    hosted = {"type": "tool_search_output", "call_id": "s", "tools": [], "id": "i"}
    stage.run(body([user("q")]), [], "r1")
    stage.run(body([user("q"), user("p")]), [less(hosted, "call_id"), hosted], "r2")
    seen = stage.look(body([user("q"), user("p"), less(hosted, "call_id"), hosted, user("o")]))
    assert [c.checkpoint.response_id for c in seen.plan.candidates] == ["r2"]


@pytest.mark.parametrize(
    ("calls_", "answers_", "is_whole"),
    [("", "", True), ("a", "a", True), ("ab", "ba", True), ("a", "", False), ("", "a", False),
     ("a", "b", False), ("a", "aa", False), ("aa", "aa", False), ("aa", "a", False)],
)  # fmt: skip
def test_pairing_is_one_to_one(calls_: str, answers_: str, is_whole: bool) -> None:
    def pairings(keys: str) -> list[Pairing]:
        return [Pairing("function_call", key) for key in keys]

    assert are_paired(pairings(calls_), pairings(answers_)) is is_whole


def test_a_reason_is_fit_for_a_header() -> None:
    about = (("index", "1"), ("type", safe("a\r\nb: c\u20ac" + "x" * 200)))
    assert str(Why("history_edited", about)) == (
        f"reason=history_edited; index=1; type=a??b??c?{'x' * 56}"
    )
    assert str(Why("busy")) == "reason=busy"
    assert {route.value for route in Route} == {"delta", "fork", "full", "http", "none"}


def test_a_difference_prints_for_the_log() -> None:
    assert repr(Difference(3, "message")) == (
        "Difference(index=3, type='message', is_omitted_reasoning=False)"
    )
