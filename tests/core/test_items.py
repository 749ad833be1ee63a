"""What is the same item, in each spelling that clients have, and what is not."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest

from tests.core.conversation_stage import Json, Output, Stage, body, calls, says, thinks, user
from tests.core.conversation_stage import without as less
from wsproxy.core.api.canonical import NotStrictError
from wsproxy.core.api.items import (
    ANSWERS,
    ECHO_RULES,
    Held,
    Pairing,
    hold,
    is_echo,
    is_known_output,
    read_item,
    read_text,
)

MESSAGE: Final = says("yes")
CITED: Final = says(
    "yes",
    content=[
        {
            "type": "output_text",
            "text": "yes",
            "annotations": [{"type": "url_citation", "url": "u", "title": None}],
            "logprobs": [{"token": "yes", "logprob": -0.5}],
        }
    ],
)
CALL: Final = calls("c1", '{"a": 1.0, "b": [true, null], "c": "\\u00e9"}')
SEALED: Final = (thinks("1", "done", content=[]), thinks("1", "completed", content=[]))
UNSEALED: Final = thinks("1")
CUSTOM: Final[Json] = {
    "id": "i",
    "type": "custom_tool_call",
    "call_id": "c",
    "name": "n",
    "input": "{}",
}
SEARCH: Final[Json] = {
    "id": "ws_1",
    "type": "web_search_call",
    "status": "completed",
    "action": {"type": "search", "query": "q", "sources": None},
    "created_by": "m",
}
TOOLS: Final[Json] = {
    "id": "mcpl_1",
    "type": "mcp_list_tools",
    "server_label": "s",
    "error": None,
    "tools": [{"name": "t", "description": None, "input_schema": {"default": None, "x": 1}}],
}
APPROVAL: Final[Json] = {
    "id": "mcpr_1",
    "type": "mcp_approval_request",
    "arguments": '{"a":1}',
    "name": "n",
    "server_label": "s",
}
COMPACTION: Final[Json] = {"id": "cmp_1", "type": "compaction", "encrypted_content": "blob"}
SHORT: Final = says("", content=[])
REFUSAL: Final = says("", content=[{"type": "refusal", "refusal": "no"}])


def parts(*texts: str, **members: Any) -> Json:
    return {"content": [{"type": "output_text", "text": text, **members} for text in texts]}


def spelled(item: Json | bytes) -> bytes:
    return item if isinstance(item, bytes) else json.dumps(item).encode()


def held_of(output: Output) -> Held:
    versions = output if isinstance(output, tuple) else (output,)
    return hold([read_item(spelled(version)) for version in versions])


SAME: Final[list[tuple[str, Output, Json | bytes]]] = [
    ("as it was", MESSAGE, MESSAGE),
    ("id left out", MESSAGE, less(MESSAGE, "id")),
    ("id null", MESSAGE, {**MESSAGE, "id": None}),
    ("status left out", MESSAGE, less(MESSAGE, "status")),
    ("status null", MESSAGE, {**MESSAGE, "status": None}),
    ("status added", less(MESSAGE, "status"), {**MESSAGE, "status": "completed"}),
    ("status completed", {**MESSAGE, "status": "in_progress"}, MESSAGE),
    ("status as it was", {**MESSAGE, "status": "in_progress"},
        {**MESSAGE, "status": "in_progress"}),
    ("created_by left out", SEARCH, less(SEARCH, "created_by")),
    ("typeless message", MESSAGE, less(MESSAGE, "type")),
    ("type null", MESSAGE, {**MESSAGE, "type": None}),
    ("string content", MESSAGE, {"role": "assistant", "content": "yes"}),
    ("string content of a cited text", CITED, {"role": "assistant", "content": "yes"}),
    ("annotations left out", CITED, {**MESSAGE, **parts("yes", logprobs=[])}),
    ("annotations null", CITED, {**MESSAGE, **parts("yes", annotations=None)}),
    ("annotations and logprobs kept", CITED, CITED),
    ("annotations empty", CITED, MESSAGE),
    ("logprobs alone kept", CITED,
        {**CITED, "content": [less(CITED["content"][0], "annotations")]}),
    ("a null inside an annotation left out", CITED, json.dumps(CITED).replace(
        ', "title": null', "").encode()),
    ("null phase left out", {**MESSAGE, "phase": None}, MESSAGE),
    ("null phase added", MESSAGE, {**MESSAGE, "phase": None}),
    ("phase kept", {**MESSAGE, "phase": "final_answer"}, {**MESSAGE, "phase": "final_answer"}),
    ("other key order", MESSAGE, dict(reversed(MESSAGE.items()))),
    ("escapes", says("é"), json.dumps(says("é"), ensure_ascii=False).encode()),
    ("no content", SHORT, SHORT),
    ("refusal", REFUSAL, less(REFUSAL, "id", "status")),
    ("two parts", {**MESSAGE, **parts("a", "b")}, {"role": "assistant", **parts("a", "b")}),
    ("arguments closer", CALL, {**CALL, "arguments": '{"a":1.0,"b":[true,null],"c":"é"}'}),
    ("arguments in other order", CALL, {**CALL, "arguments": '{"c":"é","b":[true,null],"a":1.0}'}),
    ("arguments 1", CALL, {**CALL, "arguments": '{"a":1,"b":[true,null],"c":"é"}'}),
    ("arguments 1e0", CALL, {**CALL, "arguments": '{"a":1e0,"b":[true,null],"c":"é"}'}),
    ("arguments 10e-1", CALL, {**CALL, "arguments": '{"a":10E-1,"b":[true,null],"c":"é"}'}),
    ("call bare", CALL, less(CALL, "id", "status")),
    ("null namespace", {**CALL, "namespace": None}, CALL),
    ("arguments not JSON", calls("c", "{oops"), calls("c", "{oops")),
    ("arguments empty", calls("c", ""), calls("c", "")),
    ("arguments twice the name", calls("c", '{"a":1,"a":2}'), calls("c", '{"a":1,"a":2}')),
    ("arguments out of range", calls("c", "1e999"), calls("c", "1e999")),
    ("arguments far too small", calls("c", "1e-99999999999999999999"), calls(
        "c", "1e-99999999999999999999")),
    ("arguments deep", calls("c", "[" * 5000 + "]" * 5000), calls("c", "[" * 5000 + "]" * 5000)),
    ("arguments a lone surrogate", calls("c", '{"a":"\ud83d"}'), calls("c", '{"a":"\ud83d"}')),
    ("custom call bare", CUSTOM, less(CUSTOM, "id")),
    ("reasoning as done", SEALED, SEALED[0]),
    ("reasoning as completed", SEALED, SEALED[1]),
    ("reasoning without id", SEALED, less(SEALED[0], "id")),
    ("reasoning with another id", SEALED, {**SEALED[0], "id": "rs_other"}),
    ("reasoning without content", SEALED, less(SEALED[0], "content")),
    ("reasoning content null", SEALED, {**SEALED[0], "content": None}),
    ("reasoning status added", SEALED, {**SEALED[0], "status": "completed"}),
    ("reasoning another summary", SEALED, {**SEALED[0], "summary": [{"text": "other"}]}),
    ("hosted call bare", SEARCH, less(SEARCH, "id", "status", "created_by")),
    ("deep null left out", SEARCH, {**SEARCH, "action": {"type": "search", "query": "q"}}),
    ("null in a tool left out", TOOLS, {**less(TOOLS, "error"), "tools": [
        less(TOOLS["tools"][0], "description")]}),
    ("approval", APPROVAL, {**APPROVAL, "arguments": '{ "a": 1 }'}),
    ("compaction", COMPACTION, less(COMPACTION, "id")),
]  # fmt: skip


@pytest.mark.parametrize("is_stored", [True, False], ids=["stored", "not stored"])
@pytest.mark.parametrize(
    ("output", "echo"), [row[1:] for row in SAME], ids=[row[0] for row in SAME]
)
def test_every_spelling_of_an_echo_is_recognised(
    output: Output, echo: Json | bytes, is_stored: bool
) -> None:
    assert is_echo(held_of(output), read_item(spelled(echo)), is_stored=is_stored)


OTHER: Final[list[tuple[str, Output, Json | bytes]]] = [
    ("other text", MESSAGE, says("no", id="msg_yes")),
    ("other id", MESSAGE, {**MESSAGE, "id": "msg_other"}),
    ("an id that there was not", less(MESSAGE, "id"), MESSAGE),
    ("other status", MESSAGE, {**MESSAGE, "status": "incomplete"}),
    ("a status that there was not", less(MESSAGE, "status"), {**MESSAGE, "status": "incomplete"}),
    ("other created_by", SEARCH, {**SEARCH, "created_by": "n"}),
    ("phase left out", {**MESSAGE, "phase": "commentary"}, MESSAGE),
    ("phase added", MESSAGE, {**MESSAGE, "phase": "commentary"}),
    ("other phase", {**MESSAGE, "phase": "a"}, {**MESSAGE, "phase": "b"}),
    ("other role", MESSAGE, {**MESSAGE, "role": "user"}),
    ("no role", MESSAGE, less(MESSAGE, "role")),
    ("other type", MESSAGE, {**MESSAGE, "type": "text"}),
    ("added member", MESSAGE, {**MESSAGE, "extra": 0}),
    ("other string content", MESSAGE, {"role": "assistant", "content": "yes "}),
    ("two texts as one", {**MESSAGE, **parts("a", "b")}, {"role": "assistant", "content": "ab"}),
    ("parts in other order", {**MESSAGE, **parts("a", "b")}, {**MESSAGE, **parts("b", "a")}),
    ("other part type", MESSAGE, {**MESSAGE, "content": [{"type": "input_text", "text": "yes"}]}),
    ("refusal as text", REFUSAL, {"role": "assistant", "content": "no"}),
    ("annotations altered", CITED, json.dumps(CITED).replace('"u"', '"v"').encode()),
    ("annotations added", MESSAGE, CITED),
    ("annotations on another part",
        {**MESSAGE, "content": [*CITED["content"], *parts("b")["content"]]},
        {**MESSAGE, "content": [*parts("yes")["content"],
                                {**CITED["content"][0], "text": "b", "logprobs": []}]}),
    ("logprobs altered", CITED, json.dumps(CITED).replace("-0.5", "-0.50").encode()),
    ("a name twice", MESSAGE, spelled(MESSAGE)[:-1] + b',"status":"completed"}'),
    ("other name", CALL, {**CALL, "name": "walk"}),
    ("other call_id", CALL, {**CALL, "call_id": "c2"}),
    ("arguments other value", CALL, {**CALL, "arguments": '{"a":2,"b":[true,null],"c":"é"}'}),
    ("arguments a digit more", calls("c", "1.00000000000000000001"), calls("c", "1")),
    ("arguments beyond a double", calls("c", "9007199254740993"), calls("c", "9007199254740992")),
    ("arguments minus zero", calls("c", "-0"), calls("c", "0")),
    ("arguments a number as text", calls("c", "1"), calls("c", '"1"')),
    ("arguments true for 1", calls("c", "true"), calls("c", "1")),
    ("arguments a null less", calls("c", '{"a":null}'), calls("c", "{}")),
    ("arguments a list longer", calls("c", "[1]"), calls("c", "[1,1]")),
    ("arguments once the name", calls("c", '{"a":1,"a":2}'), calls("c", '{"a":2}')),
    ("arguments twice, spaced", calls("c", '{"a":1,"a":2}'), calls("c", '{"a":1, "a":2}')),
    ("arguments not JSON, spaced", calls("c", "{oops"), calls("c", "{ oops")),
    ("arguments out of range", calls("c", "1e999"), calls("c", "10e998")),
    ("arguments no longer a string", calls("c", '{"a":1}'), {**calls("c"), "arguments": {"a": 1}}),
    ("arguments dressed up", calls("c", "1"), {**calls("c"), "arguments": ["json", "1e0"]}),
    ("namespace left out", {**CALL, "namespace": "n"}, CALL),
    ("custom input spaced", CUSTOM, {**CUSTOM, "input": "{ }"}),
    ("other blob", SEALED, {**SEALED[0], "encrypted_content": "forged"}),
    ("blob added, same id", UNSEALED, {**UNSEALED, "encrypted_content": "forged"}),
    ("reasoning for a message", MESSAGE, SEALED[0]),
    ("a message for reasoning", SEALED, MESSAGE),
    ("summary alone", {**UNSEALED, "summary": [{"text": "s"}]},
        {"type": "reasoning", "summary": [{"text": "s"}]}),
    ("empty blobs prove nothing", {**UNSEALED, "encrypted_content": ""},
        {"type": "reasoning", "summary": [], "encrypted_content": ""}),
    ("other query", SEARCH, {**SEARCH, "action": {"type": "search", "query": "p"}}),
    ("null in a schema left out", TOOLS, {**TOOLS, "tools": [
        {**TOOLS["tools"][0], "input_schema": {"x": 1}}]}),
    ("1.0 for 1 in a schema", TOOLS, json.dumps(TOOLS).replace('"x": 1', '"x": 1.0').encode()),
    ("approval without its id", APPROVAL, less(APPROVAL, "id")),
    ("compaction pruned", COMPACTION, less(COMPACTION, "encrypted_content")),
    ("not an object", MESSAGE, b'"yes"'),
    ("reference to another", MESSAGE, {"type": "item_reference", "id": "msg_other"}),
    ("reference to what has no id", less(MESSAGE, "id"),
        {"type": "item_reference", "id": "msg_yes"}),
]  # fmt: skip


@pytest.mark.parametrize("is_stored", [True, False], ids=["stored", "not stored"])
@pytest.mark.parametrize(
    ("output", "echo"), [row[1:] for row in OTHER], ids=[row[0] for row in OTHER]
)
def test_no_near_miss_is_taken_for_an_echo(
    output: Output, echo: Json | bytes, is_stored: bool
) -> None:
    assert not is_echo(held_of(output), read_item(spelled(echo)), is_stored=is_stored)


@pytest.mark.parametrize(
    ("output", "echo"),
    [
        (SEALED, less(SEALED[0], "encrypted_content")),
        (SEALED, {**SEALED[0], "encrypted_content": None}),
        (UNSEALED, UNSEALED),
        (MESSAGE, {"type": "item_reference", "id": MESSAGE["id"]}),
        (SEALED, {"type": "item_reference", "id": SEALED[0]["id"]}),
        (CALL, {"type": "item_reference", "id": CALL["id"]}),
    ],
    ids=["no blob", "null blob", "never a blob", "message", "sealed reasoning", "call"],
)
def test_an_id_alone_is_proof_only_where_upstream_stores(output: Output, echo: Json) -> None:
    assert is_echo(held_of(output), read_item(spelled(echo)), is_stored=True)
    assert not is_echo(held_of(output), read_item(spelled(echo)), is_stored=False)


def test_the_terminal_events_blob_counts_only_for_the_same_item() -> None:
    other = thinks("2", "of another")
    held = hold([read_item(spelled(SEALED[0])), read_item(spelled(other))])
    assert not is_echo(held, read_item(spelled(other)), is_stored=False)
    assert is_echo(held, read_item(spelled(SEALED[0])), is_stored=False)


# ── The client's own items ───────────────────────────────────────────────────────────────────

EQUAL: Final = [
    ("key order", b'{"a":1,"b":{"c":2,"d":3}}', b'{"b":{"d":3,"c":2},"a":1}'),
    ("spaces", b'{"a":[1,2]}', b'{ "a" : [ 1 , 2 ] }'),
    ("escapes", '{"é":"\U0001f600/"}'.encode(), b'{"\\u00e9":"\\ud83d\\ude00\\/"}'),
    ("control escapes", b'{"a":"\\n"}', b'{"a":"\\u000a"}'),
    ("lone surrogate", b'{"a":"\\ud83d"}', b'{"a":"\\uD83D"}'),
]
UNEQUAL: Final = [
    ("true and 1", b'{"a":true}', b'{"a":1}'),
    ("false and 0", b'{"a":false}', b'{"a":0}'),
    ("null and false", b'{"a":null}', b'{"a":false}'),
    ("null and absent", b'{"a":null}', b"{}"),
    ("deep null and absent", b'{"a":[{"b":null}]}', b'{"a":[{}]}'),
    ("1.0 and 1", b'{"a":1.0}', b'{"a":1}'),
    ("1e1 and 10", b'{"a":1e1}', b'{"a":10}'),
    ("-0 and 0", b'{"a":-0}', b'{"a":0}'),
    ("number and text", b'{"a":1}', b'{"a":"1"}'),
    ("null and text", b'{"a":null}', b'{"a":"null"}'),
    ("list order", b'{"a":[1,2]}', b'{"a":[2,1]}'),
    ("nested lists", b'{"a":[[1],2]}', b'{"a":[[1,2]]}'),
    ("two lone surrogates", b'{"a":"\\ud83d"}', b'{"a":"\\ud83e"}'),
    ("a pair and its halves", b'{"a":"\\ud83d\\ude00"}', b'{"a":"\\ude00\\ud83d"}'),
    ("a quote", b'{"a":"x\\",\\"b"}', b'{"a":"x","b":""}'),
    ("normal forms", b'{"a":"\\u00e9"}', b'{"a":"e\\u0301"}'),
]


def own(members: bytes) -> bytes:
    return b'{"type":"thing","v":' + members + b"}"


@pytest.mark.parametrize(("a", "b"), [r[1:] for r in EQUAL], ids=[r[0] for r in EQUAL])
def test_equal_values_are_one_item(a: bytes, b: bytes) -> None:
    assert read_item(own(a)).exact == read_item(own(b)).exact is not None


@pytest.mark.parametrize(("a", "b"), [r[1:] for r in UNEQUAL], ids=[r[0] for r in UNEQUAL])
def test_unequal_values_are_two_items(a: bytes, b: bytes) -> None:
    assert read_item(own(a)).exact != read_item(own(b)).exact


@pytest.mark.parametrize(
    "raw",
    [
        b'{"type":"message","role":"user","content":"a","content":"a"}',
        b'{"type":"thing","v":{"a":1,"b":{"c":1,"c":1}}}',
        b'{"type":"thing","a":1,"\\u0061":1}',
    ],
    ids=["on top", "deep", "escaped"],
)
def test_a_name_that_stands_twice_makes_an_item_opaque(raw: bytes) -> None:
    item = read_item(raw)
    assert item.exact is None
    assert not item.may_be_delta
    assert not is_known_output(item)


@pytest.mark.parametrize(
    "raw",
    [b"1", b'"text"', b"null", b"[]", b"{}", b'{"type":7}', b'{"id":"msg_1"}', b'{"role":""}'],
)
def test_what_is_no_item_is_opaque(raw: bytes) -> None:
    assert read_item(raw).exact is None


@pytest.mark.parametrize(
    "raw",
    [b'{"type":"a","v":1e400}', b'{"type":"a","v":' + b"9" * 400 + b"}", b'{"v":NaN}', b'{"v":'],
    ids=["1e400", "400 digits", "NaN", "cut"],
)
def test_what_a_strict_parser_refuses_is_not_read(raw: bytes) -> None:
    with pytest.raises(NotStrictError):
        read_item(raw)


@pytest.mark.parametrize("kind", ["thing", "message", "web_search_call"])
def test_nesting_is_read_up_to_the_limit_and_refused_beyond(kind: str) -> None:
    def nested(depth: int) -> bytes:
        return b'{"type":"%s","role":"assistant","v":%s}' % (
            kind.encode(),
            b"[" * (depth - 1) + b"]" * (depth - 1),
        )

    assert read_item(nested(500)).exact is not None
    with pytest.raises(NotStrictError):
        read_item(nested(501))
    with pytest.raises(NotStrictError):
        read_item(nested(100_000))
    with pytest.raises(NotStrictError):
        read_item(nested(64), max_depth=63)


@pytest.mark.parametrize(
    "item",
    [
        {"role": "user", "content": "hi"},
        {"type": "message", "role": "user", "content": "hi"},
        {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
        {"content": [{"text": "hi", "type": "input_text"}], "role": "user", "type": "message"},
    ],
    ids=["bare", "typed", "a part", "a part, typed"],
)
def test_a_text_equals_one_user_message_in_each_spelling(item: Json) -> None:
    assert read_item(spelled(item)).identity == read_text(b'"h\\u0069"').exact


@pytest.mark.parametrize(
    "item",
    [
        {"role": "user", "content": "ho"},
        {"role": "system", "content": "hi"},
        {"role": "assistant", "content": "hi"},
        {"role": "user", "content": "hi", "id": "msg_1"},
        {"role": "user", "content": [{"type": "input_text", "text": "hi", "extra": None}]},
        {"role": "user", "content": [{"type": "input_text", "text": "hi"}] * 2},
        {"role": "user", "content": [{"type": "output_text", "text": "hi"}]},
        {"role": "user", "content": [{"type": "input_text", "text": ["hi"]}]},
        {"role": "user", "type": "text", "content": "hi"},
    ],
)
def test_a_text_equals_no_other_message(item: Json) -> None:
    assert read_item(spelled(item)).identity != read_text(b'"hi"').exact


# ── Calls and answers ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ANSWERS)
def test_each_call_of_the_table_waits_for_its_own_kind_of_answer(kind: str) -> None:
    key, answer_type, answer_keys = ANSWERS[kind]
    call = read_item(spelled({"type": kind, key: "k", "execution": "client"}))
    assert call.call == Pairing(kind, "k")
    for answer_key in answer_keys:
        answer = read_item(spelled({"type": answer_type, answer_key: "k"}))
        assert answer.answer == call.call
        assert answer.may_be_delta


@pytest.mark.parametrize("kind", sorted(ECHO_RULES.keys() - ANSWERS.keys()))
def test_what_is_not_in_the_table_waits_for_nothing(kind: str) -> None:
    assert read_item(spelled({"type": kind, "call_id": "k"})).call is None


@pytest.mark.parametrize("members", [{}, {"execution": "server"}, {"execution": None}])
def test_a_tool_search_of_the_service_waits_for_nothing(members: Json) -> None:
    assert read_item(spelled({"type": "tool_search_call", "call_id": "k", **members})).call is None


@pytest.mark.parametrize("key", [{}, {"call_id": ""}, {"call_id": None}, {"call_id": 7}])
def test_a_call_without_a_key_can_never_be_answered(key: Json) -> None:
    call = read_item(spelled({"type": "function_call", **key})).call
    assert call is not None
    assert read_item(spelled({"type": "function_call_output", **key})).answer is None


def test_a_local_shells_answer_may_name_its_call_by_id() -> None:
    answer = {"type": "local_shell_call_output", "id": "x", "call_id": "k"}
    assert read_item(spelled(answer)).answer == Pairing("local_shell_call", "k")
    assert read_item(spelled(less(answer, "call_id"))).answer == Pairing("local_shell_call", "x")


@pytest.mark.parametrize(
    ("item", "is_allowed"),
    [
        ({"role": "user", "content": "x"}, True),
        ({"type": "message", "role": "system", "content": "x"}, True),
        ({"type": "message", "role": "developer", "content": []}, True),
        ({"role": "assistant", "content": "x"}, False),
        ({"role": "tool", "content": "x"}, False),
        ({"type": "item_reference", "id": "x"}, False),
        ({"type": "reasoning", "encrypted_content": "x"}, False),
        ({"type": "function_call", "call_id": "x"}, False),
        ({"type": "additional_tools", "tools": []}, False),
        ({"type": "compaction_trigger"}, False),
        ({"type": "function_call_output"}, False),
        ({"type": "of_the_future", "role": "user"}, False),
    ],
    ids=lambda value: "" if isinstance(value, bool) else "-".join(map(str, value.values())),
)
def test_only_messages_of_the_client_and_answers_may_be_new(item: Json, is_allowed: bool) -> None:
    assert read_item(spelled(item)).may_be_delta is is_allowed


# ── What is held ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["of_the_future", "function_call_output", "program"])
def test_an_output_of_unknown_type_cannot_be_continued(kind: str) -> None:
    assert not is_known_output(read_item(spelled({"type": kind, "call_id": "x"})))


def test_more_marks_than_can_be_packed_are_no_known_output() -> None:
    part = CITED["content"][0]
    assert is_known_output(read_item(spelled({**CITED, "content": [part] * 126})))
    assert not is_known_output(read_item(spelled({**CITED, "content": [part] * 130})))


def test_nothing_that_is_held_says_anything() -> None:
    texts = [says("a secret"), calls("c", '{"a":"a secret"}'), thinks("1", "a secret")]
    for text in texts:
        item = read_item(spelled(text))
        assert b"secret" not in bytes(hold([item]))
        assert "secret" not in repr(item)


def test_the_clients_own_assistant_message_is_compared_exactly() -> None:
    stage = Stage()
    shot = {"type": "message", "role": "assistant"} | parts("yes")
    stage.run(body([user("q"), shot, user("r")]), [says("ok")], "r1")
    again = [user("q"), {"role": "assistant", "content": "yes"}, user("r"), says("ok"), user("s")]
    assert stage.look(body(again)).why == "history_edited; index=1; type=message"
    again[1] = {**shot, "id": "msg_1"}
    assert stage.look(body(again)).parent is None
    again[1] = shot
    assert stage.look(body(again)).parent == "r1"
