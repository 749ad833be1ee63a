"""What a real service takes its time for: prompts it has not cached, tokens it writes."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final

from wsproxy.simulator.context import Context
from wsproxy.simulator.request import Request

_CACHE_ENTRIES: Final = 20_000  # prefixes; an agent loop of 500 turns needs some 2,000


class PromptCache:
    """Prefixes one machine has seen: a digest of the items so far → tokens up to there."""

    def __init__(self) -> None:
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    def cached_tokens(self, request: Request, context: Context) -> int:
        """Tokens of the longest known prefix."""
        for index in range(len(context.marks) - 1, -1, -1):
            if request.cache_key + context.marks[index] in self._seen:
                return context.tokens_at[index] + request.preamble_tokens
        return 0

    def learn(self, request: Request, context: Context) -> None:
        """Every prefix of this context is known from now on."""
        for mark in reversed(context.marks):
            key = request.cache_key + mark
            if key in self._seen:
                break
            self._seen[key] = None
        while len(self._seen) > _CACHE_ENTRIES:
            self._seen.popitem(last=False)


class Pace:
    """Deltas at a steady rate, measured from the first, so that oversleeping is caught up."""

    def __init__(self, per_s: float) -> None:
        self.is_on = per_s > 0
        self._step_s = 1 / per_s if self.is_on else 0.0
        self._due = 0.0

    async def wait(self) -> None:
        """Sleep until the next delta is due."""
        now = asyncio.get_running_loop().time()
        self._due = (self._due or now) + self._step_s
        if self._due > now:
            await asyncio.sleep(self._due - now)
