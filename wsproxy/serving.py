"""The process around a daemon: signals, systemd, reload, exit code.

ready ──SIGHUP──▶ reloaded ──SIGTERM, SIGINT──▶ draining ──▶ stopped
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

from wsproxy import greeting
from wsproxy.config import Loaded, Settings, SettingsError, shown_url
from wsproxy.daemon import Daemon, compose, loop_factory, open_daemon
from wsproxy.downstream import descriptors
from wsproxy.downstream.listening import ListenError
from wsproxy.logs import configure, get_logger
from wsproxy.reloading import reload_settings
from wsproxy.systemd import READY, STOPPING, notify

#: Turns were cut (contract §9).
EXIT_CUT: Final = 75

Load = Callable[[], Loaded]


def serve(loaded: Loaded, load_again: Load) -> int:
    """Run until SIGTERM or SIGINT; the exit code. `load_again` reads the settings for SIGHUP.

    Raises `SettingsError`.
    """
    configure(loaded.settings.log_level, loaded.settings.log_format)
    _raise_descriptor_limit(loaded.settings)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        try:
            return runner.run(_serve(loaded.settings, load_again))
        except ListenError as error:
            raise SettingsError(str(error)) from None


def _raise_descriptor_limit(settings: Settings) -> None:
    wanted = descriptors.wanted(settings.max_downstream_connections, settings.max_connections)
    limit = descriptors.raise_limit(wanted)
    if limit < wanted:
        get_logger().warning("descriptors.limited", limit=limit, count=wanted)


async def _serve(settings: Settings, load_again: Load) -> int:
    log = get_logger()
    daemon, app = compose(settings)
    stop = _signals(daemon, load_again)
    try:
        await open_daemon(daemon, app)
        # What was loaded stays: a full collection that looks through it stalls every turn (28 ms).
        gc.collect()
        gc.freeze()
        _say_ready(daemon)
        number = await stop.get()
        log.info("daemon.draining", **farewell(daemon.driver.running_count, number, settings))
        notify(STOPPING, "STATUS=draining")
        cut = await _drain(daemon, stop, _patience_s(settings, number))
        log.info("daemon.stopped", count=cut)
        return EXIT_CUT if cut else 0
    finally:
        await daemon.close()


def _say_ready(daemon: Daemon) -> None:
    """In the log, on stdout for people and programs, and to systemd."""
    assert daemon.front is not None
    log, settings = get_logger(), daemon.settings
    base_url = greeting.base_url(settings, daemon.front.addresses[0])
    log.info("daemon.ready", base_url=shown_url(base_url), upstream=shown_url(settings.upstream))
    if greeting.is_nameless(settings, daemon.front.addresses):
        log.warning(
            "daemon.left_nameless",
            setting="allowed_hosts",
            status=403,
            code="host_not_allowed",
            detail=greeting.NAMELESS,
        )
    if not _is_read_in_log(settings):
        with suppress(Exception):  # nobody can be told: a daemon runs all the same
            print(f"wsproxy: ready; base URL {base_url}", flush=True)
    notify(READY, f"STATUS=serving {base_url}")


def _is_read_in_log(settings: Settings) -> bool:
    """Whether who reads stdout has read it: stdout is the log's own file or pipe."""
    is_logged = logging.getLevelNamesMapping()[settings.log_level.upper()] <= logging.INFO
    try:
        is_same = os.path.sameopenfile(sys.stdout.fileno(), sys.stderr.fileno())
        return is_logged and is_same and not sys.stdout.isatty()
    except (OSError, ValueError, AttributeError):  # no files, or none at all
        return False


def _signals(daemon: Daemon, load_again: Load) -> asyncio.Queue[int]:
    """SIGTERM and SIGINT come through the queue; SIGHUP, where there is one, reloads, or ends what
    has lost its terminal."""
    stop: asyncio.Queue[int] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for caught in (signal.SIGTERM, signal.SIGINT):
        _on_signal(loop, caught, partial(stop.put_nowait, int(caught)))
    if hasattr(signal, "SIGHUP"):
        had_terminal = _has_terminal()

        def hung_up() -> None:
            if had_terminal and not _has_terminal():  # its window was closed: nobody sees it now
                stop.put_nowait(int(signal.SIGHUP))
            else:
                reload_settings(daemon, load_again)

        _on_signal(loop, signal.SIGHUP, hung_up)
    return stop


def _has_terminal() -> bool:
    return sys.stdin is not None and not sys.stdin.closed and os.isatty(sys.stdin.fileno())


def _on_signal(
    loop: asyncio.AbstractEventLoop, number: signal.Signals, call: Callable[[], None]
) -> None:
    try:
        loop.add_signal_handler(number, call)
    except NotImplementedError:  # the loops of Windows
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(call))


def farewell(running: int, number: int, settings: Settings) -> dict[str, Any]:
    """What the log says of a drain: how many turns run, and to people how not to wait for them."""
    fields = {"signal": signal.Signals(number).name, "turns": running}
    if running and _is_text_form(settings):
        return {**fields, "detail": "again ends them now"}
    return fields


def _is_text_form(settings: Settings) -> bool:
    """Whether people read the log."""
    if settings.log_format == "auto":
        return sys.stderr is not None and sys.stderr.isatty()
    return settings.log_format == "text"


def _patience_s(settings: Settings, number: int) -> float:
    is_ctrl_c = number == signal.SIGINT and sys.stdin is not None and sys.stdin.isatty()
    return settings.drain_timeout_tty_s if is_ctrl_c else settings.drain_timeout_s


async def _drain(daemon: Daemon, stop: asyncio.Queue[int], timeout_s: float) -> int:
    """Drain; a second signal means now."""
    draining = asyncio.ensure_future(daemon.drain(timeout_s))
    again = asyncio.ensure_future(stop.get())
    await asyncio.wait({draining, again}, return_when=asyncio.FIRST_COMPLETED)
    again.cancel()
    if draining.done():
        return draining.result()
    draining.cancel()
    return await daemon.drain(0.0)
