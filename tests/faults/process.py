"""`wsproxy serve` as a process of its own, to be signalled and killed."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from tests.canary import WATCH

#: Longest wait for a process to be ready or to end; far above what either takes.
PATIENCE_S: Final = 20.0


class Serving:
    """One running process; `base_url` is what it printed."""

    def __init__(self, process: asyncio.subprocess.Process, base_url: str) -> None:
        self._process = process
        self.base_url = base_url
        self._is_whole = True

    async def look(self) -> None:
        """Look for the canary on its pages, as long as nobody has sent it a signal."""
        if self._is_whole:
            await WATCH.look_at_child(self.base_url)

    async def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        await self.look()
        self._is_whole = False
        self._process.send_signal(number)

    async def exit_code(self) -> int:
        """Wait for its end; negative: the signal that killed it."""
        async with asyncio.timeout(PATIENCE_S):
            return await self._process.wait()


@asynccontextmanager
async def serving(
    upstream: str,
    *options: str,
    port: int = 0,
    stdin: int | None = None,
    max_descriptors: int | None = None,
) -> AsyncIterator[Serving]:
    """Run it until the block ends; killed if it still runs then."""
    process = await asyncio.create_subprocess_exec(
        *([] if max_descriptors is None else with_descriptors(max_descriptors)),
        *[sys.executable, "-m", "wsproxy", "serve", "--log-level", "error"],
        *["--listen", f"127.0.0.1:{port}", "--upstream", upstream],
        *options,
        stdin=asyncio.subprocess.DEVNULL if stdin is None else stdin,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE_S):
            line = (await process.stdout.readline()).decode()
        assert "base URL " in line, line
        running = Serving(process, line.partition("base URL ")[2].strip())
        yield running
        await running.look()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def with_descriptors(count: int) -> list[str]:
    """The command line that runs another with so few descriptors, and no way to have more."""
    return ["sh", "-c", f'ulimit -n {count}; exec "$@"', "sh"]
