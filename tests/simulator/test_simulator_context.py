"""The effective context: pairing, duplicates, references, what is read off it."""

from __future__ import annotations

from typing import Any

import pytest

from wsproxy.simulator.canonical import seal
from wsproxy.simulator.context import Context, ContextRules
from wsproxy.simulator.errors import ApiError

USER = {"role": "user", "content": "go"}
CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
ANSWER = {"type": "function_call_output", "call_id": "c1", "output": "ok"}
CUSTOM = {"type": "custom_tool_call", "call_id": "c1", "name": "f", "input": ""}
KNOWN = {"rs_known": {"id": "rs_known", "type": "reasoning", "summary": []}}


def context_of(*items: dict[str, Any]) -> Context:
    return Context().extended(items, KNOWN.get, ContextRules())


REFUSED = {
    "answer without call": ([USER, ANSWER], 400, "No tool call found for function call output"),
    "answer before call": ([ANSWER, CALL], 400, "No tool call found"),
    "answered twice": ([CALL, ANSWER, ANSWER], 400, "No tool call found"),
    "answer of another kind": ([CUSTOM, ANSWER], 400, "No tool call found"),
    "duplicate id": ([{**USER, "id": "m"}, {**USER, "id": "m"}], 400, "Duplicate item found"),
    "unknown reference": ([{"type": "item_reference", "id": "x"}], 404, "not found"),
    "thought that was not stored": (
        [{"type": "reasoning", "id": "rs_x", "summary": []}],
        404,
        "not persisted",
    ),
    "foreign blob": (
        [{"type": "reasoning", "encrypted_content": "gAAAfoo", "summary": []}],
        400,
        "could not be verified",
    ),
    "not an object": (["text"], 400, "Invalid type"),
    "neither type nor role": ([{"content": "x"}], 400, "Missing required parameter"),
    "unknown role": ([{"role": "robot", "content": "x"}], 400, "Invalid value"),
    "message without content": ([{"role": "user"}], 400, "Invalid type"),
    "approval of nothing": (
        [{"type": "mcp_approval_response", "approval_request_id": "x", "approve": True}],
        400,
        "No approval request",
    ),
}


@pytest.mark.parametrize(("items", "status", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_a_context_the_service_would_refuse_is_refused(
    items: list[Any], status: int, words: str
) -> None:
    with pytest.raises(ApiError, match=words) as refused:
        context_of(*items)

    assert refused.value.status == status


def test_a_call_without_its_output_is_named() -> None:
    with pytest.raises(ApiError, match="No tool output found for function call c1"):
        context_of(USER, CALL).check_answered()


def test_answered_calls_and_known_thoughts_pass() -> None:
    blob = {"type": "reasoning", "summary": [], "encrypted_content": seal(bytes(25), "done")}

    context = context_of(USER, KNOWN["rs_known"], blob, CALL, ANSWER)

    context.check_answered()
    assert context.answers_since_user == 1


def test_a_reference_counts_as_the_item_it_names() -> None:
    by_reference = context_of(USER, {"type": "item_reference", "id": "rs_known"})

    assert by_reference.mark == context_of(USER, KNOWN["rs_known"]).mark


def test_a_chain_of_deltas_has_the_mark_of_the_whole() -> None:
    rules = ContextRules()
    chained = context_of(USER).extended([CALL, ANSWER], KNOWN.get, rules)
    chained = chained.extended([USER], KNOWN.get, rules)

    whole = context_of(USER, CALL, ANSWER, USER)

    assert chained == whole
    assert chained.marks[0] == context_of(USER).mark


def test_a_user_message_starts_the_count_of_answers_anew_and_gives_orders() -> None:
    text = [{"type": "input_text", "text": "x [sim tool_calls=3 parallel=2] y"}]

    context = context_of(USER, CALL, ANSWER, {"role": "user", "content": text})

    assert context.answers_since_user == 0
    assert context.orders == {"tool_calls": "3", "parallel": "2"}
