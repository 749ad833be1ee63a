"""What the model sees of an item, however it was spelled."""

from __future__ import annotations

from typing import Any

import pytest

from wsproxy.simulator.canonical import meaning, seal, strict_json, unseal

IDENTITY = bytes(range(25))
TEXT = {"type": "output_text", "annotations": [], "logprobs": [], "text": "hi"}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "status": "completed",
    "content": [TEXT],
    "role": "assistant",
}
CALL = {
    "id": "fc_1",
    "type": "function_call",
    "status": "completed",
    "arguments": '{"a":1,"b":[true]}',
    "call_id": "call_1",
    "name": "f",
}
THOUGHT = {
    "id": "rs_" + IDENTITY.hex(),
    "type": "reasoning",
    "summary": [],
    "encrypted_content": seal(IDENTITY, "done"),
}


def without(item: dict[str, Any], *names: str, **changed: Any) -> dict[str, Any]:
    return {**{name: value for name, value in item.items() if name not in names}, **changed}


SAME = {
    "message without ids": (MESSAGE, without(MESSAGE, "id", "status")),
    "message without annotations": (
        MESSAGE,
        without(MESSAGE, content=[{"type": "output_text", "text": "hi"}]),
    ),
    "message as text": (MESSAGE, {"role": "assistant", "content": "hi"}),
    "message without type": (MESSAGE, without(MESSAGE, "type")),
    "phase null": (MESSAGE, without(MESSAGE, phase=None)),
    "call without ids": (CALL, without(CALL, "id", "status")),
    "arguments spaced and reordered": (CALL, without(CALL, arguments='{ "b": [true], "a": 1 }')),
    "arguments of equal decimal value": (CALL, without(CALL, arguments='{"a":1.0,"b":[true]}')),
    "reasoning by the other blob": (
        THOUGHT,
        without(THOUGHT, "id", encrypted_content=seal(IDENTITY, "completed")),
    ),
    "reasoning with null content": (THOUGHT, without(THOUGHT, content=None)),
    "user message without type": (
        {"type": "message", "role": "user", "content": "x"},
        {"role": "user", "content": "x"},
    ),
}
DIFFERENT = {
    "another text": (MESSAGE, {"role": "assistant", "content": "hi "}),
    "phase lost": (without(MESSAGE, phase="commentary"), MESSAGE),
    "another argument": (CALL, without(CALL, arguments='{"a":2,"b":[true]}')),
    "true is not 1": (CALL, without(CALL, arguments='{"a":true,"b":[true]}')),
    "another call id": (CALL, without(CALL, call_id="call_2")),
    "another thought": (
        THOUGHT,
        without(THOUGHT, encrypted_content=seal(bytes(25), "done")),
    ),
    "user text as a part": (
        {"role": "user", "content": "x"},
        {"role": "user", "content": [{"type": "input_text", "text": "x"}]},
    ),
    "user number by type": ({"role": "user", "n": 1}, {"role": "user", "n": 1.0}),
    "output spelled otherwise": (
        {"type": "function_call_output", "call_id": "c", "output": '{"a":1}'},
        {"type": "function_call_output", "call_id": "c", "output": '{"a": 1}'},
    ),
}


@pytest.mark.parametrize(("one", "other"), SAME.values(), ids=SAME.keys())
def test_an_echo_in_another_spelling_means_the_same(one: Any, other: Any) -> None:
    assert meaning(one) == meaning(other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT.values(), ids=DIFFERENT.keys())
def test_what_the_model_could_tell_apart_means_something_else(one: Any, other: Any) -> None:
    assert meaning(one) != meaning(other)


def test_two_blobs_of_one_thought_differ_and_open_to_the_same_identity() -> None:
    done, completed = seal(IDENTITY, "done"), seal(IDENTITY, "completed")

    assert done != completed
    assert unseal(done) == unseal(completed) == IDENTITY


@pytest.mark.parametrize("blob", ["", "gAAAAAB", "gAAAAABxyz", "é", "gAAAAAB" + "A" * 160])
def test_a_blob_that_is_not_ours_does_not_open(blob: str) -> None:
    assert unseal(blob) is None


def test_one_flipped_character_breaks_the_seal() -> None:
    blob = seal(IDENTITY, "done")
    broken = blob[:30] + ("A" if blob[30] != "A" else "B") + blob[31:]

    assert unseal(broken) is None


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "1e400", "{", "[1]x", "[" * 100_000])
def test_what_strict_json_refuses_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        strict_json(text)
