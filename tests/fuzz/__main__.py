"""Inputs nearly right, by the thousand: taken, or refused with a documented error.

    scripts/fuzz                          every target for 30 s
    scripts/fuzz wire body --runs 100000  these, that often; --seed K for other inputs
    scripts/fuzz wire --input FILE        one input again

Prints runs and pace of each target, and for each kind of failure its smallest input, kept in a
file, and the command that replays it. Exit code 1 if there was one.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Final

from tests.fuzz.mutator import Mutator
from tests.fuzz.targets import TARGETS, seeds_of
from tests.fuzz.trial import Failure, Trial
from wsproxy import logs

KEPT: Final = Path(__file__).parents[2] / ".cache" / "fuzz"
DEFAULT_SECONDS: Final = 30.0  # a target (faults.md §9, Z-01…06)
#: Kinds of failures of one target after which it is left alone.
MAX_KINDS: Final = 10


def main(arguments: list[str]) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(
        prog="scripts/fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--runs", type=int, help="inputs a target")
    parser.add_argument("--seconds", type=float, help=f"a target; default {DEFAULT_SECONDS:g}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--input", type=Path, metavar="FILE", help="check this input alone")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.targets) - set(TARGETS):
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    logs.configure("error", "json", stream=io.StringIO(), is_strict=True)
    names = chosen.targets or list(TARGETS)
    if chosen.input is not None:
        return max(_again(name, chosen.input.read_bytes()) for name in names)
    return max([_fuzz(name, chosen) for name in names])


def _again(name: str, raw: bytes) -> int:
    with Trial.of(TARGETS[name].open) as trial:
        failure = trial.failure(raw)
    if failure is None:
        print(f"{name}: nothing wrong with these {len(raw)} bytes")
        return 0
    traceback.print_exception(failure.error)
    return 1


def _fuzz(name: str, chosen: argparse.Namespace) -> int:
    seconds = chosen.seconds or (float("inf") if chosen.runs else DEFAULT_SECONDS)
    found: set[str] = set()
    runs, began = 0, time.monotonic()
    with Trial.of(TARGETS[name].open) as trial:
        for raw in _inputs(name, chosen.seed):
            if runs == chosen.runs or time.monotonic() - began > seconds:
                break
            runs += 1
            failure = trial.failure(raw)
            if failure is not None and failure.kind not in found:
                found.add(failure.kind)
                _tell(name, trial.shrunk(failure))
            if len(found) == MAX_KINDS:
                break
    took = time.monotonic() - began
    print(
        f"{name}: {runs} runs in {took:.1f} s, {runs / took:.0f}/s, "
        f"{len(found)} kinds of failures (--seed {chosen.seed})",
        flush=True,
    )
    return 1 if found else 0


def _inputs(name: str, seed: int) -> Iterator[bytes]:
    """The corpus as it is, then mutations of it without end."""
    seeds = seeds_of(name)
    yield from seeds
    mutator = Mutator(TARGETS[name].grammar, seeds, Random(f"{name} {seed}"))
    while True:
        yield mutator.draw()


def _tell(name: str, failure: Failure) -> None:
    KEPT.mkdir(parents=True, exist_ok=True)
    path = KEPT / f"{name}-{failure.mark}"
    path.write_bytes(failure.raw)
    print(f"{name}: {failure.kind}\n  {str(failure.error)[:300]}", flush=True)
    print(f"  again: scripts/fuzz {name} --input {path.relative_to(Path.cwd())}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
