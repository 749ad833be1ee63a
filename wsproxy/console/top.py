"""The live console: the same screen again and again, until Ctrl-C."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import chain

from rich.console import Console
from rich.live import Live

from wsproxy.console.asking import AskError
from wsproxy.console.screen import screen
from wsproxy.metrics.report import Report

Take = Callable[[], Report]


def reports(take: Take, interval_s: float, rounds: int | None) -> Iterator[Report]:
    """A report each `interval_s`, `rounds` of them. Raises `AskError` where the first fails.

    A daemon that goes away later is waited for: it may be restarting.
    """
    yield take()
    done = 1
    while rounds is None or done < rounds:
        time.sleep(interval_s)
        done += 1
        try:
            yield take()
        except AskError:
            continue


def follow(console: Console, seen: Iterator[Report]) -> None:
    """Redraw at a terminal; where the output is piped, one screen after another.

    The first report is had before the screen is cleared, so that what `seen` raises is told on it.
    """
    before: Report | None = None
    if not console.is_terminal:
        for report in seen:
            console.print(screen(report, before), "")
            before = report
        return
    first = next(seen)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        for report in chain([first], seen):
            live.update(screen(report, before, console.width), refresh=True)
            before = report
