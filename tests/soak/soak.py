"""A long run with a fault every few seconds; what must be flat is measured, every answer checked.

`python -m tests.soak.soak --minutes 15`. Exit code 1 if anything leaked or went wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from tests.canary import WATCH
from tests.journals import replayed_beginning
from tests.links.dead_path import can_cut_paths
from tests.links.fault_link import FaultLink
from tests.soak.agents import Agent, Tally
from tests.soak.nemesis import Nemesis
from wsproxy.simulator import Rules, Simulator
from wsproxy.simulator.log import Faulted

#: Memory is judged after this share of the run: caches and arenas fill first.
WARM_UP: Final = 0.3
#: faults.md §9 L-05 allows 0.5 MiB/h over 72 h; a short run sees more noise than that.
MAX_SLOPE_MIB_H: Final = 0.5
SHORT_RUN_GROWTH_MIB: Final = 4.0
#: Ping interval + TCP_USER_TIMEOUT + one retransmission (faults.md §7, L-08).
MAX_DEAD_PATH_S: Final = 35.0
QUIET_S: Final = 30.0
REPORT_S: Final = 60.0
#: Faults by which upstream may say that a turn did not run (of close codes, 1009 does).
REFUSALS: Final = ("error", "connection_error", "close")
#: Files that are open from the first turn on.
JOURNALS: Final = 1
#: Of the journal: a replay holds ten times as much in memory.
REPLAYED_BYTES: Final = 16 * 1024 * 1024


@dataclass(slots=True)
class Findings:
    """What a run brought."""

    tally: Tally = field(default_factory=Tally)
    samples: list[dict[str, Any]] = field(default_factory=list)
    runs: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)  # of those, upstream said no at once
    dealt: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)


async def main(arguments: argparse.Namespace) -> int:
    """Run, report, judge."""
    found = Findings()
    rules = Rules(kept_records=200_000, kept_transcripts=2_000, kept_responses=2_000)
    with TemporaryDirectory() as state:
        async with Simulator(rules) as sim, FaultLink(sim.port) as link:
            await _run(arguments, found, sim, link, state)
        found.broken += _left_behind(Path(state))
    _print(found)
    wrong = _wrong(found)
    for line in wrong[:50]:
        print("WRONG", line)
    return 1 if wrong else 0


async def _run(
    arguments: argparse.Namespace, found: Findings, sim: Simulator, link: FaultLink, state: str
) -> None:
    proxy = await _proxy(f"http://127.0.0.1:{link.port}/v1", state)
    assert proxy.stdin is not None
    assert proxy.stdout is not None
    assert proxy.stderr is not None
    base_url = json.loads(await proxy.stdout.readline())["base_url"]
    watch = asyncio.ensure_future(_watch(proxy.stdout, found.samples))
    complaints = asyncio.ensure_future(_listen(proxy.stderr, found.tally))
    report = asyncio.ensure_future(_report(found, sim))
    nemesis = Nemesis(arguments.seed, arguments.every, sim, link)
    await _work(arguments, base_url, nemesis, found)
    await asyncio.sleep(arguments.quiet)
    report.cancel()
    _fold(sim, found)
    proxy.stdin.close()
    await asyncio.gather(proxy.wait(), watch, complaints)


def _left_behind(state: Path) -> list[str]:
    """A canary in the traces or the log, or a journal that does not replay."""
    WATCH.look_at_files(path for path in state.rglob("*") if path.is_file())
    folder = state / "wsproxy" / "traces"
    return [*WATCH.leaks, *map(repr, replayed_beginning(folder, REPLAYED_BYTES))]


async def _proxy(upstream: str, state: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "tests.soak.proxy", upstream],
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "XDG_STATE_HOME": state},
    )


async def _work(
    arguments: argparse.Namespace, base_url: str, nemesis: Nemesis, found: Findings
) -> None:
    """Agents and nemesis, until the time is over, a signal comes, or one of them breaks."""
    tasks: list[asyncio.Task[None]] = [asyncio.create_task(nemesis.run())]
    for number in range(arguments.agents):
        agent = Agent(number, arguments.seed, base_url, found.tally)
        tasks.append(asyncio.create_task(agent.run()))
    stopped = asyncio.create_task(_stopped())
    await asyncio.wait(
        [*tasks, stopped], timeout=arguments.minutes * 60, return_when="FIRST_COMPLETED"
    )
    stopped.cancel()
    found.broken += [f"{task.exception()!r}" for task in tasks if task.done()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    nemesis.stop()
    found.dealt = nemesis.dealt


async def _stopped() -> None:
    """SIGTERM or Ctrl-C: what was seen until then is reported all the same."""
    signalled = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, signalled.set)
    await signalled.wait()


async def _watch(lines: asyncio.StreamReader, samples: list[dict[str, Any]]) -> None:
    while line := await lines.readline():
        samples.append({"at": time.monotonic(), **json.loads(line)})


async def _listen(lines: asyncio.StreamReader, tally: Tally) -> None:
    """Whatever the proxy logs as an error is one."""
    while line := await lines.readline():
        WATCH.look("the log", line)
        tally.violations.append(line.decode(errors="replace").strip())


async def _report(found: Findings, sim: Simulator) -> None:
    told = 0
    while True:
        await asyncio.sleep(REPORT_S)
        _fold(sim, found)
        for violation in found.tally.violations[told:]:
            told += 1
            print(f"WRONG {violation}", flush=True)
        print(_line(found.tally, found.samples[-1]), flush=True)


def _fold(sim: Simulator, found: Findings) -> None:
    """Keep the counts of the simulator's log, not the log."""
    for (canary, _), count in sim.log.runs().items():
        found.runs[canary] += count
    for fault in sim.log.of(Faulted):
        if fault.where == "before_first_event" and fault.what.startswith(REFUSALS):
            found.refused[fault.canary] += 1
    sim.log.clear()


