"""Makes a failing plan smaller: leaves out agents, steps and strikes while it still fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final, TypeVar

from tests.simulation.ledger import Ledger
from tests.simulation.plan import Plan
from tests.simulation.world import simulate

_T = TypeVar("_T")

#: Worlds tried in all; each takes some 50 ms.
MAX_TRIES: Final = 400


def shrunk(plan: Plan, simulate: Callable[[Plan], Ledger] = simulate) -> Plan:
    """A plan that violates the same invariant first, with nothing in it that can go."""
    kind = violated(simulate(plan))
    tries = MAX_TRIES
    is_smaller = True
    while is_smaller and tries > 0:
        is_smaller = False
        for candidate in _smaller(plan):
            tries -= 1
            if violated(simulate(candidate)) == kind:
                plan, is_smaller = candidate, True
                break
            if tries <= 0:
                break
    return plan


def violated(ledger: Ledger) -> str:
    """The first invariant that does not hold, "" if all do."""
    return ledger.violations[0].partition(":")[0] if ledger.violations else ""


def _smaller(plan: Plan) -> Iterator[Plan]:
    """The same with one thing less, the largest things first."""
    for index in range(len(plan.agents)):
        if len(plan.agents) > 1:
            yield replace(plan, agents=_without(plan.agents, index))
    for index in range(len(plan.strikes)):
        yield replace(plan, strikes=_without(plan.strikes, index))
    for number, agent in enumerate(plan.agents):
        for index in reversed(range(len(agent.steps))):
            if len(agent.steps) > 1:
                changed = replace(agent, steps=_without(agent.steps, index))
                agents = (*plan.agents[:number], changed, *plan.agents[number + 1 :])
                yield replace(plan, agents=agents)


def _without(values: tuple[_T, ...], index: int) -> tuple[_T, ...]:
    return (*values[:index], *values[index + 1 :])
