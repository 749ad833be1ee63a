"""Mutation testing in the small: change one thing in a module, and see a core test fail.

    python -m tests.mutation.run history plan --jobs 2

Each mutant runs in a forked child that has the libraries loaded already, so one costs a second
or two. Module constants and texts for people are left alone: no test could tell.
"""

from __future__ import annotations

import argparse
import ast
import importlib.abc
import importlib.machinery
import importlib.util
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Final

import hypothesis  # noqa: F401  (loaded once, for all children)
import msgspec  # noqa: F401
import pytest

ROOT: Final = Path(__file__).parents[2]
TIMEOUT_S: Final = 120
CONVERSATION: Final = ("history", "plan", "fields", "items")
#: Target → its module, and the core tests that are about it.
TARGETS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "history": ("wsproxy.core.conversation.history", CONVERSATION),
    "wording": ("wsproxy.core.conversation.wording", CONVERSATION),
    "checkpoint": ("wsproxy.core.conversation.checkpoint", (*CONVERSATION, "memory")),
    "plan": ("wsproxy.core.conversation.plan", CONVERSATION),
    "items": ("wsproxy.core.api.items", CONVERSATION),
    "pool": ("wsproxy.core.multiplex.pool", ("pool", "multiplexer_sessions", "multiplexer_lanes")),
    "recovery": ("wsproxy.core.multiplex.recovery", ("recovery",)),
}
_COMPARISONS: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """The n-th change that can be made to a module, and what it is."""

    number: int
    line: int
    what: str


class Mutator(ast.NodeTransformer):
    """Walks a module and makes the change number `wanted`; counts them all on the way."""

    def __init__(self, wanted: int = -1) -> None:
        self.wanted = wanted
        self.mutants: list[Mutant] = []
        self._depth = 0

    def _is_wanted(self, node: ast.AST, what: str) -> bool:
        if not self._depth:
            return False
        number = len(self.mutants)
        self.mutants.append(Mutant(number, getattr(node, "lineno", 0), what))
        return number == self.wanted

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        if node.name == "__repr__":
            return node
        self._depth += 1
        has_docstring = ast.get_docstring(node, clean=False) is not None
        kept = node.body[:1] if has_docstring else []
        body = [self.visit(statement) for statement in node.body[len(kept) :]]
        node.body = [*kept, *body]
        self._depth -= 1
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is not None:
            node.value = self.visit(node.value)
        return node

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        return node  # says what cannot be

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        for at, op in enumerate(node.ops):
            other = _COMPARISONS[type(op)]
            if self._is_wanted(node, f"{type(op).__name__} to {other.__name__}"):
                node.ops[at] = other()
        return node

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        self.generic_visit(node)
        if self._is_wanted(node, "and/or swapped"):
            node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        return node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        is_not = isinstance(node.op, ast.Not)
        return node.operand if is_not and self._is_wanted(node, "not removed") else node

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        swaps: dict[type[ast.operator], type[ast.operator]] = {ast.Add: ast.Sub, ast.Sub: ast.Add}
        other = swaps.get(type(node.op))
        if other is not None and self._is_wanted(node, "+/- swapped"):
            node.op = other()
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if type(node.value) is bool:
            return ast.Constant(not node.value) if self._is_wanted(node, "flipped") else node
        if type(node.value) is int and self._is_wanted(node, f"{node.value} plus 1"):
            return ast.Constant(node.value + 1)
        if type(node.value) is str and self._is_wanted(node, f"{node.value!r} changed"):
            return ast.Constant(node.value + "?")
        return node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        return node

    def visit_If(self, node: ast.If) -> ast.AST:
        self.generic_visit(node)
        if self._is_wanted(node, "if negated"):
            node.test = ast.UnaryOp(ast.Not(), node.test)
        return node

    def visit_Return(self, node: ast.Return) -> ast.AST:
        self.generic_visit(node)
        is_none = node.value is None or isinstance(node.value, ast.Constant)
        return ast.Return() if not is_none and self._is_wanted(node, "returns None") else node

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        self.generic_visit(node)
        return ast.Pass() if self._is_wanted(node, "left out") else node

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        self.generic_visit(node)
        return ast.Pass() if self._is_wanted(node, "left out") else node

    def visit_Break(self, node: ast.Break) -> ast.AST:
        return ast.Continue() if self._is_wanted(node, "break to continue") else node


class _Mutated(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives one module the mutant's code; all others are found as ever."""

    def __init__(self, name: str, path: Path, code: CodeType) -> None:
        self._name, self._path, self._code = name, path, code

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._name:
            return None
        return importlib.util.spec_from_loader(fullname, self, origin=str(self._path))

    def exec_module(self, module: ModuleType) -> None:
        exec(self._code, module.__dict__)


def mutants_of(source: str) -> list[Mutant]:
    """Every change that can be made to a module."""
    mutator = Mutator()
    mutator.visit(ast.parse(source))
    return mutator.mutants


def fork(target: str, source: str, number: int) -> int:
    """Start the tests under a mutant in a child; -1 is no mutant at all."""
    child = os.fork()
    if child == 0:
        os._exit(_run_tests(target, source, number))
    return child


def _run_tests(target: str, source: str, number: int) -> int:
    signal.alarm(TIMEOUT_S)
    name, about = TARGETS[target]
    tests = [str(ROOT / "tests" / "core" / f"test_{each}.py") for each in about]
    tree = Mutator(number).visit(ast.parse(source))
    code = compile(ast.fix_missing_locations(tree), str(path_of(target)), "exec")
    sys.meta_path.insert(0, _Mutated(name, path_of(target), code))
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    options = ["-x", "-q", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:xdist"]
    return int(pytest.main([*options, *tests]))


def survivors(target: str, source: str, jobs: int) -> Iterator[Mutant]:
    """Mutants of a target under which no test fails, or does not end."""
    _, status = os.waitpid(fork(target, source, -1), 0)
    if status:
        raise SystemExit(f"{target}: the tests fail without a mutant")
    waiting = mutants_of(source)[::-1]
    running: dict[int, Mutant] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            mutant = waiting.pop()
            running[fork(target, source, mutant.number)] = mutant
        child, status = os.wait()
        mutant = running.pop(child)
        if not status:
            yield mutant


def path_of(target: str) -> Path:
    """Where a target's module is."""
    return ROOT / (TARGETS[target][0].replace(".", "/") + ".py")


def main() -> int:
    """Print survivors and scores; 1 if a score is under `--least` percent."""
    parser = argparse.ArgumentParser(prog="scripts/mutate", description=__doc__)
    parser.add_argument("targets", nargs="*", default=["history", "plan", "pool"])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--least", type=int, default=90, help="percent (tests M-01)")
    options = parser.parse_args()
    is_enough = True
    for target in options.targets:
        source = path_of(target).read_text(encoding="utf-8")
        alive, total = 0, len(mutants_of(source))
        for mutant in survivors(target, source, options.jobs):
            alive += 1
            print(f"{target}.py:{mutant.line}: survived: {mutant.what}", flush=True)
        score = 100 * (total - alive) / total
        is_enough = is_enough and score >= options.least
        print(f"{target}: {total - alive} of {total} mutants caught, {score:.1f} %", flush=True)
    return 0 if is_enough else 1


if __name__ == "__main__":
    sys.exit(main())
