"""The story: the same loop over two or three roads, and whether the answers were the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Final

from openai import OpenAIError

from wsproxy.demo import sightings
from wsproxy.demo.agent import Loop, run_loop
from wsproxy.demo.children import StartError, proxy, simulator
from wsproxy.demo.costs import Costs
from wsproxy.demo.sightings import Sightings

DIRECT: Final = "directly over HTTP"
THROUGH: Final = "through wsproxy"
#: The best case for plain HTTP: see `Report.cached`.
CACHED: Final = "directly, prompts cached"


class StoryError(Exception):
    """The story could not be told to its end; the text says where."""


@dataclass(frozen=True, slots=True)
class Run:
    """One road: what the agent felt and what upstream saw."""

    loop: Loop
    seen: Sightings

    def as_json(self) -> dict[str, Any]:
        """Seconds, bytes and counts."""
        return {
            "wall_s": round(self.loop.wall_s, 3),
            "first_event_p50_s": round(self.loop.first_event_s, 4),
            "events": self.loop.event_count,
            **asdict(self.seen),
        }


@dataclass(frozen=True, slots=True)
class Report:
    """All runs. `cached` is the direct loop where the service finds the prompt of every HTTP call
    in its cache, as it may or may not do; absent where tokens cost nothing."""

    calls: int
    costs: Costs
    direct: Run
    through: Run
    cached: Run | None

    @property
    def are_answers_identical(self) -> bool:
        """Whether the agent read the same events over every road."""
        runs = [self.direct, self.through, *([self.cached] if self.cached else [])]
        return len({run.loop.digest() for run in runs}) == 1

    def as_json(self) -> dict[str, Any]:
        """The whole report for programs."""
        return {
            "calls": self.calls,
            "costs": asdict(self.costs),
            "direct": self.direct.as_json(),
            "through": self.through.as_json(),
            "direct_prompts_cached": self.cached.as_json() if self.cached else None,
            "answers_identical": self.are_answers_identical,
            "saved_wall": round(saved(self.direct.loop.wall_s, self.through.loop.wall_s), 4),
            "saved_bytes_up": round(
                saved(self.direct.seen.bytes_up, self.through.seen.bytes_up), 4
            ),
        }


def saved(before: float, after: float) -> float:
    """The share of `before` that is gone; negative where there is more."""
    return 1 - after / before if before else 0.0


def roads(costs: Costs) -> tuple[str, ...]:
    """The runs there will be, in order."""
    return (DIRECT, THROUGH) if not costs.uncached_token_s else (DIRECT, THROUGH, CACHED)


def tell(calls: int, costs: Costs, on_turn: Callable[[str], None]) -> Report:
    """Run the loop over every road; `on_turn` hears the road after each turn.

    Raises `StoryError`. No process stays behind, whatever happens.
    """
    with ExitStack() as stack:
        try:
            runs = dict(_runs(stack, costs, partial(_run, calls, on_turn)))
        except StartError as error:
            raise StoryError(f"a process did not start: {error}") from None
        except (OpenAIError, OSError) as error:
            raise StoryError(f"a turn failed: {error}") from None
    return Report(calls, costs, runs[DIRECT], runs[THROUGH], runs.get(CACHED))


def _runs(
    stack: ExitStack, costs: Costs, run: Callable[[str, str, str], Run]
) -> Iterator[tuple[str, Run]]:
    upstream = stack.enter_context(simulator(costs.flags()))
    through = stack.enter_context(proxy(upstream))
    _warm_up(upstream)
    yield DIRECT, run(DIRECT, upstream, upstream)
    yield THROUGH, run(THROUGH, through, upstream)
    if CACHED in roads(costs):
        flags = [*costs.flags(), "--http-prompt-cache"]
        cached = stack.enter_context(simulator(flags))
        yield CACHED, run(CACHED, cached, cached)


def _run(calls: int, on_turn: Callable[[str], None], road: str, base: str, upstream: str) -> Run:
    loop = run_loop(base, calls, partial(on_turn, road))
    return Run(loop, sightings.take(upstream))


def _warm_up(upstream: str) -> None:
    """One call that is not counted: the SDK's first one builds its types for over a second."""
    run_loop(upstream, 1, lambda: None)
    sightings.take(upstream)
