"""One scripted client: what it knows of its conversation, and everything it may do next.

Rules of this file
------------------
1. A move is drawn from the agent's own seed, so that dropping one agent leaves the others alone.
2. Whatever an agent sends is legal to send; upstream may refuse it, and both roads must agree.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Sequence
from random import Random
from typing import Any, Final

from tests.canary import TEXT
from tests.differential.bodies import BROKEN_BODIES, ODD_MEMBERS, encode_body
from tests.differential.conversation import Conversation, Echo, answer_to, is_plain, made_in
from tests.differential.repertoire import (
    CLIENT_CALLS,
    FAILURES,
    FIELDS,
    FREE_FIELDS,
    HOSTED,
    MODELS,
    ROLES,
    TEXTS,
)
from tests.differential.spellings import (
    EDITED_SPELLINGS,
    EVERY_SPELLING,
    LOSSY_SPELLINGS,
    SPELLINGS,
    STORED_SPELLINGS,
    Made,
)
from tests.differential.twin import Ask, Twin
from tests.worlds import Answer

Item = dict[str, Any]

#: Moves and how likely each is.
MOVES: Final[dict[str, float]] = {
    "go_on": 10.0,
    "edit": 0.8,
    "drop_or_swap": 0.5,
    "undo": 0.8,
    "regenerate": 0.8,
    "compact": 0.3,
    "branch": 1.0,
    "repeat": 0.8,
    "abandon": 0.8,
    "change": 0.8,
    "fail": 1.0,
    "answer_badly": 0.5,
    "chain_by_itself": 0.8,
    "odd": 0.6,
}


class Agent:
    """Drives one conversation; `name` is `KEY.NUMBER` and the beginning of its canaries."""

    def __init__(self, twin: Twin, name: str, seed: str) -> None:
        self.twin = twin
        self.name = name
        self.random = Random(seed)
        self.key = name.partition(".")[0]
        self.talk = Conversation()
        self.turns = 0
        self.fields = self._first_fields()
        self.orders = self._new_orders()
        self.spelling = self._choose_spelling()
        self.is_varied = self.random.random() < 0.4  # writes each item in a spelling of its own
        self.session = self.random.choice((None, None, "one", "two", self.name, "fresh"))
        self.branches: list[Agent] = []

    # ── What stays from turn to turn ─────────────────────────────────────────────────────────

    def _first_fields(self) -> dict[str, Any]:
        random = self.random
        fields: dict[str, Any] = {"model": random.choice(MODELS)}
        for name, values in FIELDS.items():
            if random.random() < 0.4:
                fields[name] = copy.deepcopy(random.choice(values))
        return fields

    @property
    def is_stored(self) -> bool:
        return self.fields.get("store") is not False

    def _new_orders(self) -> dict[str, str]:
        random = self.random
        orders = {"sim.tool_calls": str(random.choice((0, 1, 2, 3, 5)))}
        if random.random() < 0.4:
            orders["sim.parallel"] = str(random.choice((2, 3)))
        if random.random() < 0.5:
            orders["sim.reasoning"] = "encrypted"
        elif self.is_stored and random.random() < 0.3:
            orders["sim.reasoning"] = "plain"
        if random.random() < 0.15:
            orders["sim.custom_tool"] = "true"
        if random.random() < 0.25:
            orders["sim.items"] = "+".join(random.sample(HOSTED, random.choice((1, 1, 2))))
        elif random.random() < 0.15:
            orders["sim.items"] = random.choice(CLIENT_CALLS)
        return orders

    def _choose_spelling(self) -> str:
        names = [*SPELLINGS]
        if self.is_stored:
            names += STORED_SPELLINGS
        if self.random.random() < 0.1:
            names = [*LOSSY_SPELLINGS, *EDITED_SPELLINGS, *STORED_SPELLINGS]
        return self.random.choice(names)

    def _echo(self, made: Made) -> Echo:
        if self.is_varied:
            self.spelling = self._choose_spelling()
        return Echo(made, EVERY_SPELLING[self.spelling](made))

    # ── Asking ───────────────────────────────────────────────────────────────────────────────

    def _body(self, items: object, **more: Any) -> dict[str, Any]:
        random = self.random
        body = {**self.fields, "input": items}
        for name, values in FREE_FIELDS.items():
            if random.random() < 0.3:
                body[name] = copy.deepcopy(random.choice(values))
        metadata = {**self.orders, "canary": f"{self.name}.{self.turns}"}
        return {**body, "metadata": metadata, **more}

    def _headers(self) -> dict[str, str]:
        headers = {}
        if self.session:
            fresh = f"{self.name}-{self.turns}"
            headers["session-id"] = fresh if self.session == "fresh" else self.session
        if self.random.random() < 0.02:
            headers["idempotency-key"] = f"{self.name}-{self.turns}"
        return headers

    def _ask(self, body: dict[str, Any], full: Sequence[Item] | None) -> Ask:
        raw = encode_body(body, self.random)
        return Ask(raw, self.key, self._headers(), None if full is None else list(full))

    async def _send(self, **more: Any) -> None:
        """Send the conversation as it stands and take its answer in."""
        self.turns += 1
        items: object = self.talk.items()
        first = self.talk.entries[0] if len(self.talk.entries) == 1 else None
        if isinstance(first, dict) and is_plain(first):
            items = first["content"] if self.random.random() < 0.7 else items
        ask = self._ask(self._body(items, **more), self.talk.meant())
        self._take(await self.twin.turn(ask))

    def _take(self, answer: Answer) -> None:
        """Add the answer's output to the conversation; a refusal is followed by plain echoes."""
        start = len(self.talk.entries)
        made = made_in(answer) if answer.status == 200 else None
        if made is None:
            self.talk.entries = [
                e.exactly() if isinstance(e, Echo) else e for e in self.talk.entries
            ]
            return
        response = answer.response()
        if response["status"] == "completed" or self.random.random() < 0.5:
            self.talk.entries += [self._echo(item) for item in made]
        self.talk.starts.append(start)
        self.talk.ends.append(len(self.talk.entries))
        is_parent = response["status"] == "completed" and self.is_stored
        if is_parent:
            self.talk.parent, self.talk.parent_end = response["id"], len(self.talk.entries)

    # ── Moves ────────────────────────────────────────────────────────────────────────────────

    async def run(self, turns: int) -> None:
        """Make so many moves, and let the branches made on the way run beside."""
        await self.go_on()
        for _ in range(turns - 1):
            move = self.random.choices(list(MOVES), list(MOVES.values()))[0]
            await getattr(self, move)()
            if self.random.random() < 0.2:
                await asyncio.sleep(self.random.choice((0, 0.001, 0.003)))
        await asyncio.gather(*(branch.run(2) for branch in self.branches))

    def _answer_calls(self) -> bool:
        calls = self.talk.open_calls()
        if self.random.random() < 0.3:
            self.random.shuffle(calls)
        for call in calls:
            self.talk.entries.append(answer_to(call, self._text()))
        return bool(calls)

    def _text(self) -> str:
        return f"{self.random.choice(TEXTS)} {self.random.randrange(1000)} {TEXT}"

    def _say(self) -> None:
        text = self._text()
        content: Any = [{"type": "input_text", "text": text}]
        if self.random.random() < 0.3:
            content = text
        message: Item = {"role": self.random.choice(ROLES), "content": content}
        if isinstance(content, list) or self.random.random() < 0.5:
            message = {"type": "message", **message}
        if self.random.random() < 0.1:
            message["id"] = f"msg_{self.name}_{self.random.randrange(10**6)}".replace(".", "_")
        self.talk.entries.append(message)

    async def go_on(self) -> None:
        """Answer what was called, or say something new."""
        if not self._answer_calls() or self.random.random() < 0.1:
            if self.random.random() < 0.6:
                self.orders = self._new_orders()
            self._say()
        await self._send()

    async def edit(self) -> None:
        """Change an early message of its own, with or without forgetting what followed."""
        own = [n for n, e in enumerate(self.talk.entries) if isinstance(e, dict) and "role" in e]
        if own:
            at = self.random.choice(own)
            entry = self.talk.entries[at]
            assert isinstance(entry, dict)
            self.talk.parent = None
            self.talk.entries[at] = {**entry, "content": self._text()}
            if self.random.random() < 0.5:
                self.talk.cut(at + 1)
        await self.go_on()

    async def drop_or_swap(self) -> None:
        """Lose one of its own messages, or two of them change places."""
        own = [n for n, e in enumerate(self.talk.entries) if isinstance(e, dict) and "role" in e]
        self.talk.parent = None
        if len(own) > 2 and self.random.random() < 0.5:
            one, two = self.random.sample(own, 2)
            entries = self.talk.entries
            entries[one], entries[two] = entries[two], entries[one]
        elif len(own) > 1:
            del self.talk.entries[self.random.choice(own)]
        await self.go_on()

    async def undo(self) -> None:
        """Back to an earlier turn's end."""
        if self.talk.ends:
            self.talk.cut(self.random.choice(self.talk.ends))
        await self.go_on()

    async def regenerate(self) -> None:
        """Throw the last answer away and ask for it again."""
        if self.talk.starts:
            self.talk.cut(self.talk.starts[-1])
        if self.talk.entries:
            await self._send(**self.random.choice(({}, {"temperature": 0.5})))

    async def compact(self) -> None:
        """The history shrinks to a summary."""
        self.talk = Conversation([{"type": "message", "role": "user", "content": self._text()}])
        await self.go_on()

    async def branch(self) -> None:
        """Another agent goes on from here, beside this one."""
        if len(self.branches) < 2 and self.talk.entries:
            other = Agent(self.twin, f"{self.name}b{len(self.branches)}", str(self.random.random()))
            other.talk = copy.deepcopy(self.talk)
            other.fields, other.orders = dict(self.fields), dict(self.orders)
            other.spelling, other.is_varied = self.spelling, self.is_varied
            self.branches.append(other)
        await self.go_on()

    async def repeat(self) -> None:
        """The same request twice, at once or one after the other, as SDKs retry."""
        if not self._answer_calls():
            self._say()
        self.turns += 1
        ask = self._ask(self._body(self.talk.items()), self.talk.meant())
        if self.random.random() < 0.5:
            answer, _ = await asyncio.gather(self.twin.turn(ask), self.twin.turn(ask))
        else:
            await self.twin.turn(ask)
            answer = await self.twin.turn(ask)
        self._take(answer)

    async def abandon(self) -> None:
        """Leave in the middle, then ask again."""
        if not self._answer_calls():
            self._say()
        self.turns += 1
        orders = {**self.orders, "sim.think_ms": "15", "canary": f"{self.name}.{self.turns}"}
        body = self._body(self.talk.items(), stream=True, metadata=orders)
        after_s = self.random.choice((0.0, 0.001, 0.004, 0.01))
        ask = self._ask(body, None)
        await self.twin.leave(ask, after_s, reads_first=self.random.random() < 0.5)
        await self._send()

    async def change(self) -> None:
        """Another model, tools, instructions, sampling, effort."""
        name = self.random.choice([*FIELDS, "model"])
        if name == "model":
            self.fields["model"] = self.random.choice(MODELS)
        elif name in self.fields and self.random.random() < 0.3:
            del self.fields[name]
        else:
            self.fields[name] = copy.deepcopy(self.random.choice(FIELDS[name]))
        await self.go_on()

    async def fail(self) -> None:
        """A turn that upstream refuses, fails or cuts short."""
        if not self._answer_calls():
            self._say()
        kept = self.orders
        self.orders = {**kept, "sim.fail": self.random.choice(FAILURES)}
        await self._send()
        self.orders = kept

    async def answer_badly(self) -> None:
        """Answer half of the calls, or a call that was never made, or one twice."""
        kept = list(self.talk.entries)
        calls = self.talk.open_calls()
        if len(calls) > 1 and self.random.random() < 0.6:
            self.talk.entries.append(answer_to(calls[0], "half"))
        elif calls and self.random.random() < 0.5:
            self.talk.entries += [answer_to(calls[0], "once"), answer_to(calls[0], "twice")]
        else:
            self._answer_calls()
            stray = {"type": "function_call_output", "call_id": "call_never", "output": "?"}
            self.talk.entries.append(stray)
        self.turns += 1
        await self.twin.turn(self._ask(self._body(self.talk.items()), self.talk.meant()))
        self.talk.entries = kept
        await self.go_on()

    async def chain_by_itself(self) -> None:
        """Name the parent itself, and send only what is new."""
        is_sure = not self.twin.upstream.rules.chain_turns
        parent = self.talk.parent if is_sure else None
        if not self._answer_calls():
            self._say()
        if parent is None or self.twin.upstream.rules.continuation != "kept":
            await self._send()
            return
        self.turns += 1
        new = Conversation(self.talk.entries[self.talk.parent_end :]).items()
        meant = [e.made.done if isinstance(e, Echo) else e for e in self.talk.entries]
        if any(isinstance(e, Echo) and e.sent is None for e in self.talk.entries):
            meant = []  # a chain may hold what this client leaves out; only answers are compared
        ask = self._ask(self._body(new, previous_response_id=parent), meant or None)
        self._take(await self.twin.turn(ask))

    async def odd(self) -> None:
        """A body that is not for the WebSocket, or that upstream refuses."""
        self.turns += 1
        if self.random.random() < 0.4:
            raw = self.random.choice(BROKEN_BODIES)
            await self.twin.turn(Ask(raw, self.key, self._headers()))
            return
        member = self.random.choice(ODD_MEMBERS)
        body = self._body(self.talk.items() or "hello", **copy.deepcopy(member))
        await self.twin.turn(self._ask(body, None))
