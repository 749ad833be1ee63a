"""Whatever agents do, a delta says what the client's full input says, and none is missed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.conversation_stage import KEY, OTHER_KEY, Json, Seen, Stage, body
from tests.properties import reference
from tests.properties.reference import Asked, Kept, Opaque, Position, parsed
from tests.properties.tape import Tape
from wsproxy.core.conversation.history import History

TURNS: Final = 8


# ── What models say ──────────────────────────────────────────────────────────────────────────


def outputs(tape: Tape, number: int) -> list[list[Json]]:
    """Zero to three output items, each in one or two versions."""
    found: list[list[Json]] = []
    for at in range(tape.pick(1, 1, 2, 3, 0)):
        id_ = f"{number}_{at}"
        makers = [_message, _call, _reasoning, _custom, _search, _shell, _approval, _unknown]
        maker = makers[tape.pick(0, 1, 2, 1, 2, 0, 3, 4, 5, 6, 7)]
        found += maker(tape, id_)
    return found


def _message(tape: Tape, id_: str) -> list[list[Json]]:
    annotations = tape.pick([], [], [{"type": "url_citation", "url": "u", "title": None}])
    parts = [
        {"type": "output_text", "text": text, "annotations": annotations, "logprobs": []}
        for text in tape.pick(["yes"], ["no"], ["a", "b"])
    ]
    item: Json = {"id": f"msg_{id_}", "type": "message", "status": "completed"}
    item |= {"role": "assistant", "content": parts}
    return [[item | tape.pick({}, {}, {"phase": "commentary"}, {"phase": None})]]


def _call(tape: Tape, id_: str) -> list[list[Json]]:
    arguments = tape.pick('{"a": 1.0, "b": [null, "é"]}', "{}", '{"a":1,"a":2}', "not json", "1e2")
    item = {"id": f"fc_{id_}", "type": "function_call", "status": "completed", "name": "run"}
    return [[item | {"arguments": arguments, "call_id": f"call_{id_}"}]]


def _custom(tape: Tape, id_: str) -> list[list[Json]]:
    item = {"id": f"ctc_{id_}", "type": "custom_tool_call", "name": "run", "input": '{"a": 1}'}
    return [[item | {"call_id": f"call_{id_}"}]]


def _reasoning(tape: Tape, id_: str) -> list[list[Json]]:
    item = {"id": f"rs_{id_}", "type": "reasoning", "summary": [{"text": "s"}], "content": []}
    if tape.once_in(3):
        return [[item]]
    return [[item | {"encrypted_content": f"{id_}{version}"} for version in "AB"]]


def _search(tape: Tape, id_: str) -> list[list[Json]]:
    item = {"id": f"ws_{id_}", "type": "web_search_call", "status": "completed"}
    return [[item | {"action": {"type": "search", "query": "q", "sources": None}}]]


def _shell(tape: Tape, id_: str) -> list[list[Json]]:
    call = {"id": f"sh_{id_}", "type": "shell_call", "call_id": f"call_{id_}", "action": {"n": 1}}
    own = {"id": f"sho_{id_}", "type": "shell_call_output", "call_id": f"call_{id_}", "output": []}
    return [[call], [own]] if tape.once_in(2) else [[call]]


def _approval(tape: Tape, id_: str) -> list[list[Json]]:
    item = {"id": f"mcpr_{id_}", "type": "mcp_approval_request", "name": "run", "server_label": "s"}
    return [[item | {"arguments": '{"a":1}'}]]


def _unknown(tape: Tape, id_: str) -> list[list[Json]]:
    return [[{"id": f"x_{id_}", "type": "of_the_future"}]] if tape.once_in(3) else []


# ── How clients say it again ─────────────────────────────────────────────────────────────────


def echo(tape: Tape, versions: Sequence[Json]) -> Json | None:
    """One of the spellings seen, or one that is a near miss; None for an item left out."""
    item = dict(tape.pick(*versions))
    for _ in range(tape.pick(0, 1, 2)):
        change = CHANGES[tape.below(len(CHANGES))]
        item = change(item)
    rare = tape.below(24)
    if rare == 23:
        return None
    if rare == 22:
        return {"type": "item_reference", "id": item.get("id", "none")}
    return NEAR_MISSES[rare](item) if rare < len(NEAR_MISSES) else item


def _less(*names: str) -> Any:
    return lambda item: {n: v for n, v in item.items() if n not in names}


def _set(**members: Any) -> Any:
    return lambda item: item | members


def _plain(item: Json) -> Json:
    content = item.get("content")
    if item.get("type") != "message" or not isinstance(content, list) or len(content) != 1:
        return item
    return item | {"content": content[0]["text"]}


def _bare_parts(item: Json) -> Json:
    if item.get("type") != "message" or not isinstance(item.get("content"), list):
        return item
    return item | {"content": [{"type": p["type"], "text": p["text"]} for p in item["content"]]}


def _rewritten(item: Json) -> Json:
    try:
        return item | {"arguments": json.dumps(json.loads(item["arguments"]), sort_keys=True)}
    except (KeyError, ValueError):
        return item


def _typeless(item: Json) -> Json:
    return _less("type")(item) if item.get("type") == "message" else item


def _nulls(item: Json) -> Json:
    return item | {n: None for n in ("phase", "created_by", "content") if not item.get(n)}


CHANGES: Final[list[Any]] = [
    _less("id"), _less("status"), _less("id", "status"), _set(status="completed"), _set(id=None),
    _plain, _bare_parts, _rewritten, _typeless, _nulls, _less("content", "annotations"),
    lambda item: dict(reversed(item.items())), _less("encrypted_content"),
]  # fmt: skip
NEAR_MISSES: Final[list[Any]] = [
    _set(id="wrong"), _set(status="incomplete"), _less("phase"), _set(phase="final_answer"),
    _set(encrypted_content="forged"), _set(arguments='{"a":2}'), _set(content="changed"),
    _set(added=1), _set(action={"type": "search", "query": "p"}),
]  # fmt: skip


def answer(tape: Tape, item: Json) -> list[Json]:
    """What a client says to a call: mostly one answer, now and then none, two or a wrong one."""
    if item["type"] not in reference.ANSWERED_BY:
        return []
    kind, key, answer_key = reference.ANSWERED_BY[item["type"]]
    said: Json = {"type": kind, answer_key: item[key], "output": "done"}
    rare = tape.below(20)
    if rare == 17:
        return []
    if rare == 18:
        return [said, said]
    return [said | {answer_key: "wrong"}] if rare == 19 else [said]


# ── What agents do ───────────────────────────────────────────────────────────────────────────


@dataclass
class Talk:
    """One agent's view: its items as bytes, and what the model said last."""

    items: list[bytes]
    members: Json
    key: Any
    said: list[list[Json]] = field(default_factory=list)


