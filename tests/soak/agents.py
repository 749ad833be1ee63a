"""Agents that talk, retry as an SDK does, and check every answer."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import aiohttp
import msgspec

from tests.worlds import Answer, Item, answers, ask, user

TURNS_A_CONVERSATION: Final = 12
#: What the openai SDK retries, and how often (its default is 2; agents ask for more).
RETRIED: Final = frozenset({408, 409, 429, 500, 502, 503, 504})
RETRIES: Final = 6
#: No turn may take longer than all deadlines on its way together.
HANG_S: Final = 60.0
#: As many as one key may have connections: more would take each other's lanes away.
SESSIONS: Final = 8
LEAVES: Final = 0.03  # share of turns whose client goes away in the middle
PAUSE_S: Final = (1.0, 4.0)


@dataclass(slots=True)
class Tally:
    """What came of all turns."""

    first_try: int = 0
    after_retry: int = 0
    failed: int = 0
    left: int = 0
    violations: list[str] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    routes: Counter[str] = field(default_factory=Counter)
    attempts: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    @property
    def turns(self) -> int:
        """Turns that somebody waited for to the end."""
        return self.first_try + self.after_retry + self.failed


class Agent:
    """One agent: conversations one after another, for ever."""

    def __init__(self, number: int, seed: int, base_url: str, tally: Tally) -> None:
        self._number = number
        self._dice = random.Random(seed * 1_000 + number)
        self._base_url = base_url
        self._tally = tally
        self._turn = 0

    async def run(self) -> None:
        """Until cancelled."""
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as client:
            while True:
                await self._converse(client)

    async def _converse(self, client: aiohttp.ClientSession) -> None:
        items: list[Item] = [user(f"agent {self._number}: question {self._turn}")]
        for _ in range(TURNS_A_CONVERSATION):
            await asyncio.sleep(self._dice.uniform(*PAUSE_S))
            self._turn += 1
            if self._dice.random() < LEAVES:
                await self._leave(client, items)
            output = await self._answered(client, items)
            if output is None:
                return
            items += output
            items += answers(output) or [user("go on")]

    async def _answered(
        self, client: aiohttp.ClientSession, items: list[Item]
    ) -> list[Item] | None:
        canary = f"{self._number}.{self._turn}"
        started = time.monotonic()
        for attempt in range(RETRIES + 1):
            answer = await self._attempt(client, items, canary)
            if answer is not None and is_whole(answer):
                self._count(attempt, started)
                return self._checked(answer, items, canary)
            if answer is not None and answer.status not in {200, *RETRIED}:
                self._tally.violations.append(f"{canary}: {answer.status} {answer.body[:200]!r}")
                break
            await asyncio.sleep(min(0.5 * 2**attempt, 4.0) * self._dice.uniform(0.75, 1.0))
        self._tally.failed += 1
        return None

    async def _attempt(
        self, client: aiohttp.ClientSession, items: list[Item], canary: str
    ) -> Answer | None:
        self._tally.attempts[canary] += 1
        try:
            async with asyncio.timeout(HANG_S):
                answer = await ask(
                    client, self._base_url, self._body(items, canary), headers=self._headers()
                )
        except TimeoutError:
            self._tally.violations.append(f"{canary}: no end within {HANG_S} s")
            return None
        except aiohttp.ClientError as error:
            self._tally.statuses[type(error).__name__] += 1
            return None
        self._tally.statuses["cut" if answer.is_cut else str(answer.status)] += 1
        self._tally.routes[f"{answer.route} {answer.reason}".strip()] += 1
        is_ours = answer.route not in ("http", "")  # a direct answer is cut without a word
        if answer.is_cut and is_ours and b"event: error" not in answer.body:
            self._tally.violations.append(f"{canary}: cut without an error event")
        return answer

    def _checked(self, answer: Answer, items: list[Item], canary: str) -> list[Item]:
        response = answer.response()
        output: list[Item] = response["output"]
        texts = [i["content"][0]["text"] for i in output if i["type"] == "message"]
        if response["status"] != "completed" or any(
            not text.startswith(f"items={len(items)} ") for text in texts
        ):
            self._tally.violations.append(f"{canary}: {len(items)} items, {texts!r:.200}")
        return output

    def _count(self, attempt: int, started: float) -> None:
        if attempt:
            self._tally.after_retry += 1
        else:
            self._tally.first_try += 1
        self._tally.seconds.append(time.monotonic() - started)

    async def _leave(self, client: aiohttp.ClientSession, items: list[Item]) -> None:
        canary = f"{self._number}.{self._turn}.left"
        self._tally.attempts[canary] += 1
        self._tally.left += 1
        turn = asyncio.ensure_future(
            ask(client, self._base_url, self._body(items, canary), headers=self._headers())
        )
        await asyncio.wait({turn}, timeout=self._dice.uniform(0, 0.05))
        turn.cancel()
        await asyncio.gather(turn, return_exceptions=True)

    def _headers(self) -> dict[str, str]:
        return {"session-id": f"session {self._number % SESSIONS}"}

    def _body(self, items: list[Item], canary: str) -> bytes:
        return msgspec.json.encode(
            {
                "model": "sim",
                "store": False,
                "stream": self._number % 4 != 0,
                "input": items,
                "tools": [_TOOL],
                "metadata": {"canary": canary, "sim.tool_calls": "5", "sim.think_ms": "20"},
            }
        )


def is_whole(answer: Answer) -> bool:
    """Whether the model's answer is there to its end; a late verdict ends a stream cleanly."""
    if answer.status != 200 or answer.is_cut:
        return False
    is_stream = "event-stream" in answer.headers.get("content-type", "")
    return not is_stream or answer.events()[-1]["type"] != "error"


_TOOL: Final = {
    "type": "function",
    "name": "look",
    "description": "",
    "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
    "strict": True,
}
