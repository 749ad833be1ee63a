"""A stage for faults: simulator ← fault link ← proxy ← openai SDK, all over real sockets."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import openai

from tests.canary import TEXT, WATCH
from tests.links.fault_link import FaultLink
from tests.worlds import KEY, World, eventually, http_client
from wsproxy.config import Settings
from wsproxy.daemon import running
from wsproxy.simulator import Fault, Rules, Simulator

_DESCRIPTORS: Final = Path("/proc/self/fd")


class Stage(World):
    """A world with a fault link on the way upstream."""

    link: FaultLink

    def generations(self, canary: str) -> int:
        """How often the model ran for this canary, over either transport."""
        return sum(count for (name, _), count in self.sim.log.runs().items() if name == canary)


@asynccontextmanager
async def stage(
    *orders: Fault | str, rules: Rules | None = None, **settings: Any
) -> AsyncIterator[Stage]:
    """A running stage; when it ends, no task and no socket may be left of it."""
    tasks, sockets = asyncio.all_tasks(), _socket_count()
    async with Simulator(rules or Rules(), faults=orders) as sim, FaultLink(sim.port) as link:
        upstream = f"http://127.0.0.1:{link.port}/v1"
        chosen = Settings(upstream=upstream, listen=("127.0.0.1:0",), **settings)
        async with running(chosen) as proxy, http_client() as client:
            built = Stage(sim, proxy, client)
            built.link = link
            yield built
            await WATCH.look_at_proxy(proxy, client)
    await eventually(lambda: asyncio.all_tasks() <= tasks, "tasks are left behind")
    await eventually(lambda: _socket_count() <= sockets, "sockets are left behind")


def _socket_count() -> int:
    if not _DESCRIPTORS.exists():  # macOS: the tasks' check has to do
        return 0
    count = 0
    for entry in os.listdir(_DESCRIPTORS):
        try:
            count += os.readlink(_DESCRIPTORS / entry).startswith("socket:")
        except OSError:
            continue
    return count


# ── The SDK's eyes ───────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class Met:
    """What the SDK's user met. `requests` counts what the SDK sent, its own retries included."""

    requests: int = 0
    text: str = ""
    events: list[Any] = field(default_factory=list)
    error: openai.APIError | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def status(self) -> int:
        """The status of the answer, 0 if the connection broke."""
        return self.error.status_code if isinstance(self.error, openai.APIStatusError) else 0

    @property
    def kind(self) -> str:
        """The name of the exception, "" if there was none."""
        return type(self.error).__name__ if self.error is not None else ""

    @property
    def code(self) -> str:
        """The error's code, told as a status or in the stream."""
        if self.events and self.events[-1].type == "error":
            return str(self.events[-1].code)
        return str(self.error.code) if self.error is not None else ""


async def meet(base_url: str, canary: str, *, stream: bool, retries: int = 0, **body: Any) -> Met:
    """One turn by the asynchronous SDK, to whatever end it has."""
    met = Met()
    transport = openai.DefaultAsyncHttpxClient(event_hooks=_hooks(met))
    async with openai.AsyncOpenAI(
        base_url=base_url, api_key=KEY, max_retries=retries, http_client=transport
    ) as client:
        try:
            ask = client.responses.with_raw_response
            answer = await ask.create(stream=stream, **_body(canary, body))
            if stream:
                async for event in answer.parse():
                    met.events.append(event)
                    if event.type == "response.completed":
                        met.text = event.response.output_text
            else:
                met.text = answer.parse().output_text
        except openai.APIError as error:
            met.error = error
    return met


def meet_in_thread(
    base_url: str, canary: str, *, stream: bool, retries: int = 0, **body: Any
) -> Met:
    """One turn by the synchronous SDK."""
    met = Met()

    def count(request: Any) -> None:
        met.requests += 1

    def note(response: Any) -> None:
        met.headers = response.headers

    hooks: dict[str, list[Any]] = {"request": [count], "response": [note]}
    transport = openai.DefaultHttpxClient(event_hooks=hooks)
    with openai.OpenAI(
        base_url=base_url, api_key=KEY, max_retries=retries, http_client=transport
    ) as client:
        try:
            answer = client.responses.create(stream=stream, **_body(canary, body))
            if stream:
                met.events += answer
                met.text = met.events[-1].response.output_text
            else:
                met.text = answer.output_text
        except openai.APIError as error:
            met.error = error
    return met


def _hooks(met: Met) -> dict[str, list[Any]]:
    async def count(request: Any) -> None:
        met.requests += 1

    async def note(response: Any) -> None:
        met.headers = response.headers

    return {"request": [count], "response": [note]}


def _body(canary: str, body: dict[str, Any]) -> dict[str, Any]:
    metadata = {"canary": canary, **body.pop("metadata", {})}
    return {
        "model": "gpt-5.6",
        "input": f"hello {TEXT}",
        "store": False,
        "metadata": metadata,
        **body,
    }


def port_of(url: str) -> int:
    """The port in a URL."""
    port = urlsplit(url).port
    assert port is not None
    return port