def talk(tape: Tape) -> Talk:
    first = tape.pick([], [{"role": "system", "content": "be"}])
    items = [spelled(tape, item) for item in [*first, {"role": "user", "content": "hi"}]]
    store = tape.pick({"store": False}, {"store": False}, {"store": True}, {})
    return Talk(items, store, tape.pick(KEY, KEY, KEY, OTHER_KEY))


def spelled(tape: Tape, item: Json) -> bytes:
    raw = json.dumps(item)
    rare = tape.below(40)
    if rare == 39:
        return raw[:-1].encode() + b',"twice":1,"twice":1}'
    return {1: raw.replace("hi", "h\\u0069"), 2: raw.replace(" ", "")}.get(rare, raw).encode()


def go_on(tape: Tape, old: Talk) -> Talk:
    """The next request: echo, answer, ask; or regenerate, edit, drop, reorder, change settings."""
    new = Talk(list(old.items), dict(old.members), old.key)
    if tape.once_in(6):
        return new  # regenerate, or a retry
    echoes = [echo(tape, versions) for versions in old.said]
    new.items += [json.dumps(item).encode() for item in echoes if item is not None]
    answered = {v[0].get("call_id") for v in old.said if v[0]["type"] == "shell_call_output"}
    for versions in old.said:
        if versions[0].get("call_id") not in answered or tape.once_in(8):
            new.items += [json.dumps(said).encode() for said in answer(tape, versions[0])]
    for _ in range(tape.pick(1, 0, 2)):
        new.items.append(spelled(tape, {"role": "user", "content": tape.pick("hi", "go", "n")}))
    return _disturbed(tape, new)


def _disturbed(tape: Tape, new: Talk) -> Talk:
    kind, at = tape.below(24), tape.below(len(new.items))
    match kind:
        case 16:
            del new.items[at]
        case 17:
            new.items[at] = new.items[at].replace(b"i", b"o", 1)
        case 18:
            new.items.insert(at, new.items.pop())
        case 19:
            new.items[1:at] = []
        case 20:
            new.members = new.members | {"tools": [{"type": "web_search"}]}
        case 21:
            new.members = new.members | {"metadata": {"turn": str(at)}, "temperature": at}
        case 22:
            new.members = new.members | {"store": tape.pick(True, False)}
        case 23:
            new.items[at] = json.dumps(json.loads(new.items[at]), sort_keys=True).encode()
    if not new.items or any(b'"' not in item for item in new.items):
        new.items = [b'{"role":"user","content":"hi"}']
    return new


# ── The model beside the code ────────────────────────────────────────────────────────────────


