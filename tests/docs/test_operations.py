"""docs/operations.md: its sums, its numbers and its files are those of the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from wsproxy.config import Settings, load
from wsproxy.downstream import descriptors
from wsproxy.downstream.models import MAX_ENTRIES
from wsproxy.metrics.turns import TurnNumbers
from wsproxy.reloading import RELOADABLE
from wsproxy.trace.journal import MAX_QUEUED_BYTES

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = (ROOT / "docs" / "operations.md").read_text("utf-8")
STATE: Final = (ROOT / "wsproxy" / "metrics" / "state.py").read_text("utf-8")
IDLE_BYTES: Final = 55_000_000
MEMORY_MAX: Final = 2 * 1024**3


#: A body, its input, its frame, and that frame compressed.
COPIES_OF_A_BODY: Final = 4
#: Of one item while its digest is made: its bytes, text, value, and two steps of its spelling.
COPIES_OF_AN_ITEM: Final = 5


def what_clients_can_take(settings: Settings) -> int:
    """Everything full at the same moment that agents, and time, can fill."""
    kept = settings.history_bytes + MAX_ENTRIES * settings.models_max_bytes + MAX_QUEUED_BYTES
    bodies = COPIES_OF_A_BODY * settings.request_bodies_total_bytes
    item = COPIES_OF_AN_ITEM * settings.max_turn_json_bytes
    return IDLE_BYTES + kept + bodies + item + settings.relay_buffers_total_bytes


def what_upstream_can_take(settings: Settings) -> int:
    """What an upstream that means harm can fill besides."""
    messages = settings.max_connections * settings.max_message_bytes
    return messages + settings.max_turns * settings.max_turn_bytes


def test_clients_cannot_fill_memory_max_whatever_they_send() -> None:
    sum_ = what_clients_can_take(Settings())
    assert f"All of that is {sum_ / 1e9:.1f} GB with the defaults" in PAGE
    assert sum_ < MEMORY_MAX


def test_the_narrow_settings_stay_below_memory_max_with_everything_full(tmp_path: Path) -> None:
    path = tmp_path / "narrow.toml"
    path.write_text(PAGE.split("```toml\n")[1].split("```")[0])
    narrow = load(environment={}, file=path).settings
    sum_ = what_clients_can_take(narrow) + what_upstream_can_take(narrow)
    assert f"({sum_ / 1e9:.1f} GB," in PAGE
    assert sum_ < MEMORY_MAX
    everything = what_clients_can_take(Settings()) + what_upstream_can_take(Settings())
    assert everything > MEMORY_MAX  # which the page says


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("wsproxy.service", "MemoryMax=2G"),
        ("compose.yaml", "mem_limit: 2g"),
        ("kubernetes-sidecar.yaml", "memory: 2Gi"),
    ],
)
def test_every_sample_allows_what_the_page_adds_up(file: str, line: str) -> None:
    assert line in (ROOT / "config" / file).read_text("utf-8")


def test_the_unit_allows_the_descriptors_that_the_limits_can_use() -> None:
    unit = (ROOT / "config" / "wsproxy.service").read_text("utf-8")
    [allowed] = re.findall(r"LimitNOFILE=(\d+)", unit)
    default = Settings()
    wanted = descriptors.wanted(default.max_downstream_connections, default.max_connections)
    assert wanted <= int(allowed)


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
