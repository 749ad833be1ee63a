"""What a child is told: its base URL, its exceptions from HTTP proxies, Codex's overrides."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from wsproxy.sidecar.agents import child_command, child_environment

BASE: Final = "http://127.0.0.1:4321/v1"
LOOPBACK: Final = "127.0.0.1,localhost,::1"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, LOOPBACK),
        ({"NO_PROXY": ".corp, 10.0.0.0/8"}, f".corp,10.0.0.0/8,{LOOPBACK}"),
        ({"NO_PROXY": "a", "no_proxy": "b"}, f"a,b,{LOOPBACK}"),
        ({"no_proxy": "localhost"}, "localhost,127.0.0.1,::1"),
        ({"NO_PROXY": "*"}, "*"),
    ],
    ids=["none", "some", "both spellings", "one is there", "everything"],
)
def test_loopback_is_excepted_from_proxies_in_both_spellings(
    given: dict[str, str], told: str
) -> None:
    environment = child_environment(BASE, given)
    assert environment["NO_PROXY"] == environment["no_proxy"] == told


def test_the_base_url_replaces_what_was_inherited_and_the_rest_is_kept() -> None:
    inherited = {"OPENAI_BASE_URL": "https://other/v1", "OPENAI_API_KEY": "k", "HOME": "/h"}
    environment = child_environment(BASE, inherited)
    assert environment["OPENAI_BASE_URL"] == environment["OPENAI_API_BASE"] == BASE
    assert (environment["OPENAI_API_KEY"], environment["HOME"]) == ("k", "/h")


@pytest.mark.parametrize(
    "command",
    [["python", "agent.py"], ["./codexy"], ["npx", "-y", "other", "codex"], ["npx"], ["/bin/sh"]],
    ids=" ".join,
)
def test_a_command_that_is_not_codex_is_left_alone(command: list[str]) -> None:
    assert child_command(command, BASE, {}) == command


@pytest.mark.parametrize(
    ("command", "at"),
    [
        (["codex", "exec", "hi"], 1),
        (["/usr/local/bin/codex", "exec", "hi"], 1),
        (["npx", "-y", "@openai/codex@0.169.0", "exec", "hi"], 3),
        (["codex", "-c", 'model_provider="mine"'], 1),
    ],
    ids=["by name", "by path", "by npx", "with overrides of the user"],
)
def test_codex_is_told_in_front_of_its_own_arguments(
    tmp_path: Path, command: list[str], at: int
) -> None:
    environment = {"HOME": str(tmp_path), "OPENAI_API_KEY": "k"}
    told = child_command(command, BASE, environment)
    inserted = told[at : len(told) - len(command) + at]
    assert told[:at] + told[at + len(inserted) :] == command
    assert inserted[:2] == ["-c", 'model_provider="wsproxy"']
    assert f'model_providers.wsproxy.base_url="{BASE}"' in inserted
    assert 'model_providers.wsproxy.env_key="OPENAI_API_KEY"' in inserted


@pytest.mark.parametrize(
    ("has_login", "key"),
    [(True, {"OPENAI_API_KEY": "k"}), (True, {}), (False, {})],
    ids=["login and key", "login", "neither"],
)
def test_codex_keeps_its_own_login(tmp_path: Path, has_login: bool, key: dict[str, str]) -> None:
    if has_login:
        (tmp_path / "auth.json").write_text("{}")
    told = child_command(["codex"], BASE, {"CODEX_HOME": str(tmp_path), **key})
    assert "model_providers.wsproxy.requires_openai_auth=true" in told
    assert not any("env_key" in word for word in told)
