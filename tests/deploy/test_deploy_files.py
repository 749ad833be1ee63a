"""What the daemon's files must say. Schemas, systemd and a linter read them in scripts/deploy."""

from __future__ import annotations

import json
import re
from configparser import ConfigParser
from pathlib import Path
from typing import Final

import pytest

from tests.deploy.dockerfile import environment, read
from wsproxy.cli.doctor import doctor
from wsproxy.config import SETTINGS, Settings, load

ROOT: Final = Path(__file__).parents[2]
CONFIG: Final = ROOT / "config"
HEALTH: Final = '["wsproxy", "doctor", "--ready"]'
VARIABLES: Final = {about.variable for about in SETTINGS.values()}


class Unit(dict[str, list[str]]):
    """The values of each key of a unit, in order; a key may stand several times."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        for line in path.read_text("utf-8").splitlines():
            key, equals, value = line.partition("=")
            if equals and not line.startswith("#"):
                self.setdefault(key, []).append(value)


@pytest.fixture(scope="module")
def unit() -> Unit:
    return Unit(CONFIG / "wsproxy.service")


def text(name: str) -> str:
    return (CONFIG / name).read_text("utf-8")


# ── systemd ──────────────────────────────────────────────────────────────────────────────────


def test_the_unit_is_one_file_of_three_sections() -> None:
    parser = ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    parser.read(CONFIG / "wsproxy.service")
    assert parser.sections() == ["Unit", "Service", "Install"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Type", "notify"),
        ("DynamicUser", "yes"),
        ("NoNewPrivileges", "yes"),
        ("ProtectSystem", "strict"),
        ("CapabilityBoundingSet", ""),
        ("RestrictAddressFamilies", "AF_INET AF_INET6 AF_UNIX"),
        ("MemoryMax", "2G"),
        ("RestartPreventExitStatus", "2"),
        ("SuccessExitStatus", "75"),
    ],
)
def test_the_unit_is_hardened_and_ends_in_order(unit: Unit, key: str, value: str) -> None:
    assert unit[key] == [value]


def test_the_unit_waits_longer_than_the_drain(unit: Unit) -> None:
    assert float(unit["TimeoutStopSec"][0]) > Settings().drain_timeout_s


def test_the_unit_listens_on_loopback_and_names_only_settings_that_exist(unit: Unit) -> None:
    words = " ".join(unit["Environment"]).split()
    given = dict(word.split("=", 1) for word in words)
    settings = load(environment=given).settings
    assert settings.listen == ("127.0.0.1:8787",)


# ── Docker ───────────────────────────────────────────────────────────────────────────────────


def test_the_image_is_small_not_root_and_healthy_when_ready() -> None:
    instructions = read(ROOT / "Dockerfile")
    last = [one for one in instructions if one.stage == 2]
    assert [one.value.split()[0] for one in instructions if one.name == "FROM"] == (
        ["python:${PYTHON_VERSION}-slim"] * 2
    )
    assert [one.value for one in last if one.name == "USER"] == ["65532:65532"]
    [health] = [one.value for one in last if one.name == "HEALTHCHECK"]
    assert health.endswith(f"CMD {HEALTH}")
    assert "--ready" in doctor.params[1].opts
    assert [one.value for one in last if one.name == "VOLUME"] == ['["/var/lib/wsproxy"]']


def test_the_image_is_configured_by_variables_that_its_health_check_reads_too() -> None:
    given = environment(read(ROOT / "Dockerfile"))
    settings = load(environment={k: v for k, v in given.items() if k in VARIABLES}).settings
    assert settings.listen == ("127.0.0.1:8787",)
    assert settings.log_format == "json"
    assert given["XDG_STATE_HOME"] == "/var/lib"


def test_what_builds_the_image_is_locked_as_everything_else() -> None:
    locked = (ROOT / "requirements" / "test.txt").read_text("utf-8")
    wanted = (ROOT / "requirements" / "build.txt").read_text("utf-8").splitlines()
    pins = [line.split(" ")[0] for line in wanted if "==" in line]
    hashes = re.findall("sha256:[0-9a-f]{64}", "\n".join(wanted))
    assert "hatchling" in {pin.partition("==")[0] for pin in pins}
    assert all(f"\n{pin} " in f"\n{locked}" for pin in pins)
    assert all(one in locked for one in hashes)


# ── Compose and Kubernetes ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["compose.yaml", "kubernetes-sidecar.yaml"])
def test_agent_and_proxy_share_loopback_and_settings_exist(name: str) -> None:
    assert "http://127.0.0.1:8787/v1" in text(name)
    assert "0.0.0.0" not in text(name)
    assert "ports:" not in text(name)
    assert set(re.findall(r"\bWSPROXY_[A-Z_]+", text(name))) <= VARIABLES


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("compose.yaml", ["network_mode: service:wsproxy", "read_only: true", "mem_limit: 2g"]),
        ("compose.yaml", ["stop_grace_period: 150s", "cap_drop: [ALL]"]),
        ("kubernetes-sidecar.yaml", ["restartPolicy: Always", "readOnlyRootFilesystem: true"]),
        ("kubernetes-sidecar.yaml", ["enableServiceLinks: false"]),
        ("kubernetes-sidecar.yaml", ["terminationGracePeriodSeconds: 150", f"command: {HEALTH}"]),
    ],
    ids=["compose", "compose stop", "kubernetes", "kubernetes links", "kubernetes stop"],
)
def test_containers_are_bounded_and_given_time_to_drain(name: str, lines: list[str]) -> None:
    found = {line.strip() for line in text(name).splitlines()}
    assert set(lines) <= found


def test_the_dashboard_is_one_json_document_with_units() -> None:
    panels = json.loads(text("grafana.json"))["panels"]
    assert all(panel["fieldConfig"]["defaults"]["unit"] for panel in panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
