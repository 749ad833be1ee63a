"""The model list, kept so that an agent's start does not wait for upstream (contract §8).

Rules of this file
------------------
1. A line belongs to one identity, one raw target and one Accept-Encoding; nobody else sees it.
2. Only a 200 is kept. Any other verdict of upstream on the same target ends the line.
3. One question at a time goes upstream for a line; everyone who asks meanwhile shares its answer.
4. An old answer is given for a new one only while it is being refreshed, or when upstream cannot
   answer at all (no connection, timeout, 5xx).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web
from lru import LRU

from wsproxy.downstream.answers import RawAnswer
from wsproxy.downstream.passthrough import pass_through, upstream_refusal
from wsproxy.ports import Headers, Rest, RestError, RestResponse

FRESH_S: Final = 300.0
#: How long after that the old list is given at once while a new one is fetched.
STALE_WHILE_REVALIDATE_S: Final = 3_600.0
STALE_IF_ERROR_S: Final = 86_400.0
#: After a failed refresh the old list is given without asking again.
ERROR_PAUSE_S: Final = 10.0
FETCH_TIMEOUT_S: Final = 60.0  # of one question to upstream, whoever still waits for it
MAX_ENTRY_BYTES: Final = 2_097_152
MAX_ENTRIES: Final = 32  # with the line above: 64 MiB if all were full; real lists have 20 KB
_NEVER: Final = float("-inf")

#: Requests that name a part, or a condition that only upstream can judge.
_UNCACHED: Final = frozenset({b"range", b"if-range", b"if-match", b"if-unmodified-since"})
_CONDITIONS: Final = frozenset({b"if-none-match", b"if-modified-since"})
#: Of one exchange, not of the list.
_NOT_KEPT: Final = frozenset({b"set-cookie", b"content-length"})
_OF_A_304: Final = frozenset(
    {b"etag", b"cache-control", b"date", b"expires", b"vary", b"content-location"}
)


@dataclass(frozen=True, slots=True)
class Key:
    """One line: who asks (`pool_key`), for what, in which coding."""

    pool_key: bytes
    target: str
    accept_encoding: bytes


@dataclass(slots=True)
class Entry:
    """A kept 200. Times are on the injected clock, in seconds."""

    headers: Headers = field(repr=False)
    body: bytes = field(repr=False)
    stored_at: float
    fresh_until: float
    paused_until: float = _NEVER
    announced_etag: bytes | None = None

    @property
    def etag(self) -> bytes | None:
        """The entity tag as upstream wrote it."""
        return _first(self.headers, b"etag")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one question to upstream brought."""

    status: int
    reason: str
    headers: Headers = field(repr=False)
    body: bytes | None = field(repr=False)  # None: larger than what we keep
    error: RestError | None = None

    @property
    def is_failure(self) -> bool:
        """True if upstream could not answer: the old list may stand in."""
        return self.error is not None or self.status >= 500


@dataclass(slots=True)
class ModelCounters:
    """How requests were answered: `hits` without a question of their own, from the line or from
    what another request had asked. `revalidations` counts conditional questions to upstream."""

    hits: int = 0
    misses: int = 0
    revalidations: int = 0
    stale_served: int = 0


