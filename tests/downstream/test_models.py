"""The model cache: one question upstream for many, and never another identity's answer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from tests.canary import SECRET, secret
from tests.downstream.downstream_stage import (
    KEY,
    Seen,
    Stage,
    Upstream,
    by_authorization,
    eventually,
    stage,
)

ME, OTHER = (
    by_authorization([(b"authorization", f"Bearer {key}".encode())])
    for key in (SECRET, secret("other"))
)
FRESH = 299.0
STALE = 301.0
LATE = 3_901.0  # past stale-while-revalidate
EXPIRED = 86_401.0


@dataclass
class Catalogue:
    """An upstream with a model list that knows entity tags."""

    version: int = 1
    status: int = 200
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    size: int = 0

    def __post_init__(self) -> None:
        self.gate.set()

    async def reply(
        self, seen: Seen, _reader: asyncio.StreamReader, w: asyncio.StreamWriter
    ) -> None:
        await self.gate.wait()
        tag = b'"v%d"' % self.version
        if self.status == 0:
            w.close()
        elif self.status == 200 and seen.values(b"if-none-match") == [tag]:
            w.write(b"HTTP/1.1 304 Not Modified\r\nETag: " + tag + b"\r\n\r\n")
        else:
            body = b"list %d" % self.version + b"." * self.size
            head = b"HTTP/1.1 %d X\r\nETag: %b\r\nSet-Cookie: s=1\r\nX-A: b\r\n"
            w.write(head % (self.status, tag) + b"Content-Length: %d\r\n\r\n" % len(body) + body)


class Clock:
    """Time that moves when told to."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


async def listed(s: Stage, *fields: str, target: str = "/v1/models") -> bytes:
    """Status and body of one request."""
    head, _, body = (await s.get(target, KEY, *fields)).partition(b"\r\n\r\n")
    return head.split(b" ")[1] + b" " + body


async def test_a_fresh_list_is_given_without_upstream() -> None:
    clock = Clock()
    async with stage(Upstream(Catalogue().reply), clock=clock) as s:
        first = await s.get("/v1/models")
        clock.now += FRESH
        second = await s.get("/v1/models")
        assert set(first.split(b"\r\n")) - set(second.split(b"\r\n")) == {b"Set-Cookie: s=1"}
        assert second.endswith(b"\r\n\r\nlist 1")
        assert len(s.upstream.seen) == 1
        assert (s.app.models.counters.hits, s.app.models.counters.misses) == (1, 1)


async def test_a_hundred_at_once_ask_upstream_once() -> None:
    catalogue = Catalogue()
    catalogue.gate.clear()
    async with stage(Upstream(catalogue.reply)) as s:
        asks = [asyncio.create_task(listed(s)) for _ in range(100)]
        counters = s.app.models.counters
        await eventually(lambda: counters.hits + counters.misses == 100)
        catalogue.gate.set()
        assert set(await asyncio.gather(*asks)) == {b"200 list 1"}
        assert len(s.upstream.seen) == 1
        assert (counters.hits, counters.misses) == (99, 1)


@pytest.mark.parametrize(
    ("target", "fields"),
    [
        ("/v1/models", (f"Authorization: Bearer {secret('other')}",)),
        ("/v1/models?a=b", (KEY,)),
        ("/v1/models/gpt%2D5", (KEY,)),
        ("/v1/models", (KEY, "Accept-Encoding: gzip")),
    ],
    ids=["identity", "query", "id", "coding"],
)
async def test_a_line_belongs_to_one_identity_target_and_coding(
    target: str, fields: tuple[str, ...]
) -> None:
    async with stage(Upstream(Catalogue().reply)) as s:
        await s.get("/v1/models", KEY)
        await s.get(target, *fields)
        assert len(s.upstream.seen) == 2
        assert s.upstream.seen[1].line.split()[1] == target.encode()


async def test_an_old_list_is_given_at_once_and_renewed_behind_it() -> None:
    clock, catalogue = Clock(), Catalogue()
    async with stage(Upstream(catalogue.reply), clock=clock) as s:
        await listed(s)
        clock.now += STALE
        catalogue.version = 2
        catalogue.gate.clear()
        assert await listed(s) == b"200 list 1"
        assert await listed(s) == b"200 list 1"
        catalogue.gate.set()
        await eventually(lambda: not s.app.models.is_asking)
        assert await listed(s) == b"200 list 2"
        assert [seen.values(b"if-none-match") for seen in s.upstream.seen] == [[], [b'"v1"']]
        assert s.app.models.counters.stale_served == 2


async def test_an_unchanged_list_is_fresh_again_after_one_304() -> None:
    clock = Clock()
    async with stage(Upstream(Catalogue().reply), clock=clock) as s:
        await listed(s)
        clock.now += LATE
        assert await listed(s) == b"200 list 1"
        clock.now += FRESH
        assert await listed(s) == b"200 list 1"
        assert len(s.upstream.seen) == 2
        assert s.app.models.counters.revalidations == 1


