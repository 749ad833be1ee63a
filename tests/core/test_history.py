"""Which checkpoint a request continues, over everything that agents do to their history."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.core.conversation_stage import (
    KEY,
    OTHER_KEY,
    Json,
    Stage,
    answers,
    body,
    calls,
    says,
    system,
    thinks,
    user,
    without,
)
from wsproxy.core.conversation.history import (
    ALIAS_BYTES,
    CHECKPOINTS_PER_CONVERSATION,
    EXPLAINED_CONVERSATIONS,
    MAX_EQUALS,
    History,
)


def loop(stage: Stage, turns: int, first: str = "q") -> list[Json]:
    """A tool loop of that many turns; its items, the last call not yet answered."""
    items: list[Json] = [system("be"), user(first)]
    for n in range(turns):
        stage.run(body(items), [calls(f"c{n}")], f"r{n}")
        items += [calls(f"c{n}")] + ([answers(f"c{n}")] if n < turns - 1 else [])
    return items


# ── What continues what ──────────────────────────────────────────────────────────────────────


def test_a_loop_sends_only_what_is_new_each_turn() -> None:
    stage = Stage()
    items: list[Json] = [user("q")]
    for n in range(20):
        seen = stage.run(body(items), [thinks(f"{n}", f"b{n}"), calls(f"c{n}")], f"r{n}")
        assert seen.parent == (f"r{n - 1}" if n else None)
        assert len(items) - seen.delta_from == 1
        assert seen.transcript.read_count <= 3
        items += [thinks(f"{n}", f"b{n}"), without(calls(f"c{n}"), "id"), answers(f"c{n}")]
    assert len(stage.history) == 1
    kept = list(stage.history)
    assert len({id(c.track) for c in kept}) == len({id(c.fields) for c in kept}) == 1


@pytest.mark.parametrize(
    "spelling",
    [
        {"role": "user", "content": "q"},
        {"type": "message", "role": "user", "content": "q"},
        {"role": "user", "content": [{"type": "input_text", "text": "q"}]},
        {"type": "message", "content": [{"text": "q", "type": "input_text"}], "role": "user"},
    ],
    ids=["bare", "typed", "a part", "a part, typed"],
)
def test_a_string_input_is_continued_by_one_user_message(spelling: Json) -> None:
    stage = Stage()
    stage.run(body("q"), [says("a")], "r1")
    seen = stage.look(body([spelling, says("a"), user("more")]))
    assert (seen.parent, seen.delta_from) == ("r1", 2)
    assert stage.look(body([{**spelling, "id": "x"}, says("a"), user("more")])).parent is None


def test_the_same_text_again_is_a_repeat() -> None:
    stage = Stage()
    stage.run(body("q"), [says("a")])
    assert stage.look(body("q")).why == "no_new_items"
    assert stage.look(body("p")).why == "new_conversation"


def test_the_longest_of_several_branches_is_continued() -> None:
    stage = Stage()
    stage.run(body([user("q")]), [says("a")], "r1")
    for branch in "xy":
        stage.run(body([user("q"), says("a"), user(branch)]), [says(f"to {branch}")], branch)
    deep = [user("q"), says("a"), user("x"), says("to x"), user("on")]
    assert [c.checkpoint.response_id for c in stage.look(body(deep)).plan.candidates] == ["x"]
    fork = [user("q"), says("a"), user("z")]
    assert stage.look(body(fork)).parent == "r1"
    assert len(stage.history) == 2


def test_a_regenerated_turn_continues_what_its_first_try_did() -> None:
    stage = Stage()
    items = loop(stage, 3)
    request = body([*items[:-1]])
    first = stage.run(request, [says("one")], "one")
    again = stage.run(request, [says("two")], "two")
    assert (first.parent, first.delta_from) == (again.parent, again.delta_from) == ("r1", 5)
    assert again.transcript.read_count == 1  # what it looked at to see what is new
    one = stage.look(body([*items[:-1], says("one"), user("on")]))
    two = stage.look(body([*items[:-1], says("two"), user("on")]))
    assert (one.parent, two.parent) == ("one", "two")


def test_undo_goes_back_to_the_checkpoint_before() -> None:
    stage = Stage()
    items = loop(stage, 4)
    seen = stage.look(body([*items[:5], answers("c1", "other")]))
    assert (seen.parent, seen.delta_from) == ("r1", 5)


def test_a_retry_of_the_first_request_is_sent_in_full() -> None:
    stage = Stage()
    stage.run(body([user("q")]), [says("a")])
    assert stage.look(body([user("q")])).why == "no_new_items"
    assert stage.look(body([user("q"), says("a")])).why == "no_new_items"


@pytest.mark.parametrize("is_respelled", [False, True])
def test_nothing_new_after_a_longer_conversation_is_a_repeat(is_respelled: bool) -> None:
    stage = Stage()
    items = loop(stage, 3)
    last = without(calls("c2"), "id") if is_respelled else calls("c2")
    assert stage.look(body([*items[:-1], last])).why == "no_new_items"


def _edited(items: list[Json], at: int) -> list[Json]:
    changed = json.dumps(items[at]).replace("done", "gone").replace('"run"', '"walk"')
    return [*items[:at], json.loads(changed.replace('"q"', '"p"')), *items[at + 1 :]]


EDITS: list[tuple[str, Callable[[list[Json]], list[Json]], str]] = [
    ("early message", lambda i: _edited(i, 1), "history_edited; index=1; type=message"),
    ("a call", lambda i: _edited(i, 2), "history_edited; index=2; type=function_call"),
    ("an answer", lambda i: _edited(i, 3), "history_edited; index=3; type=function_call_output"),
    ("late call", lambda i: _edited(i, 8), "history_edited; index=8; type=function_call"),
    ("dropped", lambda i: [*i[:3], *i[4:]], "history_edited; index=3; type=function_call"),
    ("two dropped", lambda i: [*i[:4], *i[6:]], "history_edited; index=4; type=function_call"),
    ("inserted", lambda i: [*i[:3], user("x"), *i[3:]], "history_edited; index=3; type=message"),
    ("reordered", lambda i: [*i[:4], i[5], i[4], *i[6:]],
     "history_edited; index=4; type=function_call_output"),
    ("compacted", lambda i: [i[0], user("so far: ..."), i[-1]],
     "history_edited; index=1; type=message"),
    ("first message", lambda i: [system("be other"), *i[1:]], "new_conversation"),
]  # fmt: skip


@pytest.mark.parametrize(("edit", "why"), [row[1:] for row in EDITS], ids=[row[0] for row in EDITS])
def test_an_edited_history_goes_in_full_and_says_where(
    edit: Callable[[list[Json]], list[Json]], why: str
) -> None:
    stage = Stage()
    items = [*loop(stage, 4), answers("c3")]
    assert stage.look(body(items)).parent == "r3"
    seen = stage.look(body(edit(items)))
    assert (seen.parent, seen.why) == (None, why)


def test_compaction_starts_a_chain_that_is_continued_in_turn() -> None:
    stage = Stage()
    loop(stage, 4)
    short = [system("be"), {"type": "compaction", "encrypted_content": "x"}, user("go on")]
    assert stage.run(body(short), [says("ok")], "short").parent is None
    assert stage.look(body([*short, says("ok"), user("and")])).parent == "short"


def test_an_edit_made_in_the_latest_turn_is_told_though_an_older_one_matches() -> None:
    stage = Stage()
    items = loop(stage, 3)
    seen = stage.look(body([*items[:-1], calls("c2", '{"a":2}'), answers("c2")]))
    assert seen.why == "history_edited; index=6; type=function_call"


# ── Who may meet whom ────────────────────────────────────────────────────────────────────────


def test_the_same_conversation_of_two_pool_keys_never_meets() -> None:
    stage = Stage()
    stage.run(body([user("q")], store=True), [thinks("1", "b"), says("a")], "mine", KEY)
    request = body([user("q"), thinks("1", "b"), says("a"), user("on")], store=True)
    theirs = stage.look(request, OTHER_KEY)
    assert (theirs.parent, theirs.why) == (None, "new_conversation")
    assert stage.look(request, KEY).parent == "mine"
    stage.run(body([user("q")], store=True), [thinks("1", "b"), says("a")], "theirs", OTHER_KEY)
    assert stage.look(request, OTHER_KEY).parent == "theirs"


def test_an_id_of_one_pool_key_resolves_for_no_other() -> None:
    stage = Stage()
    stage.run(body([user("q")], store=True), [says("a", id="msg_1")], "mine", KEY)
    stage.run(body([user("q")], store=True), [says("b", id="msg_1")], "theirs", OTHER_KEY)
    request = body([user("q"), {"type": "item_reference", "id": "msg_1"}, user("on")], store=True)
    assert stage.look(request, KEY).parent == "mine"
    assert stage.look(request, OTHER_KEY).parent == "theirs"


def test_an_id_that_upstream_gives_twice_does_not_stand_for_a_message() -> None:
    stage = Stage()
    items = [user("q"), says("a", id="msg"), user("p"), says("b", id="msg"), user("on")]
    stage.run(body(items[:1], store=True), [items[1]], "r1")
    stage.run(body(items[:3], store=True), [items[3]], "r2")
    respelled = [dict(reversed(item.items())) for item in items]  # none is known by its bytes
    assert stage.look(body(respelled, store=True)).parent == "r2"


def test_equal_conversations_are_all_found_the_latest_first() -> None:
    stage = Stage()
    for n in range(3):
        stage.run(body([user("q")], metadata={"agent": n}), [says("a")], f"r{n}")
    seen = stage.look(body([user("q"), says("a"), user("on")]))
    assert [c.checkpoint.response_id for c in seen.plan.candidates] == ["r2", "r1", "r0"]


@pytest.mark.parametrize("is_answer_equal", [True, False], ids=["equal answers", "other answers"])
def test_equal_requests_are_kept_up_to_a_bound(is_answer_equal: bool) -> None:
    stage = Stage()
    for n in range(3 * MAX_EQUALS):
        stage.run(body([user("q")]), [says("a" if is_answer_equal else f"a{n}")], f"r{n}")
    assert len(list(stage.history)) == len(stage.history) == MAX_EQUALS
    last = 3 * MAX_EQUALS - 1
    assert {c.response_id for c in stage.history} == {f"r{last - n}" for n in range(MAX_EQUALS)}
    answer = "a" if is_answer_equal else f"a{last}"
    assert stage.look(body([user("q"), says(answer), user("on")])).parent == f"r{last}"


def test_too_many_equals_cost_a_longer_conversation_only_its_oldest_checkpoint() -> None:
    stage = Stage(History(max_age_s=1))
    stage.run(body([user("q")]), [says("a")], "first")
    stage.run(body([user("q"), says("a"), user("p")]), [says("b")], "second")
    for _ in range(MAX_EQUALS):
        stage.run(body([user("q")]), [says("a")])
    kept = {c.response_id for c in stage.history}
    assert "second" in kept
    assert "first" not in kept
    longer = body([user("q"), says("a"), user("p"), says("b"), user("o")])
    assert stage.look(longer).parent == "second"
    conversations = {c.conversation.number: c.conversation for c in stage.history}
    measured = sum(conversation.measured_bytes() for conversation in conversations.values())
    assert stage.history.size_bytes == measured
    stage.history.expire(2.0)
    assert stage.history.size_bytes == 0


def test_as_many_siblings_as_explain_a_mismatch_are_remembered() -> None:
    stage = Stage()
    for n in range(2 * EXPLAINED_CONVERSATIONS):
        stage.run(body([system("be"), user(f"{n}")]), [says("a")], f"r{n}")
    siblings = stage.look(body([system("be"), user("x")])).reading.siblings
    names = [checkpoint.response_id for checkpoint in siblings]
    assert names == [f"r{n}" for n in range(EXPLAINED_CONVERSATIONS, 2 * EXPLAINED_CONVERSATIONS)]


def test_a_forgotten_sibling_explains_nothing_any_more() -> None:
    stage = Stage(History(max_conversations=2))
    for name in ("a", "b", "c"):
        stage.run(body([system("be"), user(name)]), [says("x")], name)
    siblings = stage.look(body([system("be"), user("d")])).reading.siblings
    assert [checkpoint.response_id for checkpoint in siblings] == ["b", "c"]


# ── Reasoning ────────────────────────────────────────────────────────────────────────────────

DONE, COMPLETED = thinks("1", "done"), thinks("1", "completed")


@pytest.mark.parametrize("echoes", [(DONE, DONE), (COMPLETED, COMPLETED), (DONE, COMPLETED)])
def test_either_blob_is_recognised_turn_after_turn(echoes: tuple[Json, Json]) -> None:
    stage = Stage()
    stage.run(body([user("q")]), [(DONE, COMPLETED), says("a")], "r1")
    second = stage.run(body([user("q"), echoes[0], says("a"), user("p")]), [says("b")], "r2")
    assert second.parent == "r1"
    third = [user("q"), echoes[1], says("a"), user("p"), says("b"), user("o")]
    assert stage.look(body(third)).parent == "r2"


REASONED = [thinks("1", "b1"), thinks("2", "b2"), calls("c"), thinks("3", "b3")]
OMISSIONS: list[tuple[str, list[Json]]] = [
    ("all", [calls("c")]),
    ("the first", [thinks("2", "b2"), calls("c"), thinks("3", "b3")]),
    ("the second", [thinks("1", "b1"), calls("c"), thinks("3", "b3")]),
    ("the trailing one", [thinks("1", "b1"), thinks("2", "b2"), calls("c")]),
    ("their blobs", [thinks("1"), thinks("2"), calls("c"), thinks("3")]),
    ("ids and blobs", [without(thinks("1"), "id"), calls("c")]),
]


@pytest.mark.parametrize("left", [r[1] for r in OMISSIONS], ids=[r[0] for r in OMISSIONS])
def test_left_out_reasoning_is_a_mismatch_unless_the_operator_allows_it(left: list[Json]) -> None:
    request = body([user("q"), *left, answers("c")])
    strict, lax = Stage(), Stage(History(continues_without_reasoning=True))
    for stage in (strict, lax):
        stage.run(body([user("q")]), list(REASONED), "r1")
    assert strict.look(request).why.startswith("omitted_reasoning; index=")
    seen = lax.run(request, [thinks("4", "b4"), says("a")], "r2")
    assert (seen.parent, seen.delta_from) == ("r1", 1 + len(left))
    longer = body([user("q"), *left, answers("c"), says("a"), user("on")])
    assert lax.look(longer).parent == "r2"


@pytest.mark.parametrize(
    "items",
    [
        [thinks("1", "forged"), thinks("2", "b2"), calls("c"), thinks("3", "b3")],
        [thinks("2", "b2"), thinks("1", "b1"), calls("c"), thinks("3", "b3")],
        [thinks("9"), calls("c")],
        [*REASONED[:3], thinks("9", "b9"), REASONED[3]],
        [thinks("1", "b1"), calls("c", '{"a":2}')],
    ],
    ids=["another blob", "other order", "another id", "one more", "another call"],
)
def test_nothing_but_leaving_out_is_allowed_even_then(items: list[Json]) -> None:
    stage = Stage(History(continues_without_reasoning=True))
    stage.run(body([user("q")]), list(REASONED), "r1")
    assert stage.look(body([user("q"), *items, answers("c")])).parent is None


def test_a_response_of_reasoning_alone_may_be_left_out_whole() -> None:
    stage = Stage(History(continues_without_reasoning=True))
    stage.run(body([user("q")]), [thinks("1", "b1")], "r1")
    seen = stage.look(body([user("q"), user("on")]))
    assert (seen.parent, seen.delta_from) == ("r1", 1)


def test_nothing_new_is_no_delta_even_then() -> None:
    stage = Stage(History(continues_without_reasoning=True))
    stage.run(body([user("q")]), [says("a")], "r1")
    assert stage.look(body([user("q"), says("a")])).plan.candidates == ()
    assert stage.look(body([user("q"), thinks("1", "b"), says("a")])).plan.candidates == ()


def test_reasoning_after_the_checkpoint_is_nothing_to_skip() -> None:
    stage = Stage(History(continues_without_reasoning=True))
    stage.run(body([user("q")]), [says("a")], "r1")
    seen = stage.look(body([user("q"), says("a"), thinks("1", "b"), user("on")]))
    assert seen.why == "foreign_item; index=2; type=reasoning"


@pytest.mark.parametrize("store", [True, None])
def test_where_upstream_stores_an_id_is_enough(store: bool | None) -> None:
    stage = Stage()
    stage.run(body([user("q")], store=store), [thinks("1", "b"), calls("c")], "r1")
    refs = [{"type": "item_reference", "id": f"{name}"} for name in ("rs_1", "fc_c")]
    for echo in ([thinks("1"), calls("c")], refs):
        seen = stage.run(body([user("q"), *echo, answers("c")], store=store), [says("a")], "r2")
        assert (seen.parent, seen.delta_from) == ("r1", 3)
        longer = [user("q"), *echo, answers("c"), says("a"), user("on")]
        assert stage.look(body(longer, store=store)).parent == "r2"


# ── What is not committed ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "request_body",
    [
        body([user("q"), {"type": "item_reference", "id": "msg_unknown"}], store=True),
        body([{"type": "item_reference", "id": "msg_unknown"}], store=True),
        body([user("q"), b'{"role":"user","content":"a","content":"b"}']),
        body([user("q"), 7]),
        body([user("q")], previous_response_id="resp_0"),
        body([user("q")], conversation="conv_0"),
        body([]),
        body(""),
        body(None),
        body({"role": "user"}),
    ],
    ids=[
        "reference",
        "alone",
        "opaque",
        "odd",
        "parent",
        "conversation",
        "empty",
        "no text",
        "null",
        "one",
    ],
)
def test_a_turn_whose_input_is_not_the_whole_context_is_not_remembered(
    request_body: bytes,
) -> None:
    stage = Stage()
    assert stage.run(request_body, [says("a")]).checkpoint is None
    assert (len(stage.history), stage.history.size_bytes) == (0, 0)


@pytest.mark.parametrize("kind", ["of_the_future", "function_call_output", "program"])
def test_an_output_of_unknown_type_is_not_remembered(kind: str) -> None:
    stage = Stage()
    output = {"type": kind, "id": "x", "call_id": "c"}
    assert stage.run(body([user("q")]), [says("a"), output]).checkpoint is None


def test_an_opaque_item_ends_every_chain() -> None:
    stage = Stage()
    twice = b'{"role":"user","content":"q","content":"q"}'
    stage.run(body([user("q")]), [says("a")], "r1")
    assert stage.look(body([user("q"), says("a"), twice])).why.startswith("foreign_item; index=2")
    stage.run(body([user("q"), says("a"), twice]), [says("b")], "r2")
    seen = stage.look(body([user("q"), says("a"), twice, says("b"), user("on")]))
    assert seen.parent is None


@pytest.mark.parametrize("null", ["previous_response_id", "conversation"])
def test_a_null_parent_is_none(null: str) -> None:
    stage = Stage()
    assert stage.run(body([user("q")], **{null: None}), [says("a")], "r1").checkpoint is not None
    seen = stage.look(body([user("q"), says("a"), user("on")], **{null: None}))
    assert seen.parent == "r1"


# ── Bounds ───────────────────────────────────────────────────────────────────────────────────


def test_a_conversation_keeps_its_latest_checkpoints() -> None:
    stage = Stage()
    loop(stage, 10)
    kept = sorted(checkpoint.response_id for checkpoint in stage.history)
    assert kept == [f"r{n}" for n in range(10 - CHECKPOINTS_PER_CONVERSATION, 10)]


def test_the_least_recently_used_conversation_goes_first() -> None:
    stage = Stage(History(max_conversations=3))
    for name in ("a", "b", "c"):
        stage.run(body([user(name)]), [says("x")], name)
    stage.run(body([user("a"), says("x"), user("on")]), [says("y")], "a2")
    stage.run(body([user("d")]), [says("x")], "d")
    assert sorted(c.response_id for c in stage.history) == ["a", "a2", "c", "d"]
    assert stage.look(body([user("b"), says("x"), user("on")])).why == "new_conversation"


def test_what_is_forgotten_takes_nothing_of_its_length_with_it() -> None:
    stage = Stage(History(max_conversations=2))
    stage.run(body([user("a")]), [says("x")], "a")
    stage.run(body([user("b")]), [says("x")], "b")
    stage.run(body([user("b"), says("x"), user("on")]), [says("y")], "b2")
    stage.run(body([system("be"), user("c")]), [says("x")], "c")
    assert sorted(c.response_id for c in stage.history) == ["b", "b2", "c"]
    assert stage.look(body([user("b"), says("x"), user("or")])).parent == "b"


def test_bytes_are_bounded() -> None:
    stage = Stage(History(max_bytes=100_000))
    for n in range(100):
        stage.run(body([user(f"{n} {m}") for m in range(50)]), [thinks("1", "b"), says("x")])
        assert stage.history.size_bytes <= 100_000
    assert 5 < len(stage.history) < 100


@pytest.mark.parametrize(("missing_bytes", "kept"), [(0, 2), (1, 1)], ids=["just", "not quite"])
def test_what_just_fits_is_kept(missing_bytes: int, kept: int) -> None:
    unbounded = Stage()
    requests = [body([user(name)]) for name in "ab"]
    for request in requests:
        unbounded.run(request, [says("x")])
    stage = Stage(History(max_bytes=unbounded.history.size_bytes - missing_bytes))
    for request in requests:
        stage.run(request, [says("x")])
    assert len(stage.history) == kept


def test_other_names_of_items_are_counted_and_bounded() -> None:
    stage = Stage(History(max_bytes=10_000_000))
    stage.run(body([user("q")]), [thinks("1", "done")], "r1")
    before = stage.history.size_bytes
    stage.run(body([user("p")]), [(thinks("1", "done"), thinks("1", "completed"))], "r2")
    assert stage.history.size_bytes - before == before + len(b"x" * 16) + ALIAS_BYTES
    for n in range(200):
        stage.run(body([user("p")]), [(thinks(f"{n}", f"a{n}"), thinks(f"{n}", f"b{n}"))])
    many = Stage(History(max_bytes=24_000))
    for n in range(30):
        many.run(body([user("p")]), [(thinks(f"{n}", f"a{n}"), thinks(f"{n}", f"b{n}"))])
    assert many.history.size_bytes <= 24_000


@pytest.mark.parametrize(("tenths", "kept"), [(3, 3), (1, 1), (0, 1)])
def test_other_names_of_items_take_a_tenth_of_the_memory_and_at_least_one_stays(
    tenths: int, kept: int
) -> None:
    stage = Stage(History(max_bytes=tenths * 10 * ALIAS_BYTES))
    for n in range(5):
        stage.run(body([user("p")]), [(thinks("1", f"a{n}"), thinks("1", f"b{n}"))])
    conversations = {c.conversation.number: c.conversation.size_bytes for c in stage.history}
    assert stage.history.size_bytes - sum(conversations.values()) == kept * ALIAS_BYTES


def test_one_conversation_too_large_for_the_bound_is_kept_alone() -> None:
    stage = Stage(History(max_bytes=10_000))
    stage.run(body([user("small")]), [says("x")], "small")
    stage.run(body([user(f"{n}") for n in range(1_000)]), [says("x")], "large")
    assert [c.response_id for c in stage.history] == ["large"]


def test_what_was_unused_for_long_is_dropped() -> None:
    stage = Stage(History(max_age_s=10))
    stage.run(body([user("a")]), [says("x")], "a")
    stage.now = 5.0
    stage.run(body([user("b")]), [says("x")], "b")
    stage.history.expire(10.0)
    assert len(stage.history) == 2
    stage.history.expire(10.1)
    assert [c.response_id for c in stage.history] == ["b"]


def test_when_all_is_forgotten_nothing_stays_behind() -> None:
    stage = Stage(History(max_age_s=1))
    for first in "xyz":
        loop(stage, 6, first)
    loop(stage, 4, "x")
    stage.history.expire(2.0)
    assert repr(stage.history) == "<History 0 conversations, 0 checkpoints, 0 bytes>"
    left = {name for name, index in vars(stage.history).items() if hasattr(index, "__len__")}
    assert {name for name in left if len(getattr(stage.history, name))} == set()


def test_a_parent_that_was_evicted_meanwhile_starts_a_new_conversation() -> None:
    stage = Stage(History(max_conversations=1))
    stage.run(body([user("a")]), [says("x")], "a")
    running = stage.look(body([user("a"), says("x"), user("on")]))
    stage.run(body([user("b")]), [says("x")], "b")
    stage.complete(running, [says("y")], "a2")
    seen = stage.look(body([user("a"), says("x"), user("on"), says("y"), user("and")]))
    assert seen.parent == "a2"
    assert [c.response_id for c in stage.history] == ["a2"]
    stage.run(body([user("c")]), [says("x")], "c")
    assert [c.response_id for c in stage.history] == ["c"]


def test_conversations_are_numbered_from_one() -> None:
    stage = Stage()
    kept = [stage.run(body([user(name)]), [says("x")]).checkpoint for name in "ab"]
    assert [c.conversation.number for c in kept if c is not None] == [1, 2]