@dataclass(slots=True)
class ModelCache:
    """Answers everything under `<base>/models`.

    `pool_key` maps a request's raw headers to the identity that owns them. `clock` is monotonic.
    """

    rest: Rest
    pool_key: Callable[[Headers], bytes]
    clock: Callable[[], float] = time.monotonic
    fresh_s: float = FRESH_S
    stale_if_error_s: float = STALE_IF_ERROR_S
    max_entry_bytes: int = MAX_ENTRY_BYTES
    counters: ModelCounters = field(default_factory=ModelCounters)
    _entries: LRU[Key, Entry] = field(default_factory=lambda: LRU(MAX_ENTRIES))
    _asking: dict[Key, asyncio.Task[Verdict]] = field(default_factory=dict)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request from the line, or from upstream."""
        if request.method not in ("GET", "HEAD", "OPTIONS"):
            self._drop(self.pool_key(request.raw_headers))
        if request.method != "GET" or _must_pass(request):
            return await pass_through(request, self.rest)
        key = Key(
            self.pool_key(request.raw_headers),
            request.raw_path,
            _first(request.raw_headers, b"accept-encoding") or b"",
        )
        entry = self._entries.get(key)
        if entry is None:
            is_asked = key in self._asking
            self.counters.hits += is_asked
            self.counters.misses += not is_asked
            return await self._asked(request, key, None)
        if _wants_validation(request):
            return await self._asked(request, key, None)
        return await self._kept(request, key, entry)

    def invalidate(self, pool_key: bytes, etag: bytes) -> None:
        """Upstream announced `etag` for this identity's list: what differs is asked for again."""
        for key, entry in self._entries.items():
            if key.pool_key != pool_key or etag == entry.announced_etag:
                continue
            entry.announced_etag = etag
            if entry.etag is None or _opaque(entry.etag) != _opaque(etag):
                entry.fresh_until = entry.stored_at = _NEVER

    @property
    def is_asking(self) -> bool:
        """True while a question is under way."""
        return bool(self._asking)

    async def close(self) -> None:
        """End the questions under way."""
        asking = list(self._asking.values())
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    async def _kept(self, request: web.BaseRequest, key: Key, entry: Entry) -> web.StreamResponse:
        now = self.clock()
        if now < entry.fresh_until:
            self.counters.hits += 1
            return _answer(request, entry.headers, entry.body)
        if now < entry.paused_until and self._can_stand_in(entry, now):
            self.counters.stale_served += 1
            return _answer(request, entry.headers, entry.body)
        if now < entry.fresh_until + STALE_WHILE_REVALIDATE_S:
            self._ask(key, request.raw_headers)
            self.counters.stale_served += 1
            return _answer(request, entry.headers, entry.body)
        return await self._asked(request, key, entry)

    async def _asked(
        self, request: web.BaseRequest, key: Key, stand_in: Entry | None
    ) -> web.StreamResponse:
        # The question outlives the client that put it: others may wait for the same answer.
        verdict = await asyncio.shield(self._ask(key, request.raw_headers))
        if verdict.is_failure and stand_in and self._can_stand_in(stand_in, self.clock()):
            self.counters.stale_served += 1
            return _answer(request, stand_in.headers, stand_in.body)
        if verdict.error is not None:
            return upstream_refusal(verdict.error)
        entry = self._entries.get(key)
        if verdict.status == 304 and entry is not None:
            return _answer(request, entry.headers, entry.body)
        if verdict.body is None or verdict.status == 304:
            return await pass_through(request, self.rest)
        if verdict.status == 200:
            return _answer(request, verdict.headers, verdict.body)
        return RawAnswer(verdict.status, verdict.headers, reason=verdict.reason, body=verdict.body)

    def _can_stand_in(self, entry: Entry, now: float) -> bool:
        return now < entry.stored_at + self.stale_if_error_s

    def _ask(self, key: Key, headers: Headers) -> asyncio.Task[Verdict]:
        task = self._asking.get(key)
        if task is None:
            task = asyncio.create_task(self._question(key, headers))
            self._asking[key] = task
            task.add_done_callback(lambda _task: self._asking.pop(key, None))
        return task

    async def _question(self, key: Key, headers: Headers) -> Verdict:
        entry = self._entries.get(key)
        fields = [field for field in headers if field[0].lower() not in _CONDITIONS]
        if entry is not None and entry.etag is not None:
            self.counters.revalidations += 1
            fields.append((b"If-None-Match", entry.etag))
        verdict = await self._fetched(key, fields)
        self._learn(key, entry, verdict)
        return verdict

    async def _fetched(self, key: Key, fields: Headers) -> Verdict:
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_S):
                response = await self.rest.send("GET", key.target, fields, None)
                try:
                    body = await _bounded(response, self.max_entry_bytes)
                    return Verdict(response.status, response.reason, response.headers, body)
                finally:
                    response.close()
        except RestError as error:
            return Verdict(error.status, "", (), b"", error)
        except TimeoutError:
            late = RestError(504, "upstream_timeout", "Upstream did not answer in time.")
            return Verdict(504, "", (), b"", late)

    def _learn(self, key: Key, entry: Entry | None, verdict: Verdict) -> None:
        now = self.clock()
        if verdict.is_failure:
            if entry is not None:
                entry.paused_until = now + ERROR_PAUSE_S
        elif verdict.status == 304 and entry is not None:
            entry.stored_at, entry.fresh_until = now, now + self.fresh_s
            self._entries[key] = entry
        elif verdict.status == 200 and verdict.body is not None:
            kept = [field for field in verdict.headers if field[0].lower() not in _NOT_KEPT]
            announced = entry.announced_etag if entry is not None else None
            self._entries[key] = Entry(
                kept, verdict.body, now, now + self.fresh_s, announced_etag=announced
            )
        elif entry is not None:
            self._entries.pop(key, None)

    def _drop(self, pool_key: bytes) -> None:
        for key in [each for each, _ in self._entries.items() if each.pool_key == pool_key]:
            del self._entries[key]


async def _bounded(response: RestResponse, max_bytes: int) -> bytes | None:
    parts: list[bytes] = []
    size = 0
    async for chunk in response.chunks():
        parts.append(chunk)
        size += len(chunk)
        if size > max_bytes:
            return None
    return b"".join(parts)


def _answer(request: web.BaseRequest, headers: Headers, body: bytes) -> RawAnswer:
    asked = _all(request.raw_headers, b"if-none-match")
    etag = _first(headers, b"etag")
    if etag is not None and asked and _is_listed(etag, asked):
        return RawAnswer(304, [field for field in headers if field[0].lower() in _OF_A_304])
    return RawAnswer(200, headers, body=body)


def _is_listed(etag: bytes, asked: list[bytes]) -> bool:
    tags = [tag.strip() for value in asked for tag in value.split(b",")]
    return b"*" in tags or _opaque(etag) in [_opaque(tag) for tag in tags]


def _opaque(etag: bytes) -> bytes:
    # RFC 9110 §8.8.3.2, weak comparison; x-models-etag is also seen without quotes.
    return etag.strip().removeprefix(b"W/").strip(b'"')


def _must_pass(request: web.BaseRequest) -> bool:
    names = {name.lower() for name, _ in request.raw_headers}
    return bool(names & _UNCACHED) or request.can_read_body or "no-store" in _directives(request)


def _wants_validation(request: web.BaseRequest) -> bool:
    if request.headers.get("Pragma", "").lower() == "no-cache":
        return True
    return bool(_directives(request) & {"no-cache", "max-age=0"})


def _directives(request: web.BaseRequest) -> set[str]:
    listed = ",".join(request.headers.getall("Cache-Control", []))
    return {directive.strip().lower() for directive in listed.split(",")}


def _first(headers: Headers, name: bytes) -> bytes | None:
    values = _all(headers, name)
    return values[0] if values else None


def _all(headers: Headers, name: bytes) -> list[bytes]:
    return [value for field_name, value in headers if field_name.lower() == name]
