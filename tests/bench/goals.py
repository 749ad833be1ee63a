"""What is to be reached, and how the figures of a run stand beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tests.bench.figures import Figure, short
from tests.bench.rounds import Table
from tests.bench.turns import added

Tables = dict[str, Table]


@dataclass(frozen=True, slots=True)
class Goal:
    """`measured` gives a figure and whether it is met; KeyError where the run lacks something."""

    name: str
    goal: str
    measured: Callable[[Tables], tuple[str, bool]]


def figure(tables: Tables, table: str, subject: str, metric: str) -> Figure:
    """The rounds of one metric."""
    return Figure(tuple(tables[table][subject][metric]))


def over_direct(tables: Tables, table: str, subject: str, metric: str) -> Figure:
    """What a road adds to the direct one in the same round."""
    mine = figure(tables, table, subject, metric)
    return Figure(tuple(added(mine.rounds, figure(tables, table, "direct", metric).rounds)))


def _cpu(subject: str, limit: float) -> Callable[[Tables], tuple[str, bool]]:
    def measured(tables: Tables) -> tuple[str, bool]:
        mine = figure(tables, "relay", subject, "cpu_us")
        ratio = mine.ratios(figure(tables, "relay", "nginx", "cpu_us"))
        return f"{ratio} × · {mine} µs", ratio.middle <= limit

    return measured


def _relay_p50(tables: Tables) -> tuple[str, bool]:
    mine = over_direct(tables, "relay", "wsproxy", "p50_us")
    nginx = over_direct(tables, "relay", "nginx", "p50_us")
    ratio = mine.ratios(nginx)
    return f"{ratio} × · {mine} µs", ratio.middle <= 1.3


def _relay_p99(tables: Tables) -> tuple[str, bool]:
    mine = over_direct(tables, "relay", "wsproxy", "p99_us")
    nginx = over_direct(tables, "relay", "nginx", "p99_us").middle
    raw = over_direct(tables, "relay", "raw relay", "p99_us").middle
    limit = max(3 * nginx, raw)
    return f"{mine} µs of {short(limit)} allowed", mine.middle <= limit


def _burst(tables: Tables) -> tuple[str, bool]:
    p99 = over_direct(tables, "burst", "wsproxy", "p99_us")
    p999 = over_direct(tables, "burst", "wsproxy", "p999_us")
    raw = over_direct(tables, "burst", "raw relay", "p999_us").middle
    is_met = p99.middle <= 1_000 and p999.middle <= max(5_000, raw)
    return f"p99 {p99} µs, p99.9 {p999} µs (raw relay {short(raw)})", is_met


def _first_byte(tables: Tables) -> tuple[str, bool]:
    p50 = over_direct(tables, "turns 40 KB", "wsproxy", "p50_ms")
    p99 = over_direct(tables, "turns 40 KB", "wsproxy", "p99_ms")
    return f"p50 {p50} ms, p99 {p99} ms", p50.middle <= 1.0 and p99.middle <= 3.0


def _large(tables: Tables) -> tuple[str, bool]:
    p50 = over_direct(tables, "turns 1 MB", "wsproxy", "p50_ms")
    return f"p50 {p50} ms", p50.middle <= 4.0


def _throughput(tables: Tables) -> tuple[str, bool]:
    table = tables["turns at 16 clients"]
    mine = Figure(tuple(table["wsproxy"]["turns_per_s"]))
    peers = [
        Figure(tuple(table[name]["turns_per_s"]))
        for name in ("mitmdump", "LiteLLM")
        if name in table
    ]
    is_ahead = all(mine.middle > peer.middle for peer in peers)
    return f"{mine}", mine.middle >= 600 and is_ahead


def _fewer(shape: str, subject: str, times: float) -> Callable[[Tables], tuple[str, bool]]:
    def measured(tables: Tables) -> tuple[str, bool]:
        table = f"bytes up: {shape}"
        direct = figure(tables, table, "direct", "bytes").middle
        mine = figure(tables, table, subject, "bytes").middle
        return f"{direct / mine:.1f} × ({direct:,.0f} → {mine:,.0f})", direct / mine >= times

    return measured


def _agent_loop(tables: Tables) -> tuple[str, bool]:
    ratio = figure(tables, "agent loop", "through", "wall_s").ratios(
        figure(tables, "agent loop", "direct", "wall_s")
    )
    return f"{100 * (1 - ratio.middle):.0f} % less", ratio.middle <= 0.6


def _memory(name: str, limit_bytes: float) -> Callable[[Tables], tuple[str, bool]]:
    def measured(tables: Tables) -> tuple[str, bool]:
        used = figure(tables, "memory", name, "bytes").middle
        return f"{used / 1024:,.0f} KiB", used <= limit_bytes

    return measured


def _growth(tables: Tables) -> tuple[str, bool]:
    first = over_direct(tables, "growth", "wsproxy", "first_p50_ms")
    last = over_direct(tables, "growth", "wsproxy", "last_p50_ms")
    cpu = figure(tables, "growth", "wsproxy", "last_cpu_ms").ratios(
        figure(tables, "growth", "wsproxy", "first_cpu_ms")
    )
    ratio = last.middle / first.middle if first.middle > 0 else float("inf")
    return f"added {short(first.middle)} → {short(last.middle)} ms, CPU {cpu} ×", ratio <= 1.3


def _idle(tables: Tables) -> tuple[str, bool]:
    alone = figure(tables, "idle sessions", "alone", "cpu_ms")
    ratio = figure(tables, "idle sessions", "beside idle sessions", "cpu_ms").ratios(alone)
    return f"CPU a turn {ratio} ×", ratio.middle <= 1.1


_KIB: Final = 1024
GOALS: Final = (
    Goal("CPU an event, 20 × 1,000/s, plain", "≤ 1.5 × nginx", _cpu("wsproxy", 1.5)),
    Goal("the same, deflate", "≤ 1.7 × nginx", _cpu("wsproxy, deflate", 1.7)),
    Goal("the same on 16 lanes of one connection", "< 1.0 × nginx", _cpu("wsproxy, lanes", 1.0)),
    Goal("latency added to an event, p50", "≤ 1.3 × nginx", _relay_p50),
    Goal("the same, p99", "≤ 3 × nginx or the raw relay", _relay_p99),
    Goal("one stream at 4,000/s", "p99 ≤ 1 ms, p99.9 ≤ 5 ms or the raw relay", _burst),
    Goal("first byte later, 40 KB, warm lane", "p50 ≤ 1.0 ms, p99 ≤ 3 ms", _first_byte),
    Goal("the same, 1 MB history", "p50 ≤ 4 ms", _large),
    Goal("turns/s, 16 clients, 40 KB", "≥ 600, ahead of every peer", _throughput),
    Goal(
        "bytes up, 20 calls, tools in input, no deflate",
        "≥ 10 × fewer",
        _fewer("Codex, tools in input", "wsproxy", 10),
    ),
    Goal(
        "bytes up, 20 calls, tools at top level, deflate",
        "≥ 15 × fewer",
        _fewer("Codex, tools at top level", "wsproxy, deflate", 15),
    ),
    Goal("agent loop, 20 calls, costs of the demo", "≥ 40 % less wall time", _agent_loop),
    Goal("memory at start", "≤ 60 MB", _memory("at start", 60e6)),
    Goal("memory a session", "≤ 64 KiB", _memory("session", 64 * _KIB)),
    Goal("memory an idle connection, plain", "≤ 96 KiB", _memory("connection", 96 * _KIB)),
    Goal(
        "memory an idle connection, deflate",
        "≤ 700 KiB with TLS",
        _memory("connection, deflate", 700 * _KIB),
    ),
    Goal("memory of a 1 MB history", "≤ 200 KB", _memory("1 MB history", 200e3)),
    Goal("growth of a conversation", "≤ 1.3 ×", _growth),
    Goal("idle sessions beside a busy one", "nothing", _idle),
)
