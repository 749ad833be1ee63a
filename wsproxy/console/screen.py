"""One report as people read it: a line of totals, sessions, connections, identities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from wsproxy.console.words import age, count, counted, size, times
from wsproxy.core.multiplex.snapshot import ConnectionRow, KeyRow, SessionRow
from wsproxy.metrics.report import Report
from wsproxy.terminal.table import PIPED_WIDTH, Column, Look, said, table, wider

_DEFAULT_SESSION: Final = "-"  # turns that gave no hint of a session
_LOOK: Final = Look(gap=1, has_rule=False)
#: Longer than what a turn may wait for a dial: somebody should look.
_LONG_WAIT_S: Final = 3.0


def screen(
    report: Report, before: Report | None = None, width: int = PIPED_WIDTH
) -> RenderableType:
    """Everything that fits into lines of `width`; with the report before it, rates too."""
    return Group(*_lines(report, before), "", *_tables(report, width))


def _lines(report: Report, before: Report | None) -> Iterator[Text]:
    pool, saved = report.pool, report.saved
    state = " · draining" if report.is_draining else ""
    yield Text(
        f"wsproxy {report.version} · pid {report.pid} · up {age(report.up_s)}"
        f" · {said(report.upstream)}{state}"
    )
    rate = _rate(report, before)
    yield Text(
        f"turns {count(saved.turns)}{rate} · running {pool.turns} · queued {pool.queued}"
        f" · longest wait {age(pool.longest_wait_s)}"
        f" · {counted(report.downstream_connections, 'connection')} downstream"
    )
    yield Text(
        f"continued {count(saved.continued)} · over HTTPS {count(saved.over_https)}"
        f" · failed {count(saved.failed)} · handshakes {count(saved.handshakes)}"
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


def _tables(report: Report, width: int) -> Iterator[RenderableType]:
    pool = report.pool
    if not pool.sessions:
        yield Text("no sessions: none has asked yet, or all have been idle for long", "dim")
    tables = [table(_SESSIONS, pool.sessions, width, _LOOK)] if pool.sessions else []
    if pool.connections:
        tables.append(table(_CONNECTIONS, pool.connections, width, _LOOK))
    told = [row for row in pool.keys if row.chains != "proven" or row.no_websocket_s]
    if told:
        tables.append(table(_KEYS, told, width, _LOOK))
    yield from tables
    if pool.left_out:
        yield Text(f"{pool.left_out} more are not shown")
    yield from wider([name for each in tables for name in each.hidden])


_SESSIONS: Final[Sequence[Column[SessionRow]]] = (
    Column("session", lambda row: row.session or _DEFAULT_SESSION, is_right=False),
    Column("key", lambda row: row.key, is_right=False, rank=7),
    Column("conns", lambda row: str(row.connections), rank=3),
    Column("age", lambda row: age(row.age_s) if row.connections else "-", rank=5),
    Column("lanes", lambda row: f"{row.lanes_used}/{row.lanes_max}", rank=6),
    Column("in-flight", lambda row: f"{row.in_flight}/{row.in_flight_max}"),
    Column("queued", lambda row: str(row.queued)),
    Column("wait", lambda row: _wait(row)),
    Column("transport", lambda row: row.transport, is_right=False, rank=1),
    Column("breaker", lambda row: _breaker(row.no_websocket_s), rank=2),
)
_CONNECTIONS: Final[Sequence[Column[ConnectionRow]]] = (
    Column("conn", lambda row: str(row.connection)),
    Column("key", lambda row: row.key, is_right=False, rank=5),
    Column("session", lambda row: _sessions(row), is_right=False),
    Column("state", lambda row: row.state, is_right=False),
    Column("age", lambda row: age(row.age_s), rank=1),
    Column("lanes", lambda row: _lanes(row), rank=2),
    Column("warm", lambda row: str(row.lanes_warm), rank=4),
    Column("in-flight", lambda row: f"{row.in_flight}/{row.in_flight_max}"),
    Column("heard", lambda row: age(row.heard_s), rank=3),
)
_KEYS: Final[Sequence[Column[KeyRow]]] = (
    Column("key", lambda row: row.key, is_right=False),
    Column("lanes", lambda row: row.lanes, is_right=False, rank=4),
    Column("chains", lambda row: row.chains, is_right=False, rank=2),
    Column("failures", lambda row: str(row.dial_failures), rank=3),
    Column("breaker", lambda row: _breaker(row.no_websocket_s), rank=1),
    Column("fault", lambda row: row.fault or "-", is_right=False, least=12),
)


def _wait(row: SessionRow) -> Text:
    wait = age(row.longest_wait_s) if row.queued else "-"
    return Text(wait, style="bold" if row.longest_wait_s > _LONG_WAIT_S else "")


def _breaker(no_websocket_s: float) -> str:
    return age(no_websocket_s) if no_websocket_s else "-"


def _sessions(row: ConnectionRow) -> str:
    names = [name or _DEFAULT_SESSION for name in row.sessions]
    more = f" +{len(names) - 1}" if len(names) > 1 else ""
    return "(probe)" if row.is_probe else f"{names[0]}{more}" if names else _DEFAULT_SESSION


def _lanes(row: ConnectionRow) -> str:
    return f"{row.lanes_used}/{row.lanes_max}" if row.lanes != "off" else "none"
