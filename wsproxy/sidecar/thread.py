"""The proxy beside the child: an event loop on a thread of its own.

A thread, not a process: the main thread only waits for the child, so the proxy has the
interpreter to itself, there is nothing to be supervised, and its numbers are at hand at the end.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from types import TracebackType
from typing import Final

from wsproxy.config import Settings
from wsproxy.daemon import Daemon, loop_factory, running

#: The child is gone, so nobody waits: what still runs belongs to those it left behind.
_DRAIN_S: Final = 1.0


class ProxyThread:
    """Serves while it is entered. Entering raises what starting raised (`ListenError`)."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._ready: Future[Daemon] = Future()
        self._thread = threading.Thread(target=self._main, name="wsproxy", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()

    def __enter__(self) -> Daemon:
        self._thread.start()
        return self._ready.result()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _main(self) -> None:
        try:
            with asyncio.Runner(loop_factory=loop_factory()) as runner:
                runner.run(self._serve())
        except BaseException as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with running(self._settings) as daemon:
            self._ready.set_result(daemon)
            await self._stop.wait()
            await daemon.drain(_DRAIN_S)