@pytest.mark.parametrize("status", [0, 500, 503])
async def test_an_old_list_stands_in_while_upstream_cannot_answer(status: int) -> None:
    clock, catalogue = Clock(), Catalogue()
    async with stage(Upstream(catalogue.reply), clock=clock) as s:
        await listed(s)
        clock.now += LATE
        catalogue.status = status
        for _ in range(3):
            assert await listed(s) == b"200 list 1"
        assert len(s.upstream.seen) == 2
        clock.now += EXPIRED
        assert (await listed(s)).startswith(b"50")


@pytest.mark.parametrize("status", [401, 403, 404, 429])
async def test_upstreams_verdict_ends_the_line(status: int) -> None:
    clock, catalogue = Clock(), Catalogue()
    async with stage(Upstream(catalogue.reply), clock=clock) as s:
        await listed(s)
        clock.now += LATE
        catalogue.status = status
        assert (await listed(s)).startswith(b"%d " % status)
        catalogue.status = 0
        assert (await listed(s)).startswith(b"502 ")


@pytest.mark.parametrize("status", [401, 404, 500])
async def test_only_a_200_is_kept(status: int) -> None:
    catalogue = Catalogue(status=status)
    async with stage(Upstream(catalogue.reply)) as s:
        for _ in range(2):
            assert await listed(s) == b"%d list 1" % status
        assert len(s.upstream.seen) == 2


@pytest.mark.parametrize(
    ("tags", "is_known"),
    [('"v1"', True), ('W/"v1"', True), ('"x", "v1"', True), ("*", True), ('"v2"', False)],
)
async def test_a_client_that_has_the_list_is_told_304(tags: str, is_known: bool) -> None:
    async with stage(Upstream(Catalogue().reply)) as s:
        for _ in range(2):
            got = await s.get("/v1/models", f"If-None-Match: {tags}")
            assert got.startswith(b"HTTP/1.1 304 " if is_known else b"HTTP/1.1 200 ")
            assert b'\r\nETag: "v1"\r\n' in got
            assert got.endswith(b"\r\n\r\n" if is_known else b"list 1")
        assert len(s.upstream.seen) == 1


@pytest.mark.parametrize("wish", ["Cache-Control: no-cache", "Pragma: no-cache"])
async def test_a_client_can_insist_on_asking_upstream(wish: str) -> None:
    catalogue = Catalogue()
    async with stage(Upstream(catalogue.reply)) as s:
        await listed(s)
        assert await listed(s, wish) == b"200 list 1"
        catalogue.version = 2
        assert await listed(s, wish) == b"200 list 2"
        assert await listed(s) == b"200 list 2"
        assert len(s.upstream.seen) == 3
        assert s.app.models.counters.revalidations == 2


async def test_a_change_under_models_drops_the_lines_of_that_identity() -> None:
    async with stage(Upstream(Catalogue().reply)) as s:
        await listed(s)
        await s.get("/v1/models", f"Authorization: Bearer {secret('other')}")
        await s.ask(s.head("DELETE /v1/models/ft-1", KEY))
        await listed(s)
        await s.get("/v1/models", f"Authorization: Bearer {secret('other')}")
        methods = [seen.line.split()[0] for seen in s.upstream.seen]
        assert methods == [b"GET", b"GET", b"DELETE", b"GET"]


async def test_an_announced_list_that_differs_is_asked_for_again() -> None:
    catalogue = Catalogue()
    async with stage(Upstream(catalogue.reply)) as s:
        await listed(s)
        s.app.models.invalidate(ME, b'W/"v1"')
        s.app.models.invalidate(OTHER, b'"v2"')
        assert await listed(s) == b"200 list 1"
        assert len(s.upstream.seen) == 1
        catalogue.version = 2
        s.app.models.invalidate(ME, b"v2")
        assert await listed(s) == b"200 list 2"
        assert len(s.upstream.seen) == 2


async def test_an_announcement_that_never_fits_costs_one_question() -> None:
    async with stage(Upstream(Catalogue().reply)) as s:
        for _ in range(3):
            await listed(s)
            s.app.models.invalidate(ME, b"unrelated")
        await listed(s)
        assert len(s.upstream.seen) == 2


async def test_a_list_too_large_to_keep_is_passed_through() -> None:
    async with stage(Upstream(Catalogue(size=3_000_000).reply)) as s:
        for _ in range(2):
            assert len(await listed(s)) == len(b"200 list 1") + 3_000_000


@pytest.mark.parametrize("fields", [("Range: bytes=0-1",), ("Cache-Control: no-store",)])
async def test_requests_only_upstream_can_judge_pass(fields: tuple[str, ...]) -> None:
    async with stage(Upstream(Catalogue().reply)) as s:
        for _ in range(2):
            await listed(s, *fields)
        assert len(s.upstream.seen) == 2


async def test_a_question_outlives_the_client_that_put_it() -> None:
    catalogue = Catalogue()
    catalogue.gate.clear()
    async with stage(Upstream(catalogue.reply)) as s:
        client = await s.connect()
        client.send(s.head("GET /v1/models", KEY))
        await s.upstream.arrived.wait()
        client.writer.transport.abort()
        waiting = asyncio.create_task(listed(s))
        await eventually(lambda: s.app.models.counters.hits == 1)
        catalogue.gate.set()
        assert await waiting == b"200 list 1"
        assert len(s.upstream.seen) == 1
