"""The simulation itself: it is the same every time, it meets everything, and it can fail."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from tests.canary import TEXT
from tests.simulation import leavings
from tests.simulation.draw import draw
from tests.simulation.nemesis import ENDS
from tests.simulation.plan import Knobs, Plan, Step, Strike, Upstream
from tests.simulation.run import run_seeds
from tests.simulation.shrink import shrunk, violated
from tests.simulation.world import simulate
from wsproxy import daemon, reading
from wsproxy.core import multiplexer
from wsproxy.core.api import edits, items
from wsproxy.core.conversation import plan
from wsproxy.core.multiplex import judging, pool, recovery
from wsproxy.core.multiplex.recovery import Fault, Phase
from wsproxy.simulator.rules import Rules
from wsproxy.trace import doors

#: A world in which much happens, used where any one will do.
A_SEED = 7
#: What must occur somewhere, or the simulation proves nothing about it.
EVERYTHING = {
    *("answered", "over HTTPS", "relayed", "relayed in mid-stream", "slow client cut"),
    *("route delta", "route fork", "route full", "sent with its own parent"),
    *(f"own upstream_{code}" for code in ("outcome_unknown", "disconnected", "protocol_error")),
    *(f"own upstream_{code}" for code in ("timeout", "lost_context", "tls")),
    *(f"own proxy_{code}" for code in ("draining", "overloaded")),
    *(f"strike {what}" for what in ("freeze", "silence", "hold", "sequence gap", "unknown event")),
    *(
        f"strike {what}"
        for what in ("late event", "late event, with the next turn", "wrong lane", "no lane")
    ),
    "strike connection limit",
    *(f"strike {what}" for what in ("mass reset", "drain", "slept dead", "https", "dial tls")),
}


def test_a_seed_gives_the_same_world_every_time() -> None:
    first, second = (simulate(draw(A_SEED, has_faults=True), is_journal_kept=True) for _ in "12")

    assert first.journal == second.journal


def test_a_world_does_not_depend_on_the_order_of_hashes() -> None:
    told = {
        subprocess.run(
            [sys.executable, "-m", "tests.simulation.run", "--seed", str(A_SEED)],
            env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": "."},
            capture_output=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }

    assert len(told) == 1


def test_worlds_meet_everything() -> None:
    counts = run_seeds(range(400), "on").counts

    assert counts.keys() >= EVERYTHING
    assert {what.rpartition(" ")[2] for what in counts} >= ENDS.keys()


# ── It can fail ──────────────────────────────────────────────────────────────────────────────


def worlds_of(*acts: str, strike: Strike | None = None) -> Iterator[Plan]:
    """Small worlds with an upstream that keeps every promise, in which agents do just that."""
    for seed in range(25):
        drawn = draw(seed, has_faults=False)
        steps = tuple(Step(act, 0.1, seed * 100 + at) for at, act in enumerate(acts))
        agents = tuple(
            replace(agent, steps=steps, key=agent.number % 2, hint="shared")
            for agent in drawn.agents
        )
        strikes = () if strike is None else (strike,)
        yield Plan(seed, Upstream(Rules(), is_known=True), Knobs(), agents, strikes)


def _words_of_the_model_are_not_compared(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(items, "_parts", lambda _content: [])


def _one_new_item_is_lost(patch: pytest.MonkeyPatch) -> None:
    candidate = plan.Candidate
    patch.setattr(plan, "Candidate", lambda at, used: candidate(at, used + 1))


def _every_field_may_change(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(plan, "changed", lambda *_fields: ())


def _what_may_have_run_is_sent_again(patch: pytest.MonkeyPatch) -> None:
    table = dict(recovery.RECOVERY)
    table[Fault.CONNECTION_RESET, Phase.SENT] = recovery.Retry()
    patch.setattr(recovery, "RECOVERY", table)


def _a_client_that_left_is_not_noticed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(judging.Judging, "client_left", lambda *_args: None)


def _numbers_are_not_put_right(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(edits, "_numbered", lambda payload, *_: payload)


def _keys_share_connections(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(pool.Pool, "of_key", lambda self, _key: list(self.connections))


def _draining_cuts_at_once(patch: pytest.MonkeyPatch) -> None:
    drain = multiplexer.Multiplexer._drain
    patch.setattr(
        multiplexer.Multiplexer,
        "_drain",
        lambda self, event, now: drain(self, replace(event, deadline=now), now),
    )


def _a_repr_shows_a_key(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reading.Inbound, "__repr__", lambda self: f"<{self.headers}>")


def _a_log_line_shows_a_text(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(leavings, "log_note", lambda note: daemon.log_note(replace(note, detail=TEXT)))


def _a_journal_leaves_something_out(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(doors.Words, "items", lambda *_args: {})


RESET_BEFORE_THE_FIRST_EVENT = Strike("run", 0, "end", "reset")
GAP_IN_MID_STREAM = Strike("run", 0, "gap", after=3)
DRAIN_IN_MID_STREAM = Strike("time", 0.5, "drain", "3")


@pytest.mark.parametrize(
    ("breaks", "acts", "strike", "invariant"),
    [
        pytest.param(_words_of_the_model_are_not_compared, "ask edit edit", None, "I8", id="echo"),
        pytest.param(_one_new_item_is_lost, "ask ask", None, "I8", id="delta"),
        pytest.param(_every_field_may_change, "ask settings", None, "fields", id="fields"),
        pytest.param(
            _what_may_have_run_is_sent_again, "ask", RESET_BEFORE_THE_FIRST_EVENT, "I1", id="retry"
        ),
        pytest.param(_a_client_that_left_is_not_noticed, "leave", None, "I10", id="leaver"),
        pytest.param(_numbers_are_not_put_right, "ask", GAP_IN_MID_STREAM, "I3", id="numbers"),
        pytest.param(_keys_share_connections, "ask ask", None, "I7", id="keys"),
        pytest.param(_draining_cuts_at_once, "ask ask", DRAIN_IN_MID_STREAM, "I11", id="drain"),
        pytest.param(_a_repr_shows_a_key, "ask ask ask", None, "C-01", id="repr"),
        pytest.param(
            _a_log_line_shows_a_text, "ask", RESET_BEFORE_THE_FIRST_EVENT, "C-01", id="log"
        ),
        pytest.param(_a_journal_leaves_something_out, "ask ask", None, "replay", id="journal"),
    ],
)
def test_a_broken_core_is_caught(
    breaks: Callable[[pytest.MonkeyPatch], None],
    acts: str,
    strike: Strike | None,
    invariant: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worlds = list(worlds_of(*acts.split(), strike=strike))
    assert not any(simulate(world).violations for world in worlds)

    breaks(monkeypatch)

    caught = [v for world in worlds for v in simulate(world).violations]
    assert any(violation.startswith(f"{invariant}:") for violation in caught)


def test_a_failing_world_is_made_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    strikes = (Strike("run", 5, "stall", "3"), Strike("run", 0, "late", after=-1))
    worlds = worlds_of("ask", "undo", "ask", "fork", strike=strikes[0])
    _one_new_item_is_lost(monkeypatch)
    failing = next(world for world in worlds if violated(simulate(world)))

    smallest = shrunk(replace(failing, strikes=strikes))

    assert violated(simulate(smallest)) == violated(simulate(failing))
    assert len(smallest.agents) == 1
    assert not smallest.strikes
