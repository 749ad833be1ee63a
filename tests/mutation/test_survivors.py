"""The runner's own ground: each change is one change, and each explained place is still there."""

from __future__ import annotations

import ast
from collections import Counter

import pytest

from tests.mutation.explained import Survivor, read
from tests.mutation.mutator import mutants_of, mutated
from tests.mutation.run import TARGETS, Module

MODULES = {module.name: module for modules in TARGETS.values() for module in modules}

SOURCE = '''
LIMIT = 3

class Queue:
    def __repr__(self) -> str:
        return "a queue"

    def is_full(self, count: int) -> bool:
        """Whether it is."""
        assert count >= 0
        return count < 3 and count < 9

def is_full(count: int) -> bool:
    return count > LIMIT
'''


def test_what_is_changed_is_what_a_test_can_tell() -> None:
    assert [str(mutant.place) for mutant in mutants_of(SOURCE)] == [
        "3 plus 1 in Queue.is_full: return count < 3 and count < 9",
        "Lt to LtE in Queue.is_full: return count < 3 and count < 9",
        "9 plus 1 in Queue.is_full: return count < 3 and count < 9",
        "Lt to LtE #2 in Queue.is_full: return count < 3 and count < 9",
        "and/or swapped in Queue.is_full: return count < 3 and count < 9",
        "returns None in Queue.is_full: return count < 3 and count < 9",
        "Gt to GtE in is_full: return count > LIMIT",
        "returns None in is_full: return count > LIMIT",
    ]


def test_a_mutant_differs_from_its_module_in_one_place() -> None:
    plain = ast.dump(mutated(SOURCE, -1))
    changed = [ast.dump(mutated(SOURCE, mutant.number)) for mutant in mutants_of(SOURCE)]
    assert plain == ast.dump(ast.parse(SOURCE))
    assert len({plain, *changed}) == len(changed) + 1


@pytest.mark.parametrize("module", MODULES.values(), ids=lambda module: module.noun)
def test_each_place_names_one_mutant(module: Module) -> None:
    places = Counter(mutant.place for mutant in mutants_of(module.path.read_text("utf-8")))
    assert places.most_common(1)[0][1] == 1


@pytest.mark.parametrize("survivor", read(), ids=lambda survivor: survivor.place.function)
def test_an_explained_survivor_is_a_mutant_that_there_is(survivor: Survivor) -> None:
    source = MODULES[survivor.module].path.read_text("utf-8")
    assert survivor.place in {mutant.place for mutant in mutants_of(source)}
    assert survivor.why
