"""Worlds that once went wrong, reduced to what it took."""

from __future__ import annotations

import pytest

from tests.simulation.plan import AgentPlan, Knobs, Plan, Step, Strike, Upstream
from tests.simulation.world import simulate
from wsproxy.simulator.rules import Rules

#: One lane on one connection, and patience: a turn that waits gets the lane the moment it is free.
ONE_LANE = Knobs(max_lanes=1, max_in_flight=1, max_per_key_with_lanes=1, queue_wait_s=60.0)
OPENAI = Upstream(Rules(), is_known=True)
NAMELESS = Upstream(Rules(error_shape="g"), is_known=True)


def agents(*acts: str | tuple[str, float, str], seed: int | None = None) -> tuple[AgentPlan, ...]:
    """An agent for each act (or act, wait, hint), all of one key."""
    told = [(act, 0.0, "shared") if isinstance(act, str) else act for act in acts]
    return tuple(
        AgentPlan(
            number=number,
            key=0,
            hint=hint,
            stream=True,
            store=False,
            spelling="exact",
            reasoning="",
            retries=0,
            takes_bytes_per_s=0.0,
            steps=(Step(act, wait_s, number if seed is None else seed),),
        )
        for number, (act, wait_s, hint) in enumerate(told)
    )


FOUND = {
    # The leftover was taken for the answer of a turn whose own frame had not left yet.
    "an event after the terminal one, while the next turn is given the lane": [
        Plan(seed, OPENAI, ONE_LANE, agents("ask", "ask"), (Strike("run", 0, "late", after=-1),))
        for seed in range(10)
    ],
    # Upstream meant the frame that had left in part; the turn beside it ran, and ran over HTTPS.
    "1009 while a frame has left in part": [
        Plan(seed, OPENAI, Knobs(), agents("ask", "ask"), (Strike("send", 1, "unsent", "1009"),))
        for seed in range(10)
    ],
    # The one turn in flight was ended by it, and its lane given on while upstream still used it.
    "an error that names neither lane nor code, in mid-stream": [
        Plan(seed, NAMELESS, ONE_LANE, agents("ask", "ask"), (Strike("run", 0, "limit", after=3),))
        for seed in range(10)
    ],
    # Without a status it was read as 500, and the refused field was never left out.
    "`stream_id` refused in a frame that has no status": [
        Plan(0, Upstream(Rules(lanes="refused", error_shape="f"), False), Knobs(), agents("ask"))
    ],
    # The sleep was noticed with the next turn, and counted to the age of what was opened since.
    "a connection that opens after the machine slept": [
        Plan(
            seed,
            Upstream(Rules(connection_life_s=80.0), is_known=False),
            Knobs(max_age_s=60.0, age_jitter_s=10.0),
            agents(("ask", 0.01, "shared"), ("fork", 0.1, "none"), ("ask", 1.0, "none"), seed=seed),
            (Strike("time", 0.3, "sleep", "alive"), Strike("dial", 2, "slow", "1")),
        )
        for seed in range(8, 12)
    ],
    # The driver kept the ticket of a frame whose connection it had dropped itself.
    "a client that leaves before its frame has left": [
        Plan(seed, OPENAI, Knobs(), agents("leave", "leave", "leave")) for seed in range(10)
    ],
}


@pytest.mark.parametrize("plans", FOUND.values(), ids=FOUND.keys())
def test_a_world_that_once_went_wrong(plans: list[Plan]) -> None:
    assert [violation for plan in plans for violation in simulate(plan).violations] == []
