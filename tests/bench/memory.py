"""What the proxy's memory grows by, from the system's count of pages in use."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Final

from tests.bench.children import Child, wsproxy
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


async def memory(
    upstream: Child, deflating: Child, *, idle: int, histories: int
) -> dict[str, float]:
    """Bytes each: at start, a session, a connection (plain, deflate), a history of 1 MB."""
    with wsproxy(upstream) as child:
        await told(child.base_url, "/_wsproxy/pools")
        await asyncio.sleep(_SETTLE_S)
        start = child.rss_bytes()
    compressing = wsproxy(deflating, has_deflate=True)
    return {
        "at start": start,
        "session": await grown(wsproxy(upstream), idle, 400, keys=False),
        "connection": await grown(wsproxy(upstream), _CONNECTIONS, 400, keys=True),
        "connection, deflate": await grown(compressing, _CONNECTIONS, 400, keys=True),
        "1 MB history": await grown(wsproxy(upstream), histories, 1_000_000, keys=False),
    }
