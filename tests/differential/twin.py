"""The oracle over real sockets: every request is sent directly and through the proxy, and must
read the same; and what the model saw must be what the client sent, item for item."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from tests.canary import secret
from tests.differential.upstreams import Upstream
from tests.worlds import Answer, World, ask, world
from wsproxy.simulator import Simulator, meaning
from wsproxy.simulator.log import Create, Opened, Run

Item = dict[str, Any]

#: Contract §2: what may differ between the two answers.
_CACHED: Final = re.compile(rb'("cached_tokens": ?)\d+')
_ROUTE: Final = re.compile(r"(delta|fork|(full|http|none); reason=[a-z_]+(; [a-z]+=[^;]+)*)\Z")
#: Error frames that have room for headers (protocol.md §3.4).
_SHAPES_WITH_HEADERS: Final = frozenset({"a", "d", "e"})
#: Headers of WebSocket-only frames that HTTP puts on the response.
_ANNOUNCED: Final = ("openai-model", "x-codex-turn-state", "x-models-etag")


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. `full` is the whole context it means, None if it cannot run."""

    body: bytes
    key: str
    headers: Mapping[str, str] = field(default_factory=dict)
    full: Sequence[Item] | None = None


class DifferenceError(Exception):
    """The two answers are not the same, or the model saw something else."""


class Twin:
    """One script's two upstreams, and the proxy before one of them."""

    def __init__(self, upstream: Upstream, direct: Simulator, scene: World) -> None:
        self.upstream = upstream
        self.direct = direct
        self.scene = scene
        self.routes: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()  # requests by canary

    async def turn(self, request: Ask) -> Answer:
        """Send it both ways; the direct answer. Raises `DifferenceError`."""
        client, key = self.scene.client, secret(request.key)
        direct, through = await asyncio.gather(
            ask(client, self.direct.base_url, request.body, key, request.headers),
            ask(client, self.scene.proxy.base_url, request.body, key, request.headers),
        )
        self.sent[_canary(request.body)] += 1
        told = f"{through.route} {through.reason}".strip()
        self.routes[told] += 1
        try:
            self._check_context(through, request)
            self._compare(direct, through)
        except DifferenceError as error:
            raise DifferenceError(_story(request, direct, through, error)) from error
        return direct

    async def leave(self, request: Ask, after_s: float, *, reads_first: bool) -> None:
        """Send it through the proxy and leave: at the first bytes, or after so long."""
        self.sent[_canary(request.body)] += 1
        headers = {
            "Authorization": f"Bearer {secret(request.key)}",
            "Content-Type": "application/json",
            **request.headers,
        }
        url = f"{self.scene.proxy.base_url}/responses"

        async def begin() -> None:
            post = self.scene.client.post(url, data=request.body, headers=headers)
            async with post as response:
                if reads_first:
                    await response.content.readany()
                    response.close()
                else:
                    await response.content.read()

        task = asyncio.ensure_future(begin())
        await asyncio.wait({task}, timeout=None if reads_first else after_s)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    # ── Comparing ────────────────────────────────────────────────────────────────────────────

    def _compare(self, direct: Answer, through: Answer) -> None:
        shape = self.upstream.rules.error_shape
        is_error = direct.status >= 400
        if not (is_error and shape in {"b", "f"} and through.route != "http"):
            same("status", through.status, direct.status)
        same("is cut", through.is_cut, direct.is_cut)
        same("content-type", through.headers["content-type"], direct.headers["content-type"])
        if through.route == "http" or shape in _SHAPES_WITH_HEADERS:
            same(
                "retry-after", through.headers.get("retry-after"), direct.headers.get("retry-after")
            )
        if not _ROUTE.match(through.headers.get("x-wsproxy-route", "")):
            raise DifferenceError(f"route: {through.headers.get('x-wsproxy-route')}")
        same("x-wsproxy-turn", bool(through.headers.get("x-wsproxy-turn")), True)
        if self.upstream.rules.noise and direct.status == 200 and through.route != "http":
            for name in _ANNOUNCED:
                # A frame without a lane is nobody's while several turns wait for their first event.
                if name in through.headers:
                    same(name, through.headers[name], direct.headers[name])
        if is_error:
            error = self._error(direct.json()["error"])
            same("error", self._error(through.json()["error"]), error)
        elif "event-stream" in direct.headers["content-type"]:
            self._compare_streams(direct, through)
        else:
            same("document", _document(through.body), _document(direct.body))

    def _compare_streams(self, direct: Answer, through: Answer) -> None:
        expected, found = direct.frames(), through.frames()
        if expected[-1][0] == "error" and found[-1][0] == "error":
            last, other = expected.pop(), found.pop()
            same("error", self._error(json.loads(other[1])), self._error(json.loads(last[1])))
            same("events", found, expected)
        else:
            same("bytes", _masked(through.body), _masked(direct.body))

    def _error(self, error: Item) -> Item:
        """An error as far as this upstream's frames tell it; absent members count as null."""
        untold = {"f": {"type", "param"}, "g": {"code", "param"}}.get(
            self.upstream.rules.error_shape, set()
        )
        return {k: v for k, v in error.items() if v is not None and k not in untold}

    def _check_context(self, through: Answer, request: Ask) -> None:
        if through.status != 200 or request.full is None:
            return
        if "event-stream" in through.headers["content-type"]:
            response_id = through.events()[0]["response"]["id"]
        else:
            response_id = through.json()["id"]
        held = self.scene.sim.transcripts[response_id]
        same("context", [meaning(item) for item in held], [meaning(i) for i in request.full])

    # ── At the end ───────────────────────────────────────────────────────────────────────────

    async def check_end(self) -> None:
        """Nothing runs any more, no turn ran twice, no key used another's connection."""
        await self.scene.quiet()
        self._check_runs()
        self._check_keys()

    def _check_runs(self) -> None:
        for canary, count in Counter(run.canary for run in self.scene.sim.log.of(Run)).items():
            if canary and count > self.sent[canary]:
                raise DifferenceError(f"{canary} ran {count} times, sent {self.sent[canary]}")

    def _check_keys(self) -> None:
        opened = {o.connection: o for o in self.scene.sim.log.of(Opened) if o.via == "ws"}
        for create in self.scene.sim.log.of(Create):
            if create.via == "ws" and create.canary:
                key = opened[create.connection].authorization.removeprefix(f"Bearer {secret('')}")
                if not create.canary.startswith(key + "."):
                    raise DifferenceError(f"{create.canary} ran on a connection of {key}")


