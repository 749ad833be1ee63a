"""The README says only what is there: commands, flags, files, the table's rows, the examples."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

import click
import pytest

from tests.bench.readme import BEGIN, END, replaced
from tests.canary import SECRET, TEXT, WATCH
from wsproxy.cli.page import commands
from wsproxy.config import SETTINGS
from wsproxy.demo import children, sightings, table
from wsproxy.demo.agent import Loop, Turn
from wsproxy.demo.costs import REAL
from wsproxy.demo.story import Report, Run

ROOT: Final = Path(__file__).parents[2]
README: Final = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS: Final = dict(commands())
#: Names of commands and of files, as they are called in text and in blocks.
CALLED: Final = re.compile(r"(?:^|[`/])wsproxy ([a-z]+)\b", re.MULTILINE)
LINKED: Final = re.compile(r"\]\(([^)#:]+)\)")
SCRIPT: Final = re.compile(r"\bscripts/[a-z]+\b")
SHELL: Final = re.compile(r"```sh\n(.*?)```", re.DOTALL)
FLAG: Final = re.compile(r"`(?:wsproxy [a-z]+ )?(--[a-z-]+)")
#: A screen of a laptop.
FIRST_SCREEN_LINES: Final = 60


@pytest.mark.parametrize("name", sorted(set(CALLED.findall(README))))
def test_a_command_that_is_named_exists(name: str) -> None:
    assert f"wsproxy {name}" in COMMANDS


@pytest.mark.parametrize("path", sorted({*LINKED.findall(README), *SCRIPT.findall(README)}))
def test_a_file_that_is_named_exists(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize("flag", sorted(set(FLAG.findall(README))))
def test_a_flag_that_is_named_exists(flag: str) -> None:
    known = {
        name
        for command in COMMANDS.values()
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for name in parameter.opts
    }
    assert flag in known


def test_the_first_screen_says_how_to_start_what_it_gains_and_what_it_never_does() -> None:
    first = "\n".join(README.splitlines()[:FIRST_SCREEN_LINES])
    assert first.index("scripts/demo") < first.index("| wall time") < first.index("never does")
    assert "![" not in first


def test_the_measured_table_has_the_rows_that_the_demo_prints() -> None:
    seen = sightings.Sightings(1, 0, deltas=0, bytes_up=1, connections=1, websockets=1)
    run = Run(Loop(1.0, [Turn(1.0, [])]), seen)
    report = Report(20, REAL, run, run, None)
    for label, *_ in table.rows(report):
        assert f"\n| {label} |" in README
    words = " ".join(README.split())
    assert REAL.in_words() in words


def test_the_first_walk_works_as_it_stands_there_and_with_no_key() -> None:
    [walk] = [block for block in SHELL.findall(README) if "wsproxy simulate &" in block]
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    walk = walk.replace("wsproxy simulate &", f"wsproxy simulate --listen {address} &")
    walk = walk.replace("127.0.0.1:8089", address)
    walk = walk.replace(
        "explain ID", "explain $(wsproxy trace show | grep -o '^t[0-9a-f]*' | tail -1)"
    )
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("OPENAI_", "WSPROXY_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ran = subprocess.run(
        ["sh", "-ec", f"trap 'kill $! 2>/dev/null || :' EXIT\n{walk}"],
        cwd=ROOT,
        env={**kept, "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"wsproxy: \d+ turns.*, [1-9] sent as deltas", ran.stderr)
    answer, listed, shown = ran.stdout.index("items="), ran.stdout.index("session "), "connection 1"
    assert answer < listed < ran.stdout.index(shown)


def test_the_bench_finds_where_its_table_goes() -> None:
    written = replaced(README, {})
    assert replaced(written, {}) == written
    assert written.partition(BEGIN)[0] == README.partition(BEGIN)[0]
    assert written.partition(END)[2] == README.partition(END)[2]


def test_the_settings_of_codex_name_the_address_we_listen_on_by_default() -> None:
    block = re.search(r"```toml\n(.*?)```", README, re.DOTALL)
    assert block is not None
    provider = tomllib.loads(block[1])["model_providers"]["wsproxy"]
    assert provider["base_url"] == f"http://{SETTINGS['listen'].default[0]}/v1"


def test_the_example_agent_gets_its_answer_through_the_proxy() -> None:
    with children.simulator([]) as upstream, children.proxy(upstream) as through:
        ran = subprocess.run(
            [sys.executable, "docs/examples/agent.py", f"[sim tool_calls=3] What is here? {TEXT}"],
            cwd=ROOT,
            env={"OPENAI_BASE_URL": through, "OPENAI_API_KEY": SECRET, "NO_PROXY": "127.0.0.1"},
            capture_output=True,
            text=True,
            timeout=30,
        )
        seen = sightings.take(upstream)
        asyncio.run(WATCH.look_at_child(through))
    assert ran.returncode == 0, ran.stderr
    assert len(ran.stderr.splitlines()) == 3
    assert ran.stdout.startswith("items=")
    assert (seen.turns, seen.deltas, seen.websockets, seen.http_turns) == (4, 3, 1, 0)