class World:
    """Runs agents against the core and the reference at once."""

    def __init__(self, tape: Tape, *, continues: bool) -> None:
        self.tape = tape
        self.continues = continues
        self.stage = Stage(History(continues_without_reasoning=continues))
        self.kept: dict[str, Kept] = {}
        self.talks: list[Talk] = []

    def turn(self, number: int) -> None:
        is_new = not self.talks or self.tape.once_in(5)
        old = None if is_new else self.talks[-1 - self.tape.below(min(3, len(self.talks)))]
        new = talk(self.tape) if old is None else go_on(self.tape, old)
        raw = body(new.items, **new.members)
        seen = self.stage.look(raw, new.key)
        asked = as_asked(new, raw)
        self.check(seen, asked)
        made = self.made_of(seen, asked)
        new.said = outputs(self.tape, number)
        versions: list[Any] = [tuple(v) if len(v) > 1 else v[0] for v in new.said]
        self.stage.complete(seen, versions, f"resp_{number}", new.key)
        self.talks.append(new)
        self.remember(seen, asked, new, number, made)

    def check(self, seen: Seen, asked: Asked) -> None:
        for candidate in seen.plan.candidates:
            kept = self.kept[candidate.checkpoint.response_id]
            used = candidate.delta_from
            if self.continues:
                assert reference.starts_with_less(asked, kept, used) is not None
            else:
                assert used == len(kept.positions)
                assert reference.starts_with(asked, kept)
            assert reference.may_continue(asked, kept, used)
        if not self.continues:
            expected = self.best(asked)
            assert seen.parent == (None if expected is None else f"resp_{expected.number}")

    def matching(self, asked: Asked) -> list[Kept]:
        """Every kept checkpoint that the request starts with, the longest and latest first."""
        kept = [self.kept[c.response_id] for c in self.stage.history]
        found = [k for k in kept if reference.starts_with(asked, k)]
        return sorted(found, key=lambda k: (len(k.positions), k.number), reverse=True)

    def best(self, asked: Asked) -> Kept | None:
        found = self.matching(asked)
        return next((k for k in found if reference.may_continue(asked, k, len(k.positions))), None)

    def remember(
        self, seen: Seen, asked: Asked, new: Talk, number: int, made: Sequence[Any]
    ) -> None:
        said = [[parsed(json.dumps(v)) for v in versions] for versions in new.said]
        is_known = all(v[0]["type"] in reference.KNOWN_OUTPUTS for v in said)
        assert seen.checkpoint is None or is_known
        if seen.checkpoint is None:
            return
        items = [i for i in asked.items if i is not None]
        assert len(items) == len(asked.items), "an opaque item was committed"
        positions = [Position(item, m) for item, m in zip(items, made, strict=True)]
        positions += [Position(None, versions) for versions in said]
        output = [versions[0] for versions in said]
        name = seen.checkpoint.response_id
        self.kept[name] = Kept(number, asked.key, asked.fields, tuple(positions), output)

    def made_of(self, seen: Seen, asked: Asked) -> list[Any]:
        """What of the request's items the model made, as the longest match knows it."""
        made: list[Any] = []
        if self.continues and seen.reading.matches:
            checkpoint, used = seen.reading.matches[0]
            found = reference.starts_with_less(asked, self.kept[checkpoint.response_id], used)
            assert found is not None
            made = [position.made for position in found]
        elif not self.continues and (matches := self.matching(asked)):
            made = [position.made for position in matches[0].positions]
        return made + [None] * (len(asked.items) - len(made))


def as_asked(new: Talk, raw: bytes) -> Asked:
    items: list[Json | None] = []
    for item in new.items:
        try:
            items.append(parsed(item))
        except Opaque:
            items.append(None)
    fields = {"model": "m", "store": False, **new.members}
    changeable = ("metadata", "temperature")
    fields = {n: parsed(json.dumps(v)) for n, v in fields.items() if n not in changeable}
    return Asked(new.key, fields, items, fields["store"] is not False)


@pytest.mark.timeout(300)  # 6 ms of one core each; a loaded machine takes longer
@given(st.binary(max_size=400))
@settings(max_examples=4_000, deadline=None, print_blob=True)
def test_a_delta_is_sound_and_the_longest_there_is(data: bytes) -> None:
    world = World(Tape(data), continues=False)
    for number in range(TURNS):
        world.turn(number)


@pytest.mark.timeout(300)
@given(st.binary(max_size=400))
@settings(max_examples=1_000, deadline=None, print_blob=True)
def test_only_the_models_reasoning_may_be_missing_where_an_operator_allows_it(data: bytes) -> None:
    world = World(Tape(data), continues=True)
    for number in range(TURNS):
        world.turn(number)
