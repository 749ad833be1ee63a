"""One turn at the service: from a validated request to its events, told to an outlet.

Rules of this file
------------------
1. `prepare` never waits; whatever the service refuses, it refuses there.
2. A response is committed (lane, store, conversation) before its terminal event leaves, so that a
   client may continue it at once.
3. Pure outcome first, costs and faults around it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from wsproxy.simulator.canonical import Item
from wsproxy.simulator.context import Context, ContextRules
from wsproxy.simulator.costs import Pace, PromptCache
from wsproxy.simulator.errors import (
    ApiError,
    invalid_json,
    named_error,
    previous_response_not_found,
)
from wsproxy.simulator.faults import Fault, Faults
from wsproxy.simulator.log import Create, Ended, Faulted, Log, Refused, Run
from wsproxy.simulator.model import Reply, reply_to
from wsproxy.simulator.outputs import Event
from wsproxy.simulator.request import Request, read_request
from wsproxy.simulator.response import finished, reply_events, skeleton, usage
from wsproxy.simulator.rules import Rules
from wsproxy.simulator.store import Kept, Store, Stored

_CACHE_STEP_TOKENS = 128  # the real cache counts in steps of that size
_LENIENT = ContextRules(check_pairing=False, verify_reasoning=False)


@dataclass(slots=True)
class Caller:
    """Who asks: the credential, the road, and what that road remembers."""

    owner: str
    connection: int
    via: str  # "ws" | "http"
    find_latest: Callable[[str], Kept | None]
    cache: PromptCache | None
    lane: str = ""


@dataclass(slots=True)
class Turn:
    """A request that was accepted, and everything it will say."""

    request: Request
    caller: Caller
    context: Context
    depth: int
    reply: Reply
    shown: Item
    done: Item
    uncached_tokens: int
    keepalive: bool
    on_commit: Callable[[Kept | None], None] | None = None

    def events(self) -> Iterator[Event]:
        """Every event, anew on each call."""
        obfuscate = self.request.obfuscate
        return reply_events(
            self.reply, self.shown, self.done, obfuscate=obfuscate, keepalive=self.keepalive
        )


class Outlet(Protocol):
    """Where a turn's events go."""

    async def send(self, event: Event) -> None:
        """Tell one event; raises or is cancelled when nobody is left to hear it."""

    async def perform(self, fault: Fault) -> None:
        """Perform a transport fault; returns if the turn goes on afterwards."""


