"""The report as people read it."""

from __future__ import annotations

import platform
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from wsproxy.demo.costs import Costs
from wsproxy.demo.story import DIRECT, THROUGH, Report, Run, saved

OnTurn = Callable[[str], None]

#: Where bars cannot be drawn, every so many turns are told on a line.
_TURNS_A_LINE: Final = 7
_MORE: Final = " more"


@contextmanager
def progress_on(console: Console, roads: Sequence[str], turns: int) -> Iterator[OnTurn]:
    """Yields what is to be called with the road after each of its turns."""
    if not console.is_terminal or console.is_dumb_terminal:
        yield _Lines(console, turns)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TextColumn("turns"), console=console) as progress:
        bars = {road: progress.add_task(road, total=turns) for road in roads}
        yield lambda road: progress.advance(bars[road])


class _Lines:
    """Progress for a log."""

    def __init__(self, console: Console, turns: int) -> None:
        self._console = console
        self._turns = turns
        self._done: Counter[str] = Counter()

    def __call__(self, road: str) -> None:
        self._done[road] += 1
        done = self._done[road]
        if done % _TURNS_A_LINE == 0 or done == self._turns:
            self._console.print(f"{road}: {done} of {self._turns} turns")


def print_opening(console: Console, calls: int, costs: Costs) -> None:
    """What is about to be run, and under which assumptions."""
    console.print(f"An agent loop of {calls} tool calls with openai-python {version('openai')},")
    console.print("against a simulated Responses API on this machine: no key, no network.")
    console.print(f"Costs of the simulated service: {costs.in_words()}.\n")


def print_report(console: Console, report: Report) -> None:
    """The table, what it leaves open, and how to go on."""
    console.print(as_table(report))
    for line in remarks(report):
        console.print(line)
    if report.are_answers_identical:
        console.print("\nIn front of your own agent, its key and its code unchanged:\n")
        console.print(f"  {program()} serve", style="bold")
        console.print("  export OPENAI_BASE_URL=http://127.0.0.1:8787/v1", style="bold")


def as_table(report: Report) -> Table:
    """One column a road, and what was saved."""
    table = Table(title=f"{report.calls} tool calls on {machine()}", title_justify="left")
    table.add_column("")
    for name in (DIRECT, THROUGH, "saved"):
        table.add_column(name, justify="right")
    for row in rows(report):
        table.add_row(*row)
    return table


def rows(report: Report) -> Iterator[tuple[str, ...]]:
    """The table's cells."""
    direct, through = report.direct, report.through
    yield "wall time", *_seconds(direct.loop.wall_s, through.loop.wall_s)
    yield (
        "time to first event, p50",
        *_milliseconds(direct.loop.first_event_s, through.loop.first_event_s),
    )
    before, after = direct.seen.bytes_up, through.seen.bytes_up
    yield "bytes up", f"{before:,}", f"{after:,}", _percent(before, after)
    yield "connections opened", str(direct.seen.connections), _connections(through), ""
    yield "turns as delta", _deltas(direct), _deltas(through), ""
    yield "answers identical", "", "yes" if report.are_answers_identical else "NO", ""


def remarks(report: Report) -> Iterator[str]:
    """What a reader should know before believing the table."""
    if report.are_answers_identical:
        yield (
            f"Identical: {report.direct.loop.event_count:,} events compared member by member, all "
            "but the counts of cached tokens."
        )
    if report.cached is not None:
        wall_s = report.cached.loop.wall_s
        share = _percent(wall_s, report.through.loop.wall_s)
        is_more = share.endswith(_MORE)
        what = f"wsproxy took {share}" if is_more else f"{share} of that would be saved"
        yield (
            "The service keeps the prompt cache with the connection: a plain HTTP call finds "
            "nothing in it. If each found everything, the direct loop would take "
            f"{wall_s:.2f} s (measured too), and {what}."
        )


def machine() -> str:
    """Enough to judge a figure by."""
    return f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"


def program() -> str:
    """How this very wsproxy is called from here."""
    if shutil.which("wsproxy"):
        return "wsproxy"
    path = Path(sys.executable).parent / "wsproxy"
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _seconds(before: float, after: float) -> tuple[str, str, str]:
    return f"{before:.2f} s", f"{after:.2f} s", _percent(before, after)


def _milliseconds(before: float, after: float) -> tuple[str, str, str]:
    return f"{1e3 * before:.0f} ms", f"{1e3 * after:.0f} ms", _percent(before, after)


def _percent(before: float, after: float) -> str:
    """`50 %` of it is saved, or `20 % more` was taken."""
    share = round(100 * saved(before, after))
    return f"{share} %" if share >= 0 else f"{-share} %{_MORE}"


def _connections(run: Run) -> str:
    sockets = run.seen.websockets
    return f"{run.seen.connections} ({sockets} WebSocket{'' if sockets == 1 else 's'})"


def _deltas(run: Run) -> str:
    return f"{run.seen.deltas} of {run.seen.turns}"
