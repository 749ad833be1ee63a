"""From a seed to a plan. The same seed gives the same plan, on every machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any, Final

from tests.differential.spellings import LOSSY_SPELLINGS, SPELLINGS, STORED_SPELLINGS
from tests.simulation.agents import ACTS
from tests.simulation.nemesis import ENDS, GARBAGE, REFUSALS
from tests.simulation.plan import AgentPlan, Knobs, Plan, Step, Strike, Upstream
from wsproxy.simulator.rules import Rules

#: Everyday acts come more often than odd ones.
_EVERYDAY: Final = ("ask", "ask", "ask", "ask", "ask", "fork", "leave", "regenerate")
_WAITS_S: Final = (0.0, 0.0, 0.01, 0.1, 1.0, 5.0)
_ERRORS: Final = (
    "previous_response_not_found",
    "rate_limit_exceeded",
    "server_error",
    "server_is_overloaded",
    "invalid_prompt",
    "conflict",
    "websocket_connection_limit_reached",
    "websocket_stream_limit_reached",
)


def draw(seed: int, *, has_faults: bool) -> Plan:
    """The world of this seed."""
    dice = Random(seed)
    upstream = _upstream(dice)
    knobs = _knobs(dice)
    if dice.random() < 0.06:
        upstream, knobs = _ageing(upstream, dice, knobs)
    agents = tuple(_agent(number, dice, upstream) for number in range(dice.choice((1, 1, 2, 2, 3))))
    strikes = tuple(_strikes(dice, upstream)) if has_faults else ()
    return Plan(seed, upstream, knobs, agents, strikes)


# ── Upstream ─────────────────────────────────────────────────────────────────────────────────

#: Rule, how likely, its values.
_HABITS: Final[tuple[tuple[str, float, tuple[Any, ...]], ...]] = (
    ("sequence_per_connection", 0.25, (True,)),
    ("lane_place", 0.4, ("first", "middle")),
    ("spaced_json", 0.2, (True,)),
    ("error_shape", 0.3, ("b", "c", "d", "e", "f", "g", "h")),
    ("reencrypt_reasoning", 0.3, (False,)),
    ("empty_completed_output", 0.25, (True,)),
    ("noise", 0.2, (True,)),
    ("keepalive", 0.15, (True,)),
    ("answer_pings", 0.05, (False,)),
)


def _upstream(dice: Random) -> Upstream:
    rules: dict[str, Any] = {}
    for name, likely, values in _HABITS:
        if dice.random() < likely:
            rules[name] = dice.choice(values)
    if dice.random() < 0.55:
        return Upstream(Rules(**rules), is_known=True, forgets=_forgets(dice, rules))
    if dice.random() < 0.5:
        rules["lanes"] = dice.choice(("ignored", "refused"))
    if dice.random() < 0.25:
        rules["continuation"] = dice.choice(("ignored_null", "ignored_echoed"))
    forgets = "" if "continuation" in rules else _forgets(dice, rules)
    return Upstream(
        Rules(**rules), is_known=False, forgets=forgets, keeps_nothing=dice.random() < 0.1
    )


def _forgets(dice: Random, rules: dict[str, Any]) -> str:
    """An upstream that loses the chain after two turns, and says so in one way or the other."""
    if dice.random() > 0.15:
        return ""
    rules["chain_turns"] = 2
    kind = dice.choice(("refused", "foreign"))
    rules["chain_loss"] = "refused" if kind == "refused" else "silent"
    return kind


# ── Settings ─────────────────────────────────────────────────────────────────────────────────

_TIGHT: Final[tuple[tuple[str, float, tuple[Any, ...]], ...]] = (
    ("max_in_flight", 0.2, (1, 2)),
    ("max_lanes", 0.2, (1, 2, 3)),
    ("probe_after_s", 0.3, (0.0, 0.5, 1e9)),
    ("max_per_key_with_lanes", 0.2, (1, 2)),
    ("max_per_key_without_lanes", 0.2, (1, 2)),
    ("max_connections", 0.15, (1, 2, 3)),
    ("idle_s", 0.15, (3.0, 20.0)),
    ("queue_wait_s", 0.3, (0.0, 0.01, 5.0)),
    ("handshake_wait_s", 0.15, (0.0, 0.02)),
    ("discovery_wait_s", 0.15, (0.0, 0.1)),
    ("first_event_timeout_s", 0.5, (8.0, 30.0)),
    ("event_idle_timeout_s", 0.5, (8.0, 30.0)),
    ("max_turns", 0.05, (1, 2)),
    ("conversations", 0.15, (1, 2)),
    ("chains_by_id", 0.2, (False,)),
    ("max_frame_bytes", 0.05, (1500,)),
    ("max_behind_bytes", 0.2, (0, 1000)),
    ("reader_stall_s", 0.2, (1.0,)),
    ("max_buffered_bytes", 0.1, (3000, 10_000)),
)


def _knobs(dice: Random) -> Knobs:
    chosen = {
        name: dice.choice(values) for name, likely, values in _TIGHT if dice.random() < likely
    }
    return Knobs(**chosen)


def _ageing(upstream: Upstream, dice: Random, knobs: Knobs) -> tuple[Upstream, Knobs]:
    """A connection's hour made short; no turn takes longer than its last minutes."""
    max_age_s = dice.choice((60.0, 90.0))
    rules = replace(upstream.rules, connection_life_s=max_age_s + 20.0)
    knobs = replace(knobs, max_age_s=max_age_s, age_jitter_s=10.0, spare_idle_s=5.0)
    return replace(upstream, rules=rules), knobs


