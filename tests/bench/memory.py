"""What the proxy's memory grows by, from the system's count of pages in use."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Final

from tests.bench.authority import Authority
from tests.bench.children import Child, source, wsproxy
from tests.bench.client import caller, told
from tests.bench.turns import sessions

#: Not counted: what the first turns load and allocate once.
_WARM_UP: Final = 8
#: Idle connections of a key each; beyond 64 in all the oldest are closed.
_CONNECTIONS: Final = 48
_SETTLE_S: Final = 0.5


async def ask_all(through: Child, requests: Iterable[bytes]) -> None:
    """One after another, each to its end."""
    client = await caller(through.base_url)
    for request in requests:
        await client.ask(request)
    client.close()


async def grown(
    opened: AbstractContextManager[Child], count: int, size: int, *, keys: bool
) -> float:
    """Bytes that one more session of a fresh proxy costs."""
    with opened as child:
        requests = list(sessions(child, _WARM_UP + count, size, keys=keys))
        await ask_all(child, requests[:_WARM_UP])
        await asyncio.sleep(_SETTLE_S)
        before = child.rss_bytes()
        await ask_all(child, requests[_WARM_UP:])
        await asyncio.sleep(_SETTLE_S)
        return (child.rss_bytes() - before) / count


async def memory(authority: Authority, *, idle: int, histories: int) -> dict[str, float]:
    """Bytes each: at start, a session, a connection of each kind, a history of 1 MB."""
    with (
        source() as upstream,
        source(has_deflate=True) as deflating,
        source(has_deflate=True, authority=authority) as secure,
    ):
        return await _memory(upstream, deflating, secure, authority, idle, histories)


async def _memory(
    upstream: Child,
    deflating: Child,
    secure: Child,
    authority: Authority,
    idle: int,
    histories: int,
) -> dict[str, float]:
    with wsproxy(upstream) as child:
        await told(child.base_url, "/_wsproxy/pools")
        await asyncio.sleep(_SETTLE_S)
        start = child.rss_bytes()
    compressing = wsproxy(deflating, has_deflate=True)
    hiding = wsproxy(secure, has_deflate=True, authority=authority)
    return {
        "at start": start,
        "session": await grown(wsproxy(upstream), idle, 400, keys=False),
        "connection": await grown(wsproxy(upstream), _CONNECTIONS, 400, keys=True),
        "connection, deflate": await grown(compressing, _CONNECTIONS, 400, keys=True),
        "connection, TLS and deflate": await grown(hiding, _CONNECTIONS, 400, keys=True),
        "1 MB history": await grown(wsproxy(upstream), histories, 1_000_000, keys=False),
    }
