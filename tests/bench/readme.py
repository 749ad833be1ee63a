"""The README's table of what is saved and what it costs, between two markers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from tests.bench.agent_loop import ALL, REAL_PATH, SLEPT
from tests.bench.figures import short
from tests.bench.goals import figure, over_direct
from tests.bench.ledger import Tables

BEGIN: Final = "<!-- measured:begin -->"
END: Final = "<!-- measured:end -->"
_HEAD: Final = "| `scripts/bench` | wsproxy | beside it |\n|---|---:|---|\n"
_PICTURE: Final = "\n![CPU an event of each relay](docs/measurements.svg)\n"
Row = tuple[str, str, str]


def replaced(readme: str, tables: Tables) -> str:
    """The README with the table of this run. Raises ValueError where a marker is missing."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md has no {BEGIN} … {END}")
    return f"{before}{BEGIN}\n{fragment(tables)}{END}{after}"


def fragment(tables: Tables) -> str:
    """The table and the picture; rows that the run lacks are left out."""
    lines = [f"| {' | '.join(row)} |\n" for row in rows(tables)]
    return _HEAD + "".join(lines) + _PICTURE


def rows(tables: Tables) -> Iterator[Row]:
    """What, our figure, what stands beside it."""
    for made in ROWS:
        try:
            yield made(tables)
        except KeyError:
            continue


def _bytes(shape: str, subject: str, label: str) -> Callable[[Tables], Row]:
    def row(tables: Tables) -> Row:
        table = f"bytes up: {shape}"
        mine = figure(tables, table, subject, "bytes").middle
        direct = figure(tables, table, "direct", "bytes").middle
        return label, f"{mine:,.0f}", f"{direct:,.0f} directly: {direct / mine:.1f} × fewer"

    return row


def _loop(table: str, label: str) -> Callable[[Tables], Row]:
    def row(tables: Tables) -> Row:
        mine = figure(tables, table, ALL, "through_s")
        direct = figure(tables, table, ALL, "direct_s")
        less = 100 * (1 - mine.ratios(direct).middle)
        return label, f"{mine.middle:.2f} s", f"{direct.middle:.2f} s directly: {less:.0f} % less"

    return row


def _first_byte(tables: Tables) -> Row:
    table = "turns 40 KB"
    beside = [
        f"{name} {short(over_direct(tables, table, name, 'p50_ms').middle)} ms"
        for name in _others(tables, table)
    ]
    mine = over_direct(tables, table, "wsproxy", "p50_ms").middle
    return "first byte later, 40 KB, p50", f"{short(mine)} ms", ", ".join(beside)


def _cpu(tables: Tables) -> Row:
    mine = figure(tables, "relay", "wsproxy", "cpu_us")
    nginx = figure(tables, "relay", "nginx", "cpu_us")
    times = mine.ratios(nginx).middle
    beside = f"nginx {short(nginx.middle)} µs: {times:.2f} ×"
    return "CPU an event, 20,000 events/s", f"{short(mine.middle)} µs", beside


def _lanes_cpu(tables: Tables) -> Row:
    table = "relay, in step"
    mine = figure(tables, table, "wsproxy, lanes", "cpu_us")
    nginx = figure(tables, table, "nginx", "cpu_us")
    times = mine.ratios(nginx).middle
    beside = f"nginx {short(nginx.middle)} µs: {times:.2f} ×"
    return "the same on 16 lanes, in step", f"{short(mine.middle)} µs", beside


def _turns(tables: Tables) -> Row:
    table = "turns at 16 clients"
    beside = [
        f"{name} {figure(tables, table, name, 'turns_per_s').middle:,.0f}"
        for name in ("direct", *_others(tables, table))
    ]
    mine = figure(tables, table, "wsproxy", "turns_per_s").middle
    return "turns/s, 16 clients, 40 KB", f"{mine:,.0f}", ", ".join(beside)


def _memory(tables: Tables) -> Row:
    start, session, connection, hidden = (
        figure(tables, "memory", name, "bytes").middle
        for name in ("at start", "session", "connection", "connection, TLS and deflate")
    )
    beside = (
        f"a session {session / 1024:,.0f} KiB, an idle connection {connection / 1024:,.0f} KiB "
        f"(TLS and deflate {hidden / 1024:,.0f} KiB)"
    )
    return "memory at start", f"{start / 1e6:.0f} MB", beside


def _others(tables: Tables, table: str) -> list[str]:
    return [name for name in tables[table] if name != "direct" and not name.startswith("wsproxy")]


#: In the order of the table.
ROWS: Final[tuple[Callable[[Tables], Row], ...]] = (
    _bytes("Codex, tools in input", "wsproxy", "bytes up, 20 calls, tools in the input"),
    _bytes(
        "Codex, tools at top level",
        "wsproxy, deflate",
        "bytes up, 20 calls, tools at the top level, compressed",
    ),
    _loop(SLEPT, "agent loop, 20 calls, costs of the demo"),
    _loop(REAL_PATH, "the same over a real path, with TLS"),
    _first_byte,
    _cpu,
    _lanes_cpu,
    _turns,
    _memory,
)
