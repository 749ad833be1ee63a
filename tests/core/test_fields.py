"""Which members may change between a checkpoint and what continues it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pytest

from tests.core.conversation_stage import KEY, OTHER_KEY, Json, Stage, body, says, user
from wsproxy.config import Settings
from wsproxy.core.api.request import Member, UnfitError, parse
from wsproxy.core.conversation.fields import FieldReader, changed

CHANGEABLE: Final = Settings().changeable_fields
#: Members of the API that are not on the list, and one that nobody knows yet.
FIXED: Final = """model instructions tools reasoning text include store truncation user conversation
context_management prompt safety_identifier moderation of_the_future""".split()


def continued(before: Json, after: Json) -> str:
    stage = Stage()
    stage.run(body([user("q")], **before), [says("a")], "r1")
    seen = stage.look(body([user("q"), says("a"), user("on")], **after))
    return seen.parent or seen.why


@pytest.mark.parametrize("name", CHANGEABLE)
def test_a_member_on_the_list_may_change_come_and_go(name: str) -> None:
    one, other = (False, True) if name == "stream" else ({"a": 1}, {"b": 2})
    assert continued({name: one}, {name: other}) == "r1"
    assert continued({}, {name: other}) == "r1"
    assert continued({name: one}, {}) == "r1"
    assert continued({name: None}, {name: other}) == "r1"


def test_the_list_is_the_contracts() -> None:
    assert set(CHANGEABLE) == set(
        """client_metadata metadata max_output_tokens max_tool_calls parallel_tool_calls tool_choice
        temperature top_p top_logprobs service_tier stream stream_options prompt_cache_key
        prompt_cache_options prompt_cache_retention""".split()
    )


@pytest.mark.parametrize("name", FIXED)
def test_every_other_member_must_stay(name: str) -> None:
    why = f"fields_changed; fields={name}"
    kept: Any = None if name == "conversation" else {"a": 1, "b": [1.0, None]}
    assert continued({name: kept}, {name: kept}) == "r1"
    if name != "conversation":
        assert continued({name: kept}, {name: {"a": 1, "b": [1, None]}}) == why
        assert continued({name: kept}, {name: {"a": True, "b": [1.0, None]}}) == why
        assert continued({name: kept}, {name: {"a": 1, "b": [1.0]}}) == why
        assert continued({name: {"a": 1, "b": None}}, {name: {"b": None, "a": 1}}) == "r1"


@pytest.mark.parametrize("name", sorted(set(FIXED) - {"model", "store"}))
def test_absent_is_not_null(name: str) -> None:
    why = f"fields_changed; fields={name}"
    assert continued({}, {name: None}) == why
    assert continued({name: None}, {}) == why


@pytest.mark.parametrize("name", ["previous_response_id", "background", "stream"])
def test_what_only_says_how_the_turn_travels_may_be_null_or_absent(name: str) -> None:
    assert continued({name: None}, {}) == continued({}, {name: None}) == "r1"


def test_an_operator_may_choose_the_list() -> None:
    stage = Stage(reader=FieldReader(["instructions"]))
    stage.run(body([user("q")], instructions="a", metadata=1), [says("a")], "r1")
    following = [user("q"), says("a"), user("on")]
    assert stage.look(body(following, instructions="b", metadata=1)).parent == "r1"
    seen = stage.look(body(following, instructions="b", metadata=2))
    assert seen.why == "fields_changed; fields=metadata"


@pytest.mark.parametrize("pad", ["", "x" * 100], ids=["short", "long"])
def test_a_value_is_compared_by_what_it_means(pad: str) -> None:
    reader = FieldReader([])
    one, two, other = (
        reader.read(KEY, parse(raw % pad.encode()))
        for raw in (
            b'{"tools":[{"a":1,"b":"\xc3\xa9%s"}]}',
            b'{"tools": [ {"b":"\\u00e9%s", "a":1} ]}',
            b'{"tools":[{"a":1.0,"b":"\xc3\xa9%s"}]}',
        )
    )
    assert changed(one, two) == ()
    assert changed(one, other) == ["tools"]
    assert one == reader.read(KEY, parse(b'{"tools":[{"a":1,"b":"\xc3\xa9%s"}]}' % pad.encode()))


def test_a_value_with_a_name_twice_equals_its_own_spelling_only() -> None:
    reader = FieldReader([])
    one = reader.read(KEY, parse(b'{"text":{"a":1,"a":2}}'))
    assert changed(one, reader.read(KEY, parse(b'{"text":{"a":1,"a":2}}'))) == ()
    assert changed(one, reader.read(KEY, parse(b'{"text":{"a":1, "a":2}}'))) == ["text"]


def test_the_memory_of_values_is_each_keys_own() -> None:
    reader = FieldReader([])
    request = parse(b'{"tools":[%s]}' % b",".join([b"1"] * 50))
    assert reader.read(KEY, request) == reader.read(OTHER_KEY, request)
    assert len(reader._values) == 2


def test_a_value_that_a_strict_parser_refuses_is_for_https() -> None:
    request = replace(parse(b"{}"), members={"top_p": Member(b'"top_p"', b"1e400")})
    with pytest.raises(UnfitError, match="unparsed"):
        FieldReader([]).read(KEY, request)


def test_changed_names_are_sorted() -> None:
    reader = FieldReader([])
    before = reader.read(KEY, parse(b'{"b":1,"a":1,"c":1}'))
    after = reader.read(KEY, parse(b'{"c":1,"d":1,"a":2}'))
    assert changed(before, after) == ["a", "b", "d"]
