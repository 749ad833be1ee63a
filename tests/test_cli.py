"""The command line: exit codes, what is said where, and what is not imported."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tests.canary import SECRET
from wsproxy.cli.main import COMMANDS, main
from wsproxy.cli.main import wsproxy as group
from wsproxy.config import SETTINGS, load


@pytest.mark.parametrize(
    ("arguments", "problem", "advice"),
    [
        (["serv"], "there is no command 'serv'", "did you mean serve?"),
        (["frobnicate"], "there is no command 'frobnicate'", "`wsproxy --help` lists them"),
        (["--frob"], "no such option", "see `wsproxy --help`"),
        (["serve", "--lane", "on"], "no such option", "did you mean --lanes?"),
        (["serve", "--port", "9"], "no such option", "did you mean --listen?"),
        (["serve", "--base-url=x"], "no such option", "did you mean --upstream?"),
        (["serve", "--lanes", "of"], "flag --lanes: lanes: 'of' is not one of", "mean off?"),
        (["serve", "--set", "max_turns"], "--set max_turns: no value", "NAME=VALUE"),
        (["serve", "--set", "trace_dir='/x'"], "flag --set trace_dir: ", "leave the quotes out"),
        (["serve", "--set", "max_turn=1"], "there is no setting 'max_turn'", "max_turns?"),
        (["serve", "--lanes", "on", "--set", "lanes=on"], "lanes is given twice", "leave one"),
        (["serve", "--listen", "0.0.0.0:1"], "from other machines", "--allow-remote and"),
        (["serve", "--config", "/nonexistent"], "cannot be read", "check the path"),
        (["serve", "--set", "upstream_proxy=socks5://h:1"], "scheme socks5 is not", "http://HOST"),
        (["serve", "--set", f"upstream_ca_file={__file__}"], "no certificate in", "a PEM file"),
        (["pools", "--url", "http://[::1"], "is no address of a wsproxy", "http://HOST:PORT"),
        (["pools", "--url", "http://127.0.0.1:99999"], "is no address of", "http://HOST:PORT"),
        (["pools", "--url", "http://127.0.0.1:x"], "is no address of", "http://HOST:PORT"),
        (["top", "--url", "http://127.0.0.1:0"], "is no address of", "http://HOST:PORT"),
        (["config", "sho"], "there is no command 'sho'", "did you mean show?"),
        (["config", "x"], "there is no command 'x'", "`wsproxy config --help` lists them"),
        (["config", "check", "x"], "unexpected extra argument", "wsproxy config check --help"),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_wrong_use_is_told_with_what_to_do_and_ends_with_2(
    arguments: list[str], problem: str, advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr()
    first, second = shown.err.splitlines()
    assert first.startswith("wsproxy: ")
    assert problem in first
    assert advice in second
    assert shown.out == ""


@pytest.mark.parametrize(
    ("proxy", "problem"),
    [
        ("socks5://me:{}@127.0.0.1:1080", "a proxy of scheme socks5 is not supported"),
        ("socks5h://127.0.0.1:1080", "a proxy of scheme socks5h is not supported"),
        ("http://me:{}@127.0.0.1:abc", "the URL of the proxy cannot be read"),
    ],
    ids=["socks5", "socks5h", "no port"],
)
@pytest.mark.parametrize(
    "arguments", [["serve"], ["run", "--", "true"], ["config", "check"]], ids=" ".join
)
def test_a_proxy_variable_that_cannot_be_used_is_wrong_use_for_every_command(
    arguments: list[str],
    proxy: str,
    problem: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("OPENAI_BASE_URL", "https_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", proxy.format(SECRET))
    assert main(arguments) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"wsproxy: environment HTTPS_PROXY: {problem}"
    assert second.endswith(" or add api.openai.com to NO_PROXY")


def test_the_doctor_says_the_same_of_a_proxy_variable(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("https_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", f"socks5://me:{SECRET}@127.0.0.1:1080")
    assert main(["doctor", "--json"]) == 1
    checks = {one["check"]: one for one in json.loads(capsys.readouterr().out)["checks"]}
    assert checks["proxy"]["verdict"] == "fail"
    assert "HTTPS_PROXY: a proxy of scheme socks5" in checks["proxy"]["text"]
    assert "add api.openai.com to NO_PROXY" in checks["proxy"]["advice"]


@pytest.mark.parametrize("arguments", [[], ["config"]], ids=["wsproxy", "wsproxy config"])
def test_a_group_alone_shows_its_help_and_is_a_usage_error(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("Usage: wsproxy")
    assert shown.out == ""


@pytest.mark.parametrize(
    ("arguments", "begins"),
    [(["--version"], "wsproxy "), (["-h"], "Usage: wsproxy"), (["serve", "--help"], "Usage: ")],
    ids=" ".join,
)
def test_asking_is_no_error(
    arguments: list[str], begins: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 0
    assert capsys.readouterr().out.startswith(begins)


def test_config_show_tells_each_value_and_where_it_came_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "wsproxy.toml"
    path.write_text("max_turns = 5\n")
    monkeypatch.setenv("WSPROXY_LANES", "on")
    arguments = ["config", "show", "--config", str(path), "--transport", "http"]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert 'transport = "http"  # flag --transport\n' in shown
    assert 'lanes = "on"  # environment WSPROXY_LANES\n' in shown
    assert f"max_turns = 5  # file {path}\n" in shown
    assert 'compression = "deflate"  # default\n' in shown


def test_what_config_show_prints_is_a_settings_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", "show", "--set", "max_turns=9"]) == 0
    path = tmp_path / "shown.toml"
    path.write_text(capsys.readouterr().out, encoding="utf-8")
    assert load(environment={}, file=path).settings.max_turns == 9


def test_config_show_json_has_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "--json", "--listen", "127.0.0.1:1", "--listen", "[::1]:2"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert list(shown) == list(SETTINGS)
    assert shown["listen"] == {"value": ["127.0.0.1:1", "[::1]:2"], "source": "flag --listen"}


def test_config_check_says_that_all_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", "--lanes", "on", "--set", "max-turns=3"]) == 0
    assert capsys.readouterr().out.startswith("settings are right: 2 given")


def test_a_port_in_use_is_wrong_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        arguments = [sys.executable, "-m", "wsproxy", "serve", "--listen", address]
        ended = subprocess.run(arguments, check=False, timeout=30, capture_output=True, text=True)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"wsproxy: {address} is in use")
    assert "--listen" in ended.stderr


def test_only_commands_that_exist_are_listed() -> None:
    listed = group.list_commands(click.Context(group))
    assert set(listed) <= set(COMMANDS)
    for name in listed:
        command = group.get_command(click.Context(group), name)
        assert command is not None
        assert command.name == name


def test_the_command_line_starts_without_the_server() -> None:
    code = (
        "import sys; from wsproxy.cli.main import main; main(['config', 'check']);"
        "sys.exit(bool({'aiohttp', 'asyncio', 'structlog'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30, capture_output=True)


def test_the_package_runs_as_the_command() -> None:
    arguments = [sys.executable, "-m", "wsproxy", "serv"]
    ended = subprocess.run(arguments, check=False, timeout=30, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "did you mean serve?" in ended.stderr
