"""The proxy under soak, in a process of its own: prints its base URL, then what it holds.

`python -m tests.soak.proxy UPSTREAM`; one JSON line every `LOOK_S` seconds until stdin ends.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Final

from wsproxy import logs
from wsproxy.config import Settings
from wsproxy.daemon import Daemon, loop_factory, running

LOOK_S: Final = 5.0
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
#: Deadlines in proportion to a fault every few seconds; connections as old as two minutes.
SCALED: Final = {
    "first_event_timeout_s": 10.0,
    "event_idle_timeout_s": 10.0,
    "no_websocket_key_s": 5.0,
    "no_websocket_url_s": 5.0,
    "connection_max_age_s": 120.0,
    "connection_age_jitter_s": 30.0,
    "relay_buffer_bytes": 1024 * 1024,
    "relay_stall_s": 5.0,
    # Both full before memory is judged: what still fills looks as a leak does. Of the bytes a
    # tenth is for other names of items, of which every turn brings one.
    "history_conversations": 200,
    "history_bytes": 8_000_000,
}


async def main(upstream: str) -> None:
    """Serve until stdin ends."""
    logs.configure("error", "json")
    settings = Settings(upstream=upstream, listen=("127.0.0.1:0",), **SCALED)
    async with running(settings) as proxy:
        say({"base_url": proxy.base_url})
        ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        while not ended.done():
            say(holdings(proxy))
            await asyncio.wait({ended}, timeout=LOOK_S)


def holdings(proxy: Daemon) -> dict[str, object]:
    """What must stay flat. Memory: without what the allocator keeps for later, which faults with
    large messages leave behind in ever other places."""
    core = proxy.driver._core
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    return {
        "rss_bytes": int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES,
        "descriptors": len(os.listdir("/proc/self/fd")),
        "tasks": len(asyncio.all_tasks()),
        "turns": len(core.turns),
        "connections": len(core.pool.connections),
        "busy_lanes": sum(c.in_flight for c in core.pool.connections),
    }


def say(line: dict[str, object]) -> None:
    """One line to whoever runs us."""
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main(sys.argv[1]))
