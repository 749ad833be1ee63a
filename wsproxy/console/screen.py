"""One report as people read it: a line of totals, sessions, connections, identities."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from wsproxy.console.words import age, count, counted, size, times
from wsproxy.core.multiplex.snapshot import ConnectionRow, KeyRow, SessionRow
from wsproxy.metrics.report import Report

_DEFAULT_SESSION: Final = "-"  # turns that gave no hint of a session
_PIPED_COLUMNS: Final = 160
#: Longer than what a turn may wait for a dial: somebody should look.
_LONG_WAIT_S: Final = 3.0


def console() -> Console:
    """Standard output; where it is piped, wide enough for every column."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else _PIPED_COLUMNS)


def screen(report: Report, before: Report | None = None) -> RenderableType:
    """Everything; with the report before it, rates too."""
    return Group(*_lines(report, before), "", *_tables(report))


def _lines(report: Report, before: Report | None) -> Iterator[Text]:
    pool, saved = report.pool, report.saved
    state = " · draining" if report.is_draining else ""
    yield Text(
        f"wsproxy {report.version} · pid {report.pid} · up {age(report.up_s)}"
        f" · {report.upstream}{state}"
    )
    rate = _rate(report, before)
    yield Text(
        f"turns {count(saved.turns)}{rate} · running {pool.turns} · queued {pool.queued}"
        f" · longest wait {age(pool.longest_wait_s)}"
        f" · {counted(report.downstream_connections, 'connection')} downstream"
    )
    yield Text(
        f"continued {count(saved.continued)} · over HTTPS {count(saved.over_https)}"
        f" · refused {count(saved.refused)} · handshakes {count(saved.handshakes)}"
    )
    history = report.history
    yield Text(
        f"up {size(saved.bytes_up)}"
        f" instead of {size(saved.bytes_http)}{times(saved.bytes_http, saved.bytes_up)}"
        f" · history: {counted(history.conversations, 'conversation')}, {size(history.bytes)}"
    )
    models = report.models
    yield Text(
        f"model cache: hits {count(models.hits)} · misses {count(models.misses)}"
        f" · revalidated {count(models.revalidations)} · stale {count(models.stale_served)}"
    )
    if pool.url_no_websocket_s:
        yield Text(f"no WebSocket upstream; asked again in {age(pool.url_no_websocket_s)}", "bold")


def _rate(report: Report, before: Report | None) -> str:
    if before is None or report.up_s <= before.up_s:
        return ""
    per_s = (report.saved.turns - before.saved.turns) / (report.up_s - before.up_s)
    return f" ({per_s:.1f}/s)"


def _tables(report: Report) -> Iterator[RenderableType]:
    pool = report.pool
    yield _table(
        "session key conns! age! lanes! in-flight! queued! wait! transport breaker!",
        (_session(row) for row in pool.sessions),
    )
    if pool.connections:
        yield _table(
            "conn! key session state age! lanes! warm! in-flight! heard!",
            (_connection(row) for row in pool.connections),
        )
    told = [row for row in pool.keys if row.chains != "proven" or row.no_websocket_s]
    if told:
        yield _table("key lanes chains failures! breaker! fault", (_key(row) for row in told))
    if pool.left_out:
        yield Text(f"{pool.left_out} more are not shown")


def _table(columns: str, rows: Iterator[Sequence[str]]) -> Table:
    """A `!` after a column's name sets its cells to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for name in columns.split():
        table.add_column(
            name.rstrip("!"), justify="right" if name.endswith("!") else "left", no_wrap=True
        )
    for row in rows:
        table.add_row(*row)
    return table


def _session(row: SessionRow) -> list[str]:
    wait = age(row.longest_wait_s) if row.queued else "-"
    return [
        row.session or _DEFAULT_SESSION,
        row.key,
        str(row.connections),
        age(row.age_s) if row.connections else "-",
        f"{row.lanes_used}/{row.lanes_max}",
        f"{row.in_flight}/{row.in_flight_max}",
        str(row.queued),
        f"[bold]{wait}[/]" if row.longest_wait_s > _LONG_WAIT_S else wait,
        row.transport,
        age(row.no_websocket_s) if row.no_websocket_s else "-",
    ]


def _connection(row: ConnectionRow) -> list[str]:
    names = [name or _DEFAULT_SESSION for name in row.sessions]
    more = f" +{len(names) - 1}" if len(names) > 1 else ""
    return [
        str(row.connection),
        row.key,
        "(probe)" if row.is_probe else f"{names[0]}{more}" if names else _DEFAULT_SESSION,
        row.state,
        age(row.age_s),
        f"{row.lanes_used}/{row.lanes_max}" if row.lanes != "off" else "none",
        str(row.lanes_warm),
        f"{row.in_flight}/{row.in_flight_max}",
        age(row.heard_s),
    ]


def _key(row: KeyRow) -> list[str]:
    breaker = age(row.no_websocket_s) if row.no_websocket_s else "-"
    return [row.key, row.lanes, row.chains, str(row.dial_failures), breaker, row.fault or "-"]