@asynccontextmanager
async def twin(upstream: Upstream) -> AsyncIterator[Twin]:
    """Both worlds of one script."""
    async with (
        Simulator(upstream.rules) as direct,
        world(upstream.rules, **upstream.settings) as scene,
    ):
        yield Twin(upstream, direct, scene)


def same(what: str, found: object, expected: object) -> None:
    """Raises `DifferenceError` that shows where the two begin to differ."""
    if found == expected:
        return
    one, two = _shown(found), _shown(expected)
    at = next((n for n, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), len(one))
    start = max(0, at - 160)
    raise DifferenceError(
        f"{what} differs at {at}:\n  through …{one[start : at + 240]}\n"
        f"  direct  …{two[start : at + 240]}"
    )


def _shown(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _masked(body: bytes) -> bytes:
    return _CACHED.sub(rb"\g<1>0", body)


def _document(body: bytes) -> str:
    """A JSON document in one spelling, without what the mask takes out."""
    document = json.loads(_masked(body))
    document.pop("billing", None)
    return json.dumps(document, sort_keys=True, ensure_ascii=False)


def _canary(body: bytes) -> str:
    try:
        return str(json.loads(body)["metadata"]["canary"])
    except (ValueError, TypeError, KeyError):
        return ""


def _story(request: Ask, direct: Answer, through: Answer, error: DifferenceError) -> str:
    return "\n".join(
        [
            f"{error}",
            f"direct {direct.status}, through {through.status} "
            f"{through.headers.get('x-wsproxy-route')}",
            f"key {request.key}, headers {dict(request.headers)}, request:",
            request.body.decode("utf-8", "replace"),
        ]
    )
