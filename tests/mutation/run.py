"""Mutation testing in the small: change one thing in a module, and see a core test fail.

    python -m tests.mutation.run history plan pool --jobs 1
    python -m tests.mutation.run pool/board --sample 40 --seed 7

Each mutant runs in a forked child that has the libraries loaded already, so one costs a second
or two. A target may be several modules, which are counted apart.
"""

from __future__ import annotations

import argparse
import importlib.abc
import importlib.machinery
import importlib.util
import os
import random
import resource
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, ModuleType
from typing import Final

import hypothesis  # noqa: F401  (loaded once, for all children)
import msgspec  # noqa: F401
import pytest

from tests.mutation.explained import reasons
from tests.mutation.mutator import Mutant, Place, mutants_of, mutated

ROOT: Final = Path(__file__).parents[2]
#: Of the processor's time, so that a busy machine catches nothing: the tests take 3 s, and what
#: runs ten times as long does not end.
MAX_CPU_S: Final = 30
CONVERSATION: Final = ("wording", "history", "plan", "fields", "items")
POOL: Final = ("pool", "multiplexer_sessions", "multiplexer_lanes")
TURNS: Final = (
    *("placing", "board", "multiplexer_sessions", "multiplexer_lanes", "multiplexer_dialling"),
    *("multiplexer_time", "multiplexer_chains", "multiplexer_recovery", "snapshot"),
)


@dataclass(frozen=True, slots=True)
class Module:
    """What is changed, and the core tests that are about it."""

    name: str
    about: tuple[str, ...]

    @property
    def noun(self) -> str:
        """The last part of its name."""
        return self.name.rpartition(".")[2]

    @property
    def path(self) -> Path:
        """Where it is."""
        return ROOT / (self.name.replace(".", "/") + ".py")


TARGETS: Final[dict[str, tuple[Module, ...]]] = {
    "history": (Module("wsproxy.core.conversation.history", CONVERSATION),),
    "wording": (Module("wsproxy.core.conversation.wording", CONVERSATION),),
    "checkpoint": (Module("wsproxy.core.conversation.checkpoint", ("checkpoint", *CONVERSATION)),),
    "plan": (Module("wsproxy.core.conversation.plan", CONVERSATION),),
    "items": (Module("wsproxy.core.api.items", CONVERSATION),),
    "pool": (
        Module("wsproxy.core.multiplex.pool", POOL),
        Module("wsproxy.core.multiplex.placing", TURNS),
        Module("wsproxy.core.multiplex.board", TURNS),
    ),
    "recovery": (Module("wsproxy.core.multiplex.recovery", ("recovery",)),),
}


@dataclass(slots=True)
class Score:
    """How the mutants of a module fared; `stale`: explained, and caught all the same or gone."""

    total: int
    explained: list[Mutant] = field(default_factory=list)
    unexplained: list[Mutant] = field(default_factory=list)
    stale: list[Place] = field(default_factory=list)

    def __str__(self) -> str:
        percent = 100 * self.killed / max(1, self.total)
        return (
            f"{self.killed}/{self.total} killed ({percent:.1f} %), "
            f"{len(self.explained)} explained, {len(self.unexplained)} unexplained"
        )

    @property
    def killed(self) -> int:
        """Mutants under which a test failed, or did not end."""
        return self.total - len(self.explained) - len(self.unexplained)

    def is_enough(self, least: int) -> bool:
        """Whether at least so many percent were killed, and every other one is explained."""
        is_clear = not self.unexplained and not self.stale
        return is_clear and 100 * self.killed >= least * self.total


class _Mutated(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives one module the mutant's code; all others are found as ever."""

    def __init__(self, module: Module, code: CodeType) -> None:
        self._module, self._code = module, code

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._module.name:
            return None
        return importlib.util.spec_from_loader(fullname, self, origin=str(self._module.path))

    def exec_module(self, module: ModuleType) -> None:
        exec(self._code, module.__dict__)


def survivors(module: Module, source: str, chosen: Sequence[Mutant], jobs: int) -> Iterator[Mutant]:
    """Those of the chosen mutants under which every test passes."""
    _check_sound(module, source)
    waiting = list(chosen)[::-1]
    running: dict[int, Mutant] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            mutant = waiting.pop()
            running[_fork(module, source, mutant.number)] = mutant
        child, status = os.wait()
        mutant = running.pop(child)
        if not status:
            yield mutant
    _check_sound(module, source)  # a test broken meanwhile would have caught everything


def _check_sound(module: Module, source: str) -> None:
    _, status = os.waitpid(_fork(module, source, -1), 0)
    if status:
        raise SystemExit(f"{module.name}: the tests fail without a mutant")


def _fork(module: Module, source: str, number: int) -> int:
    child = os.fork()
    if child == 0:
        os._exit(_run_tests(module, source, number))
    return child


def _run_tests(module: Module, source: str, number: int) -> int:
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_S, MAX_CPU_S))
    tests = [str(ROOT / "tests" / "core" / f"test_{each}.py") for each in module.about]
    code = compile(mutated(source, number), str(module.path), "exec")
    sys.meta_path.insert(0, _Mutated(module, code))
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    options = ["-x", "-q", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:xdist"]
    return int(pytest.main([*options, *tests]))


def measure(module: Module, options: argparse.Namespace) -> Score:
    """Try the mutants of a module, or a sample of them, and print those that survive."""
    source = module.path.read_text(encoding="utf-8")
    every = chosen = mutants_of(source)
    if options.sample is not None and options.sample < len(every):
        chosen = random.Random(options.seed).sample(every, options.sample)
    why = reasons(module.name)
    score = Score(len(chosen))
    for mutant in survivors(module, source, chosen, options.jobs):
        is_explained = mutant.place in why
        (score.explained if is_explained else score.unexplained).append(mutant)
        if not is_explained:
            print(f"{module.path.name}:{mutant.line}: survived: {mutant.place}", flush=True)
    alive = {mutant.place for mutant in score.explained}
    caught = {mutant.place for mutant in chosen} - alive
    gone = set(why) - {mutant.place for mutant in every}
    score.stale = [place for place in why if place in caught or place in gone]
    for place in score.stale:
        print(f"{module.path.name}: no survivor any more: {place}", flush=True)
    return score


def modules_of(target: str) -> list[Module]:
    """`pool` is all its modules, `pool/board` one of them. Raises `SystemExit` if unknown."""
    name, _, noun = target.partition("/")
    found = [module for module in TARGETS.get(name, ()) if noun in ("", module.noun)]
    if not found:
        raise SystemExit(f"{target}: not among {', '.join(TARGETS)}")
    return found


def main() -> int:
    """Print survivors and scores; 1 if one is unexplained or a score is under `--least`."""
    parser = argparse.ArgumentParser(prog="scripts/mutate", description=__doc__)
    parser.add_argument("targets", nargs="*", default=["history", "plan", "pool"])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--least", type=int, default=90, help="percent killed (tests M-01)")
    parser.add_argument("--sample", type=int, help="try so many mutants of a module, at random")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    options = parser.parse_args()
    is_enough = True
    for module in [each for target in options.targets for each in modules_of(target)]:
        score = measure(module, options)
        is_enough = is_enough and score.is_enough(options.least)
        print(f"{module.name}: {score}", flush=True)
    return 0 if is_enough else 1


if __name__ == "__main__":
    sys.exit(main())
