"""docs/operations.md: its sums, its numbers and its files are those of the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest

from wsproxy.config import Settings, load
from wsproxy.downstream.models import MAX_ENTRIES
from wsproxy.metrics.turns import TurnNumbers
from wsproxy.reloading import RELOADABLE
from wsproxy.trace.journal import MAX_QUEUED_BYTES

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs" / "operations.md").read_text("utf-8")
STATE: Final = (ROOT / "wsproxy" / "metrics" / "state.py").read_text("utf-8")
IDLE_BYTES: Final = 55_000_000
MEMORY_MAX: Final = 2 * 1024**3


def worst_case_bytes(settings: Settings) -> int:
    """Everything full at the same moment."""
    kept = settings.history_bytes + MAX_ENTRIES * settings.models_max_bytes + MAX_QUEUED_BYTES
    turns = settings.max_turns * (settings.max_frame_bytes + settings.max_turn_bytes)
    bodies = settings.max_downstream_connections * settings.max_body_bytes
    messages = settings.max_connections * settings.max_message_bytes
    unread = settings.relay_buffers_total_bytes
    return IDLE_BYTES + kept + turns + bodies + messages + unread


def test_the_narrow_settings_stay_below_memory_max_with_everything_full(tmp_path: Path) -> None:
    path = tmp_path / "narrow.toml"
    path.write_text(PAGE.split("```toml\n")[1].split("```")[0])
    sum_ = worst_case_bytes(load(environment={}, file=path).settings)
    assert f"({sum_ / 1e9:.1f} GB," in PAGE
    assert sum_ < MEMORY_MAX
    assert worst_case_bytes(Settings()) > MEMORY_MAX  # which the page says


def test_every_metric_that_is_named_exists() -> None:
    registry = CollectorRegistry()
    TurnNumbers(registry)
    known = set(re.findall(r"# TYPE (\w+)", generate_latest(registry).decode()))
    state = {f"wsproxy_{name}" for name in re.findall(r'_(?:gauge|total)\(\s*"(\w+)"', STATE)}
    families = set(re.findall(r'"(wsproxy_\w+)"', STATE))
    named = set(re.findall(r"\b(wsproxy_\w+)", PAGE))
    missing = {
        name
        for name in named
        if name not in known | state | families
        and name.removesuffix("_total") not in state | families
    }
    assert missing == set()


def test_what_a_reload_takes_over_is_named() -> None:
    [row] = [line for line in PAGE.splitlines() if line.startswith("| taken over")]
    assert tuple(re.findall(r"`(\w+)`", row)) == RELOADABLE


def test_every_file_that_is_named_exists() -> None:
    linked = re.findall(r"\]\(([^)#]+)\)", PAGE)
    assert linked
    assert [name for name in linked if not (ROOT / "docs" / name).exists()] == []