class Turns:
    """The service behind the transports."""

    def __init__(self, rules: Rules, faults: Faults, log: Log) -> None:
        self.rules = rules
        self.faults = faults
        self.log = log
        self.store = Store(rules.kept_responses)
        self.transcripts: OrderedDict[str, list[Item]] = OrderedDict()
        self._http_caches: dict[str, PromptCache] = {}
        self._context_rules = ContextRules(rules.check_pairing, rules.verify_reasoning)

    @staticmethod
    def now() -> float:
        """Monotonic seconds."""
        return asyncio.get_running_loop().time()

    def http_cache(self, owner: str) -> PromptCache | None:
        """The prompt cache of plain HTTP calls, where there is one."""
        if not self.rules.http_prompt_cache:
            return None
        return self._http_caches.setdefault(owner, PromptCache())

    # -- accepting -----------------------------------------------------------------------------

    def prepare(self, fields: dict[str, Any], size: int, caller: Caller) -> Turn:
        """Accept a request or raise `ApiError`."""
        try:
            return self._accept(fields, size, caller)
        except RecursionError:
            raise invalid_json() from None

    def _accept(self, fields: dict[str, Any], size: int, caller: Caller) -> Turn:
        request = read_request(fields, size, refuse_unknown=self.rules.refuse_unknown_fields)
        start, depth, was_lost = self._starting_point(request, caller)
        rules = _LENIENT if was_lost else self._context_rules

        def lookup(item_id: str) -> Item | None:
            return self.store.item(caller.owner, item_id)

        context = start.extended(request.items, lookup, rules)
        if rules.check_pairing:
            context.check_answered()
        reply = reply_to(request, context, reencrypt=self.rules.reencrypt_reasoning)
        _refuse_on_order(reply)
        echo = None if was_lost and self._hides_loss() else request.previous_response_id
        return self._turn(request, caller, Kept(context, depth), reply, echo)

    def _turn(
        self, request: Request, caller: Caller, start: Kept, reply: Reply, echo: str | None
    ) -> Turn:
        context = start.context
        cached, uncached = self._cached(request, caller, context)
        shown = skeleton(request, reply, echo)
        output = [] if self.rules.empty_completed_output else _told([*reply.completed_items], reply)
        done = finished(shown, reply, output, usage(request, context, reply, cached))
        self._note_run(request, caller, context, reply, cached)
        return Turn(
            request=request,
            caller=caller,
            context=context,
            depth=start.depth,
            reply=reply,
            shown=shown,
            done=done,
            uncached_tokens=uncached,
            keepalive=self.rules.keepalive,
        )

    def _starting_point(self, request: Request, caller: Caller) -> tuple[Context, int, bool]:
        """What the model already holds, the turns it took, and whether the chain was lost."""
        if request.conversation is not None:
            return self.store.conversation(caller.owner, request.conversation), 0, False
        wanted = request.previous_response_id
        if wanted is None:
            return Context(), 0, False
        if self.rules.continuation != "kept":
            return Context(), 0, True
        parent = caller.find_latest(wanted)
        if parent is None:
            stored = self.store.get(caller.owner, wanted)
            parent = stored.kept if stored is not None else None
        if parent is None:
            raise previous_response_not_found(wanted)
        if self.rules.chain_turns and parent.depth >= self.rules.chain_turns:
            if self.rules.chain_loss == "refused":
                raise previous_response_not_found(wanted)
            return Context(), 0, True
        return parent.context, parent.depth, False

    def _hides_loss(self) -> bool:
        if self.rules.continuation == "kept":
            return self.rules.chain_loss == "silent_null"
        return self.rules.continuation == "ignored_null"

    def _cached(self, request: Request, caller: Caller, context: Context) -> tuple[int, int]:
        total = context.tokens + request.preamble_tokens
        if caller.cache is None:
            return 0, total
        cached = caller.cache.cached_tokens(request, context)
        caller.cache.learn(request, context)
        return cached // _CACHE_STEP_TOKENS * _CACHE_STEP_TOKENS, total - cached

    # -- telling -------------------------------------------------------------------------------

    async def tell(self, turn: Turn, outlet: Outlet) -> None:
        """Tell the turn to its outlet. Raises `ApiError` where it is refused after all."""
        ended = "abandoned"
        try:
            await self._tell(turn, outlet)
            ended = turn.reply.status
        except ApiError:
            ended = "error"
            raise
        finally:
            caller = turn.caller
            ids = (caller.connection, caller.lane, turn.reply.response_id)
            self.log.note(Ended(self.now(), *ids, ended))

    async def _tell(self, turn: Turn, outlet: Outlet) -> None:
        await self._cost(turn)
        await self._fault("before_first_event", turn, outlet)
        events = list(turn.events())
        fault = self.faults.take("mid_stream", turn.caller.via, turn.request.canary)
        due = len(events) // 2 if fault is None or fault.after < 0 else fault.after
        script = turn.reply.script
        pace = Pace(script.tokens_per_s or self.rules.tokens_per_s)
        last = len(events) - 1
        for number, event in enumerate(events):
            if fault is not None and number == min(due, last):
                await self._perform(fault, turn, outlet)
            if number == 1:
                _fail_after_created(script.fail)
                if script.think_ms:
                    await asyncio.sleep(script.think_ms / 1000)
            if pace.is_on and event["type"].endswith(".delta"):
                await pace.wait()
            if number == last:
                self.commit(turn)
            await outlet.send(event)
        await self._fault("after_terminal", turn, outlet)

    async def _cost(self, turn: Turn) -> None:
        seconds = turn.uncached_tokens * self.rules.prefill_s_per_token
        if seconds:
            await asyncio.sleep(seconds)

    async def arrival(self, size: int) -> None:
        """Wait as long as a request of that size takes to arrive and its answer to return."""
        rules = self.rules
        seconds = rules.round_trip_s
        if rules.uplink_bytes_per_s:
            seconds += size / rules.uplink_bytes_per_s
        if seconds:
            await asyncio.sleep(seconds)

    async def _fault(self, where: str, turn: Turn, outlet: Outlet) -> None:
        fault = self.faults.take(where, turn.caller.via, turn.request.canary)
        if fault is not None:
            await self._perform(fault, turn, outlet)

    async def _perform(self, fault: Fault, turn: Turn, outlet: Outlet) -> None:
        canary = turn.request.canary
        connection = turn.caller.connection
        self.log.note(Faulted(self.now(), connection, fault.where, fault.what, canary))
        if fault.what == "error":
            raise named_error(fault.argument)
        await outlet.perform(fault)

    # -- committing ----------------------------------------------------------------------------

    def commit(self, turn: Turn) -> Kept | None:
        """Persist a finished turn; returns it as a parent if it can be continued."""
        kept = self._as_parent(turn) if turn.reply.status == "completed" else None
        request, owner = turn.request, turn.caller.owner
        if request.store:
            self.store.put(owner, Stored(turn.done, list(request.items), turn.events, kept))
            self.store.put_items(
                owner, [*_own(request.items), *(d.item for d in turn.reply.drafts)]
            )
        if request.conversation is not None and kept is not None:
            self.store.put_conversation(owner, request.conversation, kept.context)
        if turn.on_commit is not None:
            turn.on_commit(kept)
        return kept

    def _as_parent(self, turn: Turn) -> Kept:
        written = [draft.item for draft in turn.reply.drafts]
        context = turn.context.extended(written, lambda _: None, _LENIENT)
        return Kept(context, turn.depth + 1)

    # -- noting --------------------------------------------------------------------------------

    def note_create(
        self, fields: dict[str, Any], size: int, wire_size: int, caller: Caller
    ) -> None:
        """Log that a turn arrived, with the bytes of its JSON and those on the wire."""
        items = fields.get("input")
        count = len(items) if isinstance(items, list) else int(items is not None)
        previous = fields.get("previous_response_id")
        self.log.note(
            Create(
                at=self.now(),
                connection=caller.connection,
                via=caller.via,
                lane=caller.lane,
                size=size,
                wire_size=wire_size,
                items=count,
                previous_response_id=previous if isinstance(previous, str) else None,
                canary=_canary(fields),
            )
        )

    def note_refusal(self, fields: dict[str, Any], caller: Caller, error: ApiError) -> None:
        """Log that a turn was refused, before it ran or in the middle."""
        self.log.note(
            Refused(
                at=self.now(),
                connection=caller.connection,
                via=caller.via,
                lane=caller.lane,
                status=error.status,
                code=error.code,
                message=error.message,
                canary=_canary(fields),
            )
        )

    def _note_run(
        self, request: Request, caller: Caller, context: Context, reply: Reply, cached: int
    ) -> None:
        self.transcripts[reply.response_id] = list(context.items)
        if len(self.transcripts) > self.rules.kept_transcripts:
            self.transcripts.popitem(last=False)
        self.log.note(
            Run(
                at=self.now(),
                connection=caller.connection,
                via=caller.via,
                lane=caller.lane,
                response_id=reply.response_id,
                canary=request.canary,
                digest=reply.seed.hex(),
                context_items=len(context.items),
                cached_tokens=cached,
            )
        )


def _own(items: Sequence[Item]) -> list[Item]:
    """Without references: what they name is stored already."""
    return [item for item in items if item.get("type") != "item_reference"]


def items_as_done(reply: Reply) -> list[Item]:
    """The output as `response.output_item.done` told it."""
    return _told([draft.item for draft in reply.drafts], reply)


def _told(items: list[Item], reply: Reply) -> list[Item]:
    """Without the item that a failure cut off, or with the last one shown as incomplete."""
    if reply.status == "failed":
        return items[:-1]
    if reply.status == "incomplete" and items and "status" in items[-1]:
        items[-1] = {**items[-1], "status": "incomplete"}
    return items


def _refuse_on_order(reply: Reply) -> None:
    fail = reply.script.fail
    if fail and fail not in {"failed", "incomplete"} and not fail.startswith("after_created:"):
        raise named_error(fail)


def _fail_after_created(fail: str) -> None:
    if fail.startswith("after_created:"):
        raise named_error(fail.removeprefix("after_created:"))


def _canary(fields: dict[str, Any]) -> str:
    metadata = fields.get("metadata")
    return str(metadata.get("canary", "")) if isinstance(metadata, dict) else ""