# ── Agents ───────────────────────────────────────────────────────────────────────────────────


def _agent(number: int, dice: Random, upstream: Upstream) -> AgentPlan:
    store = dice.choice((None, None, True, False, False))
    stored = store is not False and not upstream.keeps_nothing
    spellings = ["mixed", "exact", *SPELLINGS, *(STORED_SPELLINGS if stored else ())]
    if dice.random() < 0.05:
        spellings = list(LOSSY_SPELLINGS)
    reasonings = ["", "", "encrypted", *(["plain"] if stored else [])]
    return AgentPlan(
        number=number,
        key=dice.choice((0, 0, 0, 1)),
        hint=dice.choice(("none", "header", "shared", "cache_key", "fresh")),
        stream=dice.choice((None, True, True, False)),
        store=store,
        spelling=dice.choice(spellings) if dice.random() < 0.6 else spellings[0],
        reasoning=dice.choice(reasonings),
        retries=dice.choice((0, 0, 1, 2)),
        takes_bytes_per_s=dice.choice((0.0, 0.0, 0.0, 0.001, 1000.0)),
        steps=tuple(_step(dice, upstream) for _ in range(dice.choice((1, 1, 2, 2, 3)))),
    )


def _step(dice: Random, upstream: Upstream) -> Step:
    act = dice.choice(_EVERYDAY) if dice.random() < 0.6 else dice.choice(ACTS)
    if act == "own_parent" and upstream.forgets:
        act = "ask"
    wait = dice.choice(_WAITS_S)
    if dice.random() < 0.05:
        wait = dice.choice((12.0, 30.0, 70.0))
    return Step(act, wait, dice.randrange(1 << 32))


# ── Strikes ──────────────────────────────────────────────────────────────────────────────────


def _strikes(dice: Random, upstream: Upstream) -> Sequence[Strike]:
    count = dice.choice((1, 1, 2, 3, 5))
    return [_strike(dice) for _ in range(count)]


def _strike(dice: Random) -> Strike:
    where = dice.choice(("dial", "send", "run", "run", "run", "run", "time", "https"))
    match where:
        case "dial":
            what, argument = dice.choice(_ON_DIAL)(dice)
            return Strike(where, dice.choice((0, 0, 1, 2, 3)), what, argument)
        case "send":
            what = dice.choice(("unsent", "unsent", "lost", "slow"))
            argument = dice.choice(("0.5", "4")) if what == "slow" else dice.choice(list(ENDS))
            return Strike(where, dice.randrange(7), what, argument)
        case "time":
            return _in_time(dice)
        case "https":
            return Strike(where, dice.randrange(3), "fail")
        case _:
            return _on_run(dice)


_ON_DIAL: Final = (
    lambda dice: ("refuse", dice.choice(list(REFUSALS))),
    lambda dice: ("refuse", dice.choice(list(REFUSALS))),
    lambda _: ("unreachable", ""),
    lambda _: ("tls", ""),
    lambda _: ("hang", ""),
    lambda dice: ("slow", dice.choice(("1", "2.9", "4", "14"))),
    lambda dice: ("close", dice.choice(("1008", "1011", "1013", "1000"))),
)


def _in_time(dice: Random) -> Strike:
    what = dice.choice(("sleep", "sleep", "drain", "reset", "reset"))
    argument = {"sleep": ("alive", "dead"), "drain": ("0", "0.3", "3")}.get(what, ("",))
    return Strike("time", dice.choice((0.05, 0.3, 1.0, 2.0, 5.0)), what, dice.choice(argument))


def _on_run(dice: Random) -> Strike:
    what = dice.choice(
        "error error error_for_all limit end end end garbage wrong_lane no_lane unknown gap "
        "silence stall freeze hold late".split()
    )
    argument = {
        "error": _ERRORS,
        "error_for_all": _ERRORS[:-2],  # the limit is a strike of its own: it ends the connection
        "end": tuple(ENDS),
        "garbage": tuple(GARBAGE),
        "stall": ("3", "12", "50"),
        "hold": ("0.5", "3"),
        "late": ("", "with the next"),
    }.get(what, ("",))
    after = dice.choice((0, 0, 0, 1, 2, 3, 5, 8, 99, -1))
    if what == "late":
        after = -1
    elif what == "error" and after < 0:
        after = 0
    return Strike("run", dice.randrange(8), what, dice.choice(argument), after)