def _line(tally: Tally, sample: dict[str, Any]) -> str:
    return (
        f"turns {tally.turns} (failed {tally.failed}, after a retry {tally.after_retry}) "
        f"rss {sample['rss_bytes'] / 2**20:.1f} MiB fds {sample['descriptors']} "
        f"tasks {sample['tasks']} connections {sample['connections']} "
        f"violations {len(tally.violations)}"
    )


def _print(found: Findings) -> None:
    tally, samples = found.tally, found.samples
    slope, growth = memory(samples)
    tally.seconds.sort()
    print(f"turns {tally.turns}: {tally.first_try} at once, {tally.after_retry} after a retry,")
    print(f"  {tally.failed} failed; {tally.left} left by their client")
    print(f"latency s: p50 {_at(tally.seconds, 0.5)}, p99 {_at(tally.seconds, 0.99)}")
    print(f"attempts by status: {dict(tally.statuses.most_common())}")
    print(f"routes: {dict(tally.routes.most_common())}")
    print(f"faults: {sum(found.dealt.values())} of {len(found.dealt)} kinds")
    print(f"generations {sum(found.runs.values())} for {sum(tally.attempts.values())} attempts")
    print(f"rss: {slope:+.2f} MiB/h, {growth:+.2f} MiB since warm")
    print(f"start {_held(samples[0])}")
    print(f"peak  {_held({name: max(s[name] for s in samples) for name in samples[0]})}")
    print(f"quiet {_held(samples[-1])}")


def _wrong(found: Findings) -> list[str]:
    """Every sentence here is one reason to call the run a failure."""
    tally, first, last = found.tally, found.samples[0], found.samples[-1]
    wrong = [*tally.violations, *found.broken]
    # A canary without a name is the chain probe's.
    wrong += [
        f"{canary} ran {count} times, {found.refused[canary]} of them to be refused, for "
        f"{tally.attempts[canary]} attempts"
        for canary, count in found.runs.items()
        if canary and count - found.refused[canary] > tally.attempts[canary]
    ]
    wrong += [f"{name} left: {last[name]}" for name in ("turns", "busy_lanes") if last[name]]
    wrong += [
        f"{name} grew from {first[name]} to {last[name]}"
        for name, opened_later in (("tasks", 0), ("descriptors", JOURNALS))
        if last[name] > first[name] + last["connections"] + opened_later
    ]
    if tally.failed:
        wrong.append(f"{tally.failed} turns failed in the end")
    slope, growth = memory(found.samples)
    if growth > SHORT_RUN_GROWTH_MIB and slope > MAX_SLOPE_MIB_H:
        wrong.append(f"memory grows by {slope:.1f} MiB/h")
    return wrong


def memory(samples: list[dict[str, Any]]) -> tuple[float, float]:
    """Slope (MiB/h, least squares) and growth (MiB, fifths' means) after the warm-up."""
    warm = samples[int(len(samples) * WARM_UP) :]
    times = [s["at"] / 3600 for s in warm]
    sizes = [s["rss_bytes"] / 2**20 for s in warm]
    mean_t, mean_s = sum(times) / len(times), sum(sizes) / len(sizes)
    spread = sum((t - mean_t) ** 2 for t in times) or 1.0
    slope = sum((t - mean_t) * (s - mean_s) for t, s in zip(times, sizes, strict=True)) / spread
    fifth = max(len(sizes) // 5, 1)
    return slope, sum(sizes[-fifth:]) / fifth - sum(sizes[:fifth]) / fifth


def _held(sample: dict[str, Any]) -> str:
    names = ("rss_bytes", "descriptors", "tasks", "turns", "connections", "busy_lanes")
    return ", ".join(f"{name} {sample[name]}" for name in names)


def _at(values: list[float], share: float) -> str:
    return f"{values[int(len(values) * share)]:.3f}" if values else "-"


def dead_path() -> int:
    """Cut a path in mid-turn with the default settings; 2 where no namespace can be had."""
    if not can_cut_paths():
        print("no network namespace can be had here (unshare -rn): not proven", file=sys.stderr)
        return 2
    command = ["unshare", "-rn", sys.executable, "-m", "tests.links.dead_path"]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    told = json.loads(ran.stdout.splitlines()[-1])
    for phase, how in told.items():
        print(f"{phase}: told after {how['after_s']} s: {how['status']} {how['code']}")
    return int(any(how["after_s"] > MAX_DEAD_PATH_S for how in told.values()))


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--hours", type=float)
    parser.add_argument("--agents", type=int, default=64)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two faults")
    parser.add_argument("--quiet", type=float, default=QUIET_S, help="seconds of rest at the end")
    parser.add_argument("--dead-path", action="store_true", help="only cut a path, in a namespace")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    arguments = parser.parse_args()
    if arguments.hours is not None:
        arguments.minutes = arguments.hours * 60
    return arguments


if __name__ == "__main__":
    chosen = parsed()
    if chosen.dead_path:
        sys.exit(dead_path())
    print(f"seed {chosen.seed}, {chosen.agents} agents, {chosen.minutes:g} min", flush=True)
    sys.exit(asyncio.run(main(chosen)))
