"""Scripted agents: tool loops, and everything else that agents do to a conversation.

An act never fails because of what came before it, so that any step can be left out of a plan.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from random import Random
from typing import TYPE_CHECKING, Any, Final

from tests.canary import TEXT, secret
from tests.differential.spellings import (
    LOSSY_SPELLINGS,
    SPELLINGS,
    STORED_SPELLINGS,
    Made,
    Spelling,
)
from tests.simulation.conversation import (
    CHANGES,
    FAILURES,
    FOREIGN,
    KINDS,
    TOOLS,
    Conversation,
    Item,
    edited,
    question,
)
from tests.simulation.ledger import Call
from tests.simulation.plan import AgentPlan

if TYPE_CHECKING:
    from tests.simulation.world import World

_MAX_ROUNDS: Final = 4  # of one tool loop
FAILURES_BEFORE_NEW: Final = 2


class Agent:
    """Performs the steps of one plan."""

    def __init__(self, plan: AgentPlan, world: World) -> None:
        self.plan = plan
        self._world = world
        self._turns = 0
        self.conversation = self._new()
        self._headers = self._own_headers()
        self._last_body: Item | None = None

    def _new(self) -> Conversation:
        dice = Random(self.plan.number * 31 + self._world.plan.seed)
        settings: dict[str, Any] = {
            "model": "gpt-5.6",
            "instructions": f"be {self.plan.number} {TEXT}",
        }
        if dice.random() < 0.7:
            settings["tools"] = list(TOOLS)
        if self.plan.reasoning:
            settings["reasoning"] = {"effort": "low"}
        return Conversation(settings=settings)

    def _own_headers(self) -> list[tuple[bytes, bytes]]:
        plan = self.plan
        headers = [
            (b"Authorization", self.owner.encode()),
            (b"Content-Type", b"application/json"),
            (b"x-stainless-retry-count", b"0"),
        ]
        hints = {"header": b"s-%d" % plan.number, "shared": b"s-shared"}
        if plan.hint in hints:
            headers.append((b"session-id", hints[plan.hint]))
        return headers

    @property
    def owner(self) -> str:
        """Its Authorization."""
        return f"Bearer {secret(str(self.plan.key))}"

    async def live(self) -> None:
        """Do everything."""
        for step in self.plan.steps:
            await asyncio.sleep(step.wait_s)
            dice = Random(step.seed)
            await _ACTS[step.act](self, dice)
            if self.conversation.failures >= FAILURES_BEFORE_NEW:
                self.conversation = self._new()

    # -- turns ---------------------------------------------------------------------------------

    def _body(self, conversation: Conversation, orders: Mapping[str, str], dice: Random) -> Item:
        self._turns += 1
        canary = f"a{self.plan.number}.{self._turns}"
        body: Item = {**conversation.settings, "input": list(conversation.items)}
        if self.plan.store is not None:
            body["store"] = self.plan.store
        stream = self.plan.stream if self.plan.stream is not None else dice.random() < 0.5
        if stream or dice.random() < 0.3:
            body["stream"] = stream
        body["metadata"] = {"canary": canary, **orders}
        metadata = [("turn", canary), ("window", str(self.plan.number))]
        dice.shuffle(metadata)
        body["client_metadata"] = dict(metadata)
        if self.plan.hint == "cache_key":
            body["prompt_cache_key"] = f"k-{self.plan.number} {TEXT}"
        elif self.plan.hint == "fresh":
            body["prompt_cache_key"] = f"k-{canary} {TEXT}"
        if dice.random() < 0.1:
            body["previous_response_id"] = None
        if dice.random() < 0.1:
            body["background"] = None
        return body

    async def _send(
        self,
        body: Item,
        *,
        leave_after_s: float | None = None,
        leave_after_writes: int | None = None,
    ) -> Call:
        """The same bytes again where an SDK would, `retries` times."""
        self._last_body = body
        attempt = 0
        while True:
            call = await self._world.call(
                self.plan,
                self.owner,
                self._headers,
                body,
                leave_after_s=leave_after_s,
                leave_after_writes=leave_after_writes,
            )
            if attempt == self.plan.retries or not _is_retried(call):
                return call
            await asyncio.sleep(0.5 * 2**attempt)
            attempt += 1

    async def _turn(
        self, conversation: Conversation, orders: Mapping[str, str], dice: Random
    ) -> bool:
        """One turn of a conversation; whether it was answered."""
        call = await self._send(self._body(conversation, orders, dice))
        return self._absorb(conversation, call, dice)

    def _absorb(self, conversation: Conversation, call: Call, dice: Random) -> bool:
        """Take the answer into the conversation, as this client spells it."""
        expected = next((e for e in call.expectations if e.turn is not None), None)
        is_whole = call.sink.ending in ("finished", "responded") and call.sink.status == 200
        if expected is None or not (is_whole or call.was_answered_over_https):
            conversation.failures += 1
            return False
        reply = expected.reply
        if expected.mid_error is not None or reply.status == "failed":
            conversation.failures += 1
            return False
        conversation.failures = 0
        conversation.last_id = reply.response_id
        for draft, final in zip(reply.drafts, reply.completed_items, strict=True):
            conversation.echo(Made(draft.item, final), self._spelling(dice))
        conversation.known_until = len(conversation.items)
        return True

    def _spelling(self, dice: Random) -> Spelling:
        if self.plan.spelling != "mixed":
            return _SPELLINGS[self.plan.spelling]
        if dice.random() < 0.03:
            return LOSSY_SPELLINGS["reasoning left out"]
        if dice.random() < 0.15 and self._is_stored():
            return dice.choice(list(STORED_SPELLINGS.values()))
        return dice.choice(list(SPELLINGS.values()))

    def _is_stored(self) -> bool:
        return self.plan.store is not False and not self._world.plan.upstream.keeps_nothing

    async def _converse(self, conversation: Conversation, dice: Random) -> bool:
        """From a question to the end of its tool loop."""
        orders = self._orders(dice)
        for _ in range(_MAX_ROUNDS):
            if not await self._turn(conversation, orders, dice):
                return False
            if not conversation.unanswered:
                return True
            conversation.answer_calls(dice)
            if dice.random() < 0.2:
                await asyncio.sleep(dice.choice((0.01, 0.3, 2.0)))
        return True

    def _orders(self, dice: Random) -> dict[str, str]:
        orders = {"sim.text_tokens": str(dice.choice((1, 1, 2, 4)))}
        calls = dice.choice((0, 0, 1, 1, 2, 3))
        if calls:
            orders |= {"sim.tool_calls": str(calls), "sim.parallel": str(dice.choice((1, 1, 3)))}
        if self.plan.reasoning:
            orders["sim.reasoning"] = self.plan.reasoning
        if dice.random() < 0.15:
            orders["sim.items"] = dice.choice(KINDS)
        if dice.random() < 0.1:
            orders["sim.custom_tool"] = "1"
        return orders

    # -- acts ----------------------------------------------------------------------------------

    async def ask(self, dice: Random) -> None:
        """A question and its tool loop; what was not answered is taken back."""
        await self._asked(self.conversation, dice)

    async def _asked(self, conversation: Conversation, dice: Random) -> None:
        before = len(conversation.items)
        conversation.ask(dice)
        if not await self._converse(conversation, dice) and dice.random() < 0.7:
            conversation.cut(before)

    async def new(self, dice: Random) -> None:
        """Another conversation."""
        self.conversation = self._new()
        await self.ask(dice)

    async def string(self, dice: Random) -> None:
        """Another conversation, begun with a string."""
        self.conversation = self._new()
        text = f"{TEXT} {dice.randrange(1000)}"
        self.conversation.asks.append(0)
        self.conversation.items.append({"role": "user", "content": text})
        orders = self._orders(dice)
        body = {**self._body(self.conversation, orders, dice), "input": text}
        if self._absorb(self.conversation, await self._send(body), dice):
            await self.ask(dice)

    async def again(self, dice: Random) -> None:
        """The same request once more."""
        if self._last_body is not None:
            await self._send(self._last_body)

    async def twice(self, dice: Random) -> None:
        """The same request twice at once."""
        self.conversation.ask(dice)
        body = self._body(self.conversation, self._orders(dice), dice)
        first, _ = await asyncio.gather(self._send(body), self._send(body))
        self._absorb(self.conversation, first, dice)

    async def regenerate(self, dice: Random) -> None:
        """Another answer to the last question."""
        if self.conversation.asks:
            self.conversation.cut(self.conversation.asks[-1] + 1)
            await self._converse(self.conversation, dice)

    async def undo(self, dice: Random) -> None:
        """The last question never was."""
        if self.conversation.asks:
            at = dice.choice(self.conversation.asks[-2:])
            self.conversation.cut(at)
        await self.ask(dice)

    async def edit(self, dice: Random) -> None:
        """An early item is another one now."""
        if self.conversation.items:
            at = dice.randrange(len(self.conversation.items))
            self.conversation.items[at] = edited(self.conversation.items[at], dice)
        await self.ask(dice)

    async def drop(self, dice: Random) -> None:
        """An early item is gone."""
        if self.conversation.items:
            at = dice.randrange(len(self.conversation.items))
            del self.conversation.items[at]
            self.conversation.made.clear()
        await self.ask(dice)

    async def swap(self, dice: Random) -> None:
        """Two items have changed places."""
        items = self.conversation.items
        if len(items) > 1:
            at = dice.randrange(len(items) - 1)
            items[at], items[at + 1] = items[at + 1], items[at]
            self.conversation.made.clear()
        await self.ask(dice)

    async def respell(self, dice: Random) -> None:
        """Every echo is written anew."""
        for index, made in self.conversation.made.items():
            self.conversation.items[index] = self._spelling(dice)(made) or made.done
        await self.ask(dice)

    async def compact(self, dice: Random) -> None:
        """A summary in the place of everything."""
        self.conversation.cut(0)
        summary = f"summary {TEXT} {dice.randrange(9)}"
        self.conversation.items.append({"role": "user", "content": summary})
        await self.ask(dice)

    async def fork(self, dice: Random) -> None:
        """Several branches of one conversation at once."""
        branches = [self.conversation.copy() for _ in range(dice.choice((1, 1, 2)))]
        seeds = [Random(dice.random()) for _ in branches]
        pairs = zip([self.conversation, *branches], [dice, *seeds], strict=True)
        await asyncio.gather(*(self._asked(branch, each) for branch, each in pairs))
        if dice.random() < 0.3:
            self.conversation = branches[-1]

    async def settings(self, dice: Random) -> None:
        """Something beside the input has changed."""
        settings = self.conversation.settings
        name, value = dice.choice(CHANGES)
        if value is ...:
            settings.pop(name, None)
        else:
            settings[name] = value
        await self.ask(dice)

    async def side(self, dice: Random) -> None:
        """A title for the conversation, asked under the same session at the same time."""
        title = Conversation(settings={"model": "gpt-5.6", "instructions": "give a title"})
        title.items.append(question(dice))
        await asyncio.gather(
            self._turn(title, {"sim.text_tokens": "1"}, Random(dice.random())), self.ask(dice)
        )

    async def leave(self, dice: Random) -> None:
        """Gone before the first byte, or in the middle; then perhaps once more."""
        before = len(self.conversation.items)
        self.conversation.ask(dice)
        body = self._body(self.conversation, self._orders(dice), dice)
        if dice.random() < 0.5:
            await self._send(body, leave_after_s=dice.choice((0.0, 0.001, 0.03, 0.2, 0.5, 1.5)))
        else:
            await self._send(body, leave_after_writes=dice.choice((1, 1, 2, 3)))
        if dice.random() < 0.5:
            self._absorb(self.conversation, await self._send(body), dice)
        else:
            self.conversation.cut(before)

    async def own_parent(self, dice: Random) -> None:
        """The client chains by itself."""
        conversation = self.conversation
        conversation.ask(dice)
        body = self._body(conversation, self._orders(dice), dice)
        if conversation.last_id is not None:
            body["previous_response_id"] = conversation.last_id
            body["input"] = conversation.items[conversation.known_until :]
        self._absorb(conversation, await self._send(body), dice)

    async def foreign(self, dice: Random) -> None:
        """Something in the new items that is neither a question nor an answer."""
        self.conversation.answer_calls(dice)
        self.conversation.items.append(dice.choice(FOREIGN))
        await self.ask(dice)

    async def unanswered(self, dice: Random) -> None:
        """A call whose answer is missing, or there twice."""
        conversation = self.conversation
        conversation.ask(dice)
        orders = {**self._orders(dice), "sim.tool_calls": "2", "sim.parallel": "2"}
        if not await self._turn(conversation, orders, dice) or not conversation.unanswered:
            return
        before = len(conversation.items)
        if dice.random() < 0.5:
            conversation.unanswered.pop()
        else:
            conversation.unanswered.append(conversation.unanswered[0])
        conversation.answer_calls(dice)
        if not await self._turn(conversation, orders, dice):
            conversation.cut(before)

    async def fail(self, dice: Random) -> None:
        """A turn that upstream refuses, or ends in another way than completed."""
        before = len(self.conversation.items)
        self.conversation.ask(dice)
        orders = {**self._orders(dice), "sim.fail": dice.choice(FAILURES)}
        if not await self._turn(self.conversation, orders, dice):
            self.conversation.cut(before)
        await self.ask(dice)

    async def adopt(self, dice: Random) -> None:
        """Goes on with another agent's conversation, under its own key and in its own session."""
        self.conversation = dice.choice(self._world.agents).conversation.copy()
        await self.ask(dice)

    async def over_https(self, dice: Random) -> None:
        """A call that only HTTPS can carry."""
        self.conversation.ask(dice)
        body = self._body(self.conversation, self._orders(dice), dice)
        odd = dice.choice(({"type": "x"}, {"stream_id": "mine"}, {"stream": 1}))
        await self._send({**body, **odd})


_SPELLINGS: Final = {**SPELLINGS, **STORED_SPELLINGS, **LOSSY_SPELLINGS}
Act = Callable[[Agent, Random], Coroutine[Any, Any, None]]
_ACTS: Final[dict[str, Act]] = {
    act.__name__: act
    for act in (
        Agent.ask,
        Agent.new,
        Agent.string,
        Agent.again,
        Agent.twice,
        Agent.regenerate,
        Agent.undo,
        Agent.edit,
        Agent.drop,
        Agent.swap,
        Agent.respell,
        Agent.compact,
        Agent.fork,
        Agent.settings,
        Agent.side,
        Agent.leave,
        Agent.own_parent,
        Agent.foreign,
        Agent.unanswered,
        Agent.fail,
        Agent.adopt,
        Agent.over_https,
    )
}
ACTS: Final = tuple(_ACTS)


def _is_retried(call: Call) -> bool:
    """Whether an SDK would send the request again by itself."""
    status = call.sink.status
    is_lost = call.sink.ending == "aborted" or status in (409, 429) or status >= 500
    is_forbidden = call.sink.headers.get(b"x-should-retry") == b"false"
    return is_lost and call.left_at is None and not is_forbidden
