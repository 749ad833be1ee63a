"""Every change that can be made to a module, one at a time.

Module constants, `repr`s and texts for people are left alone: no test could tell.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

_COMPARISONS: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mutant:
    """The n-th change that can be made to a module, and what it is.

    Where it is, is said twice: `line` for the reader, `place` for lists that outlive an edit.
    """

    number: int
    line: int
    place: Place


@dataclass(frozen=True, slots=True)
class Place:
    """What stays the same of a mutant while lines move: function, text of the line, change.

    The second of equal changes in equal lines of one function ends in ` #2`, and so on.
    """

    function: str
    text: str
    change: str

    def __str__(self) -> str:
        return f"{self.change} in {self.function}: {self.text}"


class Mutator(ast.NodeTransformer):
    """Walks a module and makes the change number `wanted`; counts them all on the way."""

    def __init__(self, lines: Sequence[str], wanted: int = -1) -> None:
        self.wanted = wanted
        self.mutants: list[Mutant] = []
        self._lines = lines
        self._names: list[str] = []
        self._depth = 0
        self._seen: Counter[Place] = Counter()

    def _is_wanted(self, node: ast.expr | ast.stmt, change: str) -> bool:
        if not self._depth:
            return False
        place = Place(".".join(self._names), self._lines[node.lineno - 1].strip(), change)
        self._seen[place] += 1
        if (nth := self._seen[place]) > 1:
            place = replace(place, change=f"{change} #{nth}")
        self.mutants.append(Mutant(len(self.mutants), node.lineno, place))
        return len(self.mutants) - 1 == self.wanted

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        self._names.append(node.name)
        self.generic_visit(node)
        self._names.pop()
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        if node.name == "__repr__":
            return node
        self._depth += 1
        self._names.append(node.name)
        has_docstring = ast.get_docstring(node, clean=False) is not None
        kept = node.body[:1] if has_docstring else []
        body = [self.visit(statement) for statement in node.body[len(kept) :]]
        node.body = [*kept, *body]
        self._names.pop()
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
        if isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "assert_never":
            return node  # likewise
        self.generic_visit(node)
        return ast.Pass() if self._is_wanted(node, "left out") else node

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        self.generic_visit(node)
        return ast.Pass() if self._is_wanted(node, "left out") else node

    def visit_Break(self, node: ast.Break) -> ast.AST:
        return ast.Continue() if self._is_wanted(node, "break to continue") else node


def mutants_of(source: str) -> list[Mutant]:
    """Every change that can be made to a module."""
    mutator = Mutator(source.splitlines())
    mutator.visit(ast.parse(source))
    return mutator.mutants


def mutated(source: str, number: int) -> ast.Module:
    """The module with the change of that number; -1 is no change at all."""
    tree = Mutator(source.splitlines(), number).visit(ast.parse(source))
    assert isinstance(tree, ast.Module)
    return ast.fix_missing_locations(tree)
