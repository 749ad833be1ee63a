"""What is to be reached, and how the figures of a run stand beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from tests.bench.agent_loop import ALL, REAL_PATH, SLEPT
from tests.bench.figures import Figure, short
from tests.bench.ledger import Tables
from tests.bench.peers import PEERS
from tests.bench.turns import added

Measured = Callable[[Tables], tuple[str, bool]]


@dataclass(frozen=True, slots=True)
class Goal:
    """`measured` gives a figure and whether it is met; KeyError where the run lacks something."""

    name: str
    goal: str
    measured: Measured


def figure(tables: Tables, table: str, subject: str, metric: str) -> Figure:
    """The rounds of one metric."""
    return Figure(tuple(tables[table][subject][metric]))


def over_direct(tables: Tables, table: str, subject: str, metric: str) -> Figure:
    """What a road adds to the direct one in the same round."""
    mine = figure(tables, table, subject, metric)
    return Figure(tuple(added(mine.rounds, figure(tables, table, "direct", metric).rounds)))


def _cpu(subject: str, limit: float, table: str = "relay") -> Measured:
    def measured(tables: Tables) -> tuple[str, bool]:
        mine = figure(tables, table, subject, "cpu_us")
        ratio = mine.ratios(figure(tables, table, "nginx", "cpu_us"))
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
    peers = [Figure(tuple(table[name]["turns_per_s"])) for name in PEERS if name in table]
    is_ahead = all(mine.middle > peer.middle for peer in peers)
    return f"{mine}", mine.middle >= 600 and is_ahead


def _fewer(shape: str, subject: str, times: float) -> Measured:
    def measured(tables: Tables) -> tuple[str, bool]:
        table = f"bytes up: {shape}"
        direct = figure(tables, table, "direct", "bytes").middle
        mine = figure(tables, table, subject, "bytes").middle
        return f"{direct / mine:.1f} × ({direct:,.0f} → {mine:,.0f})", direct / mine >= times

    return measured


def _agent_loop(table: str) -> Measured:
    def measured(tables: Tables) -> tuple[str, bool]:
        direct, through = (
            figure(tables, table, ALL, metric) for metric in ("direct_s", "through_s")
        )
        ratio = through.ratios(direct)
        seconds = f"{short(direct.middle)} → {short(through.middle)} s"
        return f"{100 * (1 - ratio.middle):.0f} % less ({seconds})", ratio.middle <= 0.6

    return measured


def _memory(name: str, limit_bytes: float) -> Measured:
    def measured(tables: Tables) -> tuple[str, bool]:
        used = figure(tables, "memory", name, "bytes").middle
        return f"{used / 1024:,.0f} KiB", used <= limit_bytes

    return measured


def _growth(tables: Tables) -> tuple[str, bool]:
    """The first turns, and what the last ones cost beyond them and beyond reading their bodies."""
    added = {when: over_direct(tables, "growth", "wsproxy", f"{when}_p50_ms") for when in _WHEN}
    cpu = {when: figure(tables, "growth", "wsproxy", f"{when}_cpu_ms") for when in _WHEN}
    first, last = added["first"].middle, added["last"].middle
    ratio, cpu_ratio = _beyond_reading(added), _beyond_reading(cpu)
    told = f"added {short(ratio)} × ({short(first)} → {short(last)} ms with reading it), "
    return told + f"CPU {short(cpu_ratio)} ×", ratio <= 1.3 and cpu_ratio <= 1.3


_WHEN: Final = ("first", "last", "young")


def _beyond_reading(found: Mapping[str, Figure]) -> float:
    first, last, young = (found[when].middle for when in _WHEN)
    return (first + last - young) / first if first > 0 else float("inf")


def _idle(tables: Tables) -> tuple[str, bool]:
    alone = figure(tables, "idle sessions", "alone", "cpu_ms")
    ratio = figure(tables, "idle sessions", "beside idle sessions", "cpu_ms").ratios(alone)
    return f"CPU a turn {ratio} ×", ratio.middle <= 1.1


_KIB: Final = 1024
GOALS: Final = (
    Goal("CPU an event, 20 × 1,000/s, plain", "≤ 1.5 × nginx", _cpu("wsproxy", 1.5)),
    Goal("the same, deflate", "≤ 1.7 × nginx", _cpu("wsproxy, deflate", 1.7)),
    Goal("the same on 16 lanes of one connection", "< 1.0 × nginx", _cpu("wsproxy, lanes", 1.0)),
    Goal(
        "the same on 16 lanes, in step",
        "< 1.0 × nginx",
        _cpu("wsproxy, lanes", 1.0, "relay, in step"),
    ),
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
    Goal("agent loop, 20 calls, costs of the demo", "≥ 40 % less wall time", _agent_loop(SLEPT)),
    Goal("the same over a real path, with TLS", "≥ 40 % less wall time", _agent_loop(REAL_PATH)),
    Goal("memory at start", "≤ 60 MB", _memory("at start", 60e6)),
    Goal("memory a session", "≤ 64 KiB", _memory("session", 64 * _KIB)),
    Goal("memory an idle connection, plain", "≤ 96 KiB", _memory("connection", 96 * _KIB)),
    Goal(
        "memory an idle connection, TLS and deflate",
        "≤ 700 KiB",
        _memory("connection, TLS and deflate", 700 * _KIB),
    ),
    Goal("memory of a 1 MB history", "≤ 200 KB", _memory("1 MB history", 200e3)),
    Goal("growth of a conversation", "≤ 1.3 × beyond reading the body", _growth),
    Goal("idle sessions beside a busy one", "nothing", _idle),
)

_A_WAKE_UP: Final = (
    "an event that comes alone costs a wake-up, a read and a write, which are most of it (see "
    "Where the time goes) and the same for nginx; what is ours on top is Python. Frame reading and "
    "edits in C would close it, at the price of a compiler wherever wsproxy is installed"
)
_ONE_READER: Final = (
    "one process wakes up, reads and writes for all streams, so an event waits for those that came "
    "just before it, and all of them for a processor where upstream, relay and clients keep nearly "
    "all busy (cores, in Relay; with less to do, see Relay, a quarter). Cheaper events, or a third "
    "processor, would close it"
)
_READING: Final = (
    "the body is read from the socket, hashed item by item and compared before the frame can "
    "leave; reading alone is about half. Hashing only what lies behind the last match, in C, would "
    "close it"
)
_DEFLATE: Final = (
    "zlib keeps 32 KiB windows and their tables for both directions of each connection; smaller "
    "windows would close it and lose repetitions that lie further apart"
)
#: Why a goal may be missed, and what would close it. Shown where it was.
WHY: Final = {
    "CPU an event, 20 × 1,000/s, plain": _A_WAKE_UP,
    "the same, deflate": _A_WAKE_UP + "; inflating adds what zlib takes",
    "the same on 16 lanes of one connection": (
        "spread evenly, no two events come in one read, so lanes share a socket and nothing else; "
        "where events come together, as a model server's steps do, see the next row"
    ),
    "the same on 16 lanes, in step": (
        "one read brings all events, but each goes to a client of its own: sixteen writes, as many "
        "as nginx does. Fewer lines of Python an event would close it"
    ),
    "latency added to an event, p50": _ONE_READER,
    "the same, p99": _ONE_READER,
    "one stream at 4,000/s": _ONE_READER,
    "first byte later, 40 KB, warm lane": _READING,
    "the same, 1 MB history": _READING,
    "turns/s, 16 clients, 40 KB": (
        "one process has one processor, which upstream and load generator share on a machine of "
        "two. A second process would close it, and split the sessions"
    ),
    "agent loop, 20 calls, costs of the demo": (
        "the rest is output at its own pace and the round trip that every turn needs; where "
        "plain HTTP finds its prompts cached, less is left to save"
    ),
    "the same over a real path, with TLS": (
        "the rest is output at its own pace and the round trip that every turn needs"
    ),
    "memory an idle connection, TLS and deflate": _DEFLATE,
    "memory of a 1 MB history": (
        "the growth of the whole process for bodies that came once, buffers included; what is kept "
        "of a history are digests"
    ),
    "growth of a conversation": (
        "what is kept of a conversation is compared item by item, and counted, with each turn"
    ),
    "idle sessions beside a busy one": (
        "more live objects make a full garbage collection longer, and spread what the processor "
        "caches"
    ),
}
