"""A world to test in: a simulator and the proxy in front of it, over real sockets in one loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from tests.canary import SECRET, TEXT, WATCH
from wsproxy.config import Settings
from wsproxy.core.multiplexer import Multiplexer
from wsproxy.daemon import Daemon, running
from wsproxy.simulator import Fault, Rules, Simulator
from wsproxy.simulator.log import Create

Item = dict[str, Any]
Event = dict[str, Any]

KEY: Final = SECRET
#: Longest wait for something that must happen by itself; far above what any of it takes.
PATIENCE_S: Final = 5.0
TOOL: Final[Item] = {
    "type": "function",
    "name": "look",
    "description": "Looks something up.",
    "parameters": {
        "type": "object",
        "properties": {"query": {"type": "string"}, "limit": {"type": "integer"}},
        "required": ["query", "limit"],
        "additionalProperties": False,
    },
    "strict": True,
}


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer as its bytes; `is_cut`: the connection ended before the body did."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    is_cut: bool = False

    @property
    def route(self) -> str:
        """How the turn went: delta, fork, full, http or none."""
        return self.headers.get("x-wsproxy-route", "").partition(";")[0]

    @property
    def reason(self) -> str:
        """Why it was not a delta, "" if it was."""
        told = self.headers.get("x-wsproxy-route", "")
        return told.partition("reason=")[2].partition(";")[0]

    def json(self) -> Any:
        """The body as one JSON document."""
        return json.loads(self.body)

    def events(self) -> list[Event]:
        """The events of a streamed body."""
        return [json.loads(data) for _, data in self.frames()]

    def frames(self) -> list[tuple[str, str]]:
        """Name and data of each event, which must be spelled as contract §2 says."""
        parts = self.body.decode().split("\n\n")
        assert parts.pop() == "", "the last event has no end"
        found = []
        for part in parts:
            name, data = part.split("\n")
            assert name.startswith("event: "), part
            assert data.startswith("data: "), part
            found.append((name.removeprefix("event: "), data.removeprefix("data: ")))
        return found

    def response(self) -> Item:
        """The final Response object, streamed or not."""
        if "event-stream" in self.headers.get("content-type", ""):
            return dict(self.events()[-1]["response"])
        return dict(self.json())


class World:
    """What a test holds: the simulator, the proxy, and a plain HTTP client."""

    def __init__(self, sim: Simulator, proxy: Daemon, client: aiohttp.ClientSession) -> None:
        self.sim = sim
        self.proxy = proxy
        self.client = client

    @property
    def core(self) -> Multiplexer:
        """The proxy's state, to be looked at."""
        return self.proxy.driver._core

    async def turn(
        self,
        input: object,
        *,
        key: str = KEY,
        headers: Mapping[str, str] | None = None,
        **body: Any,
    ) -> Answer:
        """One turn through the proxy; `store` is false and the model "sim" unless said."""
        fields = {"model": "sim", "store": False, "input": input, **body}
        if isinstance(input, str):
            fields["input"] = f"{input} {TEXT}"
        if isinstance(body.get("metadata", {}), dict):  # its canary is what the model says
            fields["metadata"] = {"canary": TEXT, **body.get("metadata", {})}
        return await ask(
            self.client, self.proxy.base_url, json.dumps(fields).encode(), key, headers or {}
        )

    @property
    def seen(self) -> list[Create]:
        """The turns that reached the simulator; the proxy's own chain probe is none."""
        known = {None, *self.sim.transcripts}
        return [c for c in self.sim.log.creates() if c.previous_response_id in known]

    async def quiet(self) -> None:
        """Wait until no turn runs and no lane is busy: nothing may leak."""
        await eventually(lambda: self.is_quiet, self.core)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing runs any more, here or in the core's tables."""
        return is_quiet(self.proxy)

    async def chains_told(self) -> None:
        """Wait until the chain probe has had its answer."""
        await eventually(
            lambda: all(b.chains.name != "PROBING" for b in self.core.beliefs.shown().values()),
            self.core,
        )


def is_quiet(proxy: Daemon) -> bool:
    """Whether nothing runs any more, in the driver or in the core's tables."""
    core: Multiplexer = proxy.driver._core
    return not (
        proxy.driver.running_count
        or proxy.room.held_bytes
        or core.turns
        or core.waiting
        or any(not c.is_idle for c in core.pool.connections)
        or any(r.streams or r.default for r in core.relays.values())
    )


@asynccontextmanager
async def world(
    rules: Rules | None = None, *, faults: Sequence[Fault | str] = (), **settings: Any
) -> AsyncIterator[World]:
    """A running simulator and proxy; `settings` are the proxy's."""
    async with Simulator(rules or Rules(), faults=faults) as sim:
        given: dict[str, Any] = {"upstream": sim.base_url, "listen": ("127.0.0.1:0",)}
        async with running(Settings(**given | settings)) as proxy, http_client() as client:
            yield World(sim, proxy, client)
            await WATCH.look_at_proxy(proxy, client)


@asynccontextmanager
async def http_client() -> AsyncIterator[aiohttp.ClientSession]:
    """A client that shows what came, undecoded, and keeps no cookies."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    ) as client:
        yield client


async def ask(
    client: aiohttp.ClientSession,
    base_url: str,
    body: bytes,
    key: str = KEY,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """POST one turn and read the answer to its end, however it ends."""
    sent = {
        "Authorization": f"Bearer {key}",
        "Content-Type": "application/json",
        **(headers or {}),
    }
    async with client.post(f"{base_url}/responses", data=body, headers=sent) as response:
        parts: list[bytes] = []
        is_cut = False
        try:
            async for part in response.content.iter_any():
                parts.append(part)
        except aiohttp.ClientError:
            is_cut = True
        answer = Answer(response.status, response.headers, b"".join(parts), is_cut)
    if answer.route == "none":
        WATCH.look("an error of our own", answer.body)
    return answer


async def eventually(is_true: Callable[[], object], shown: object = "") -> None:
    """Wait until something holds; fails, showing `shown`, if it does not in time."""
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while not is_true():
        assert asyncio.get_running_loop().time() < deadline, repr(shown)
        await asyncio.sleep(0.002)


def user(text: str) -> Item:
    """A user message, with the canary in it."""
    said = f"{text} {TEXT}"
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": said}]}


def answers(output: Sequence[Item]) -> list[Item]:
    """An answer to each function call among the output items."""
    return [
        {"type": "function_call_output", "call_id": item["call_id"], "output": "ok"}
        for item in output
        if item["type"] == "function_call"
    ]
