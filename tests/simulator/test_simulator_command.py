"""`wsproxy simulate` as a program: its address, its flags, its exits."""

from __future__ import annotations

import asyncio
import dataclasses
import re
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from click.testing import CliRunner, Result

from tests.canary import SECRET, WATCH
from wsproxy.cli.simulate import simulate
from wsproxy.simulator import Rules
from wsproxy.simulator.faults import IN_TURN, MENU
from wsproxy.simulator.script import Script


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_prints_its_base_url_serves_and_ends_on_a_signal(number: signal.Signals) -> None:
    command = (sys.executable, "-m", "wsproxy.simulator", "--listen", "127.0.0.1:0")
    program = await asyncio.create_subprocess_exec(
        *command, "--models", "only-one", stdout=asyncio.subprocess.PIPE
    )
    assert program.stdout is not None
    line = (await asyncio.wait_for(program.stdout.readline(), 20)).decode()
    url = line.split()[-1]
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {SECRET}"}) as http:
        models = await (await http.get(url + "/models")).json()
        async with http.ws_connect(url + "/responses"):
            program.send_signal(number)
            code = await asyncio.wait_for(program.wait(), 20)

    assert [model["id"] for model in models["data"]] == ["only-one"]
    assert code == 0


BAD: dict[str, list[str]] = {
    "listen": ["--listen", "nowhere"],
    "port": ["--listen", "127.0.0.1:99999"],
    "fault": ["--fault", "mid_stream:explode"],
    "choice": ["--lanes", "sideways"],
    "number": ["--max-lanes", "many"],
    "flag": ["--no-such-flag"],
}


def said(flags: list[str]) -> Result:
    result = CliRunner().invoke(simulate, flags)
    WATCH.hear("what `simulate` says", result.output)
    return result


@pytest.mark.parametrize("flags", BAD.values(), ids=BAD.keys())
def test_a_bad_flag_is_a_usage_error(flags: list[str]) -> None:
    result = said(flags)

    assert result.exit_code == 2
    assert "Error:" in result.output


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        result = said(["--listen", address])

    assert result.exit_code == 2
    assert f"cannot listen on {address}: it is in use" in result.output
    assert "another port: --listen 127.0.0.1:" in result.output


PAGE = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text(encoding="utf-8")
FAULTS = sorted({*MENU, *MENU["handshake"], *IN_TURN})
ORDERS = [field.name for field in dataclasses.fields(Script)]


@pytest.mark.parametrize("name", FAULTS)
def test_the_help_and_the_page_name_every_place_and_every_fault(name: str) -> None:
    named = re.compile(rf"`{name}(=[A-Z]+)?`")

    assert named.search(simulate.help or "")
    assert named.search(PAGE)


@pytest.mark.parametrize("name", ORDERS)
def test_the_page_names_every_order_to_the_model(name: str) -> None:
    assert f"| `{name}=" in PAGE


def test_the_page_names_no_order_that_there_is_not() -> None:
    orders = PAGE.partition("## Faults")[0]

    assert set(re.findall(r"^\| `([a-z_]+)=", orders, re.MULTILINE)) == set(ORDERS)


def test_every_rule_is_a_flag() -> None:
    flags: set[str | None] = {parameter.name for parameter in simulate.params}

    missing: set[Any] = {rule.name for rule in dataclasses.fields(Rules)} - flags
    assert missing == set()
