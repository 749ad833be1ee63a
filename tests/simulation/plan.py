"""One world as an explicit script: everything that differs between seeds, and nothing else.

A plan can be printed, run again, and made smaller by leaving agents, steps and strikes out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from wsproxy.simulator.rules import Rules


@dataclass(frozen=True, slots=True)
class Step:
    """One thing an agent does; `seed` decides whatever is left open in it."""

    act: str
    wait_s: float
    seed: int


@dataclass(frozen=True, slots=True)
class AgentPlan:
    """One agent: who it is, how it writes, what it does."""

    number: int
    key: int
    hint: str  # none | header | shared | cache_key | fresh
    stream: bool | None  # None: now this, now that
    store: bool | None  # None: not said, which means true
    spelling: str  # a name of SPELLINGS, or "mixed"
    reasoning: str  # "" | encrypted | plain
    retries: int
    takes_bytes_per_s: float  # 0: at once
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Strike:
    """One act of the nemesis.

    `where` and `at`: the at-th dial, send, run or HTTPS call of the world, or a second of it
    ("time"). `after`: events of the run that leave before a "run" strike.
    """

    where: str
    at: float
    what: str
    argument: str = ""
    after: int = 0


@dataclass(frozen=True, slots=True)
class Upstream:
    """The upstream's habits. `forgets`: "" | refused | foreign, after two turns of a chain."""

    rules: Rules
    is_known: bool  # the proxy was told that it has lanes and keeps chains
    forgets: str = ""
    keeps_nothing: bool = False  # `store: true` is taken and not kept (zero retention)


@dataclass(frozen=True, slots=True)
class Knobs:
    """Settings of the proxy, some of them absurdly tight."""

    max_in_flight: int = 16
    max_lanes: int = 32
    max_age_s: float = 3000.0
    age_jitter_s: float = 300.0
    probe_after_s: float = 25.0
    max_per_key_with_lanes: int = 8
    max_per_key_without_lanes: int = 16
    max_connections: int = 64
    idle_s: float = 900.0
    spare_idle_s: float = 120.0
    queue_wait_s: float = 0.25
    handshake_wait_s: float = 3.0
    discovery_wait_s: float = 2.0
    first_event_timeout_s: float = 600.0
    event_idle_timeout_s: float = 900.0
    max_turns: int = 256
    conversations: int = 10_000
    chains_by_id: bool = True
    max_frame_bytes: int = 16_252_928
    max_behind_bytes: int = 8 * 1024 * 1024
    reader_stall_s: float = 60.0
    max_buffered_bytes: int = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole world."""

    seed: int
    upstream: Upstream
    knobs: Knobs
    agents: tuple[AgentPlan, ...]
    strikes: tuple[Strike, ...] = field(default=())

    def __str__(self) -> str:
        lines = [f"seed {self.seed}", f"  {_changed(self.upstream.rules)}", f"  {self.upstream!r}"]
        lines[2] = f"  known={self.upstream.is_known} forgets={self.upstream.forgets!r} " + (
            "keeps nothing" if self.upstream.keeps_nothing else ""
        )
        lines.append(f"  {_changed(self.knobs)}")
        for agent in self.agents:
            acts = " ".join(f"{step.act}+{step.wait_s:g}s" for step in agent.steps)
            lines.append(f"  {_changed(agent, 'steps')}\n      {acts}")
        return "\n".join([*lines, *(f"  {strike}" for strike in self.strikes)])


def _changed(value: object, *hidden: str) -> str:
    """A dataclass as its members that are not the default."""
    fields: Sequence[str] = [name for name in value.__dataclass_fields__ if name not in hidden]  # type: ignore[attr-defined]
    shown = []
    for name in fields:
        default = value.__dataclass_fields__[name].default  # type: ignore[attr-defined]
        if getattr(value, name) != default:
            shown.append(f"{name}={getattr(value, name)!r}")
    return f"{type(value).__name__}({', '.join(shown)})"
