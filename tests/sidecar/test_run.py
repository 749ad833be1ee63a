"""`wsproxy run`: the child's own life, behind a proxy of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.canary import PAGES, SECRET, TEXT
from tests.terminals import at_a_terminal
from wsproxy.cli.main import main
from wsproxy.demo import children
from wsproxy.sidecar.child import ChildError, run_child

CHILD: Final = str(Path(__file__).with_name("child.py"))
RUN: Final = [sys.executable, "-m", "wsproxy", "run"]
PATIENCE_S: Final = 30.0

#: Says that it is there, counts SIGINTs for a moment after the first, and tells how many came.
COUNTER: Final = """
import signal, sys, time
seen = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda got, _: seen.append(got))
print("ready", sys.stdin.isatty(), flush=True)
while not seen:
    time.sleep(0.02)
time.sleep(0.4)
print("seen", [signal.Signals(one).name for one in seen], flush=True)
sys.exit(5)
"""


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with children.simulator([]) as base_url:
        yield base_url


def environment(**variables: str) -> dict[str, str]:
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("OPENAI_", "WSPROXY_"))}
    return {**kept, "OPENAI_API_KEY": SECRET, **variables}


def agent_run(
    base_url: str, turns: int, exit_code: int, *options: str
) -> subprocess.CompletedProcess[str]:
    """`wsproxy run` with an agent whose shell has that base URL."""
    return subprocess.run(
        [*RUN, *options, "--", sys.executable, CHILD, str(turns), str(exit_code)],
        env=environment(OPENAI_BASE_URL=base_url, SAYS=TEXT, PAGES=" ".join(PAGES)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def test_a_command_runs_behind_a_proxy_of_its_own_and_two_lines_say_what_was_saved(
    upstream: str,
) -> None:
    ran = agent_run(upstream, 4, 7, "--continuation", "on")
    assert ran.returncode == 7, ran.stderr
    told = json.loads(ran.stdout)
    assert told["base_url"].startswith("http://127.0.0.1:")
    assert told["base_url"] not in (upstream, "http://127.0.0.1:8787/v1")
    first, second = ran.stderr.splitlines()
    assert first.startswith("wsproxy: 4 turns, 3 sent as deltas; 1 WebSocket handshake for 8 co")
    assert " sent up instead of " in second
    assert [bool(page) for page in told["pages"]] == [True] * len(PAGES)  # they were heard


@pytest.mark.parametrize(
    ("number", "seen"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "SIGINT")], ids=str
)
def test_a_signal_for_us_alone_is_passed_on_and_the_child_ends_first(
    upstream: str, number: signal.Signals, seen: str
) -> None:
    command = [*RUN, "--upstream", upstream, "--", sys.executable, "-c", COUNTER]
    with subprocess.Popen(
        command,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready False\n"
        running.send_signal(number)
        assert running.stdout.readline() == f"seen ['{seen}']\n"
        assert running.wait(PATIENCE_S) == 5


def test_ctrl_c_at_a_terminal_reaches_the_child_once(upstream: str) -> None:
    command = [*RUN, "--upstream", upstream, "--", sys.executable, "-c", COUNTER]
    with at_a_terminal(command, environment()) as (running, terminal):
        terminal.until("ready True")
        terminal.type(b"\x03")
        text = terminal.until("ended with exit code 5 before any turn")
        assert running.wait(PATIENCE_S) == 5
    assert "seen ['SIGINT']" in text


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137), ("kill -TERM $$", 143)],
    ids=["well", "badly", "killed", "terminated"],
)
def test_the_exit_code_is_the_childs_as_a_shell_would_tell_it(script: str, code: int) -> None:
    assert run_child(["sh", "-c", script], os.environ) == code


@pytest.mark.parametrize(
    ("mode", "code"), [(None, 127), (0o600, 126), (0o700, 126)], ids=["none", "no x", "no program"]
)
def test_a_command_that_cannot_be_started_ends_as_in_a_shell(
    tmp_path: Path, mode: int | None, code: int
) -> None:
    path = tmp_path / "command"
    if mode is not None:
        path.write_bytes(b"\0no program\n")
        path.chmod(mode)
    with pytest.raises(ChildError) as told:
        run_child([str(path)], os.environ)
    assert told.value.exit_code == code


def test_where_traces_could_not_be_written_nobody_is_sent_to_look_at_them(
    upstream: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    trace_dir = f"trace_dir={tmp_path / 'file' / 'traces'}"
    ran = agent_run(upstream, 3, 0, "--set", trace_dir)
    assert "of the trace could not be written; `wsproxy doctor` looks at" in ran.stderr
    assert "trace show" not in ran.stderr


def test_a_command_that_is_not_there_is_told_without_a_summary(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    assert main(["run", "--", "no-such-command-here"]) == 127
    assert capsys.readouterr().err == "wsproxy: no-such-command-here: not found\n"


def test_a_wrong_inherited_base_url_is_named_as_what_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "ftp://x")
    assert main(["run", "--", "true"]) == 2
    assert capsys.readouterr().err.startswith("wsproxy: environment OPENAI_BASE_URL: upstream:")


def test_signal_handlers_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    run_child(["true"], os.environ)
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_was_to_be_ignored_the_child_ignores_as_well(upstream: str) -> None:
    command = [*RUN, "--upstream", upstream, "--", "sh", "-c", "kill -HUP $$; echo survived"]
    ran = subprocess.run(
        ["sh", "-c", 'trap "" HUP; exec "$@"', "nohup", *command],
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (0, "survived\n"), ran.stderr


def test_a_command_is_told_that_it_gets_a_free_port(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "[default: 127.0.0.1:0]" in shown
    assert "8787, " not in shown


@pytest.mark.parametrize(
    ("arguments", "problem", "advice"),
    [
        (
            ["--upstrem", "x", "--", "true"],
            "no such option '--upstrem'",
            "did you mean --upstream?",
        ),
        (["--port", "9", "true"], "no such option '--port'", "did you mean --listen?"),
        (["-x", "true"], "no such option '-x'", "see `wsproxy run --help`"),
        (["--"], "missing argument", "see `wsproxy run --help`"),
    ],
    ids=["mistyped", "of other programs", "short", "no command"],
)
def test_a_word_before_the_command_that_is_no_option_is_wrong_use(
    arguments: list[str], problem: str, advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *arguments]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"wsproxy: {problem}")
    assert second.strip() == advice


@pytest.mark.parametrize(
    "command",
    [["sh", "-c", 'echo "$@"', "sh"], ["--", "sh", "-c", 'echo "$@"', "sh"]],
    ids=["no dashes", "dashes"],
)
def test_words_behind_the_command_are_its_own_even_where_they_look_like_ours(
    command: list[str], upstream: str
) -> None:
    ran = subprocess.run(
        [*RUN, "--upstream", upstream, *command, "--upstream", "mine", "--help", "--", "-x"],
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (0, "--upstream mine --help -- -x\n"), ran.stderr


def test_behind_a_running_daemon_a_command_goes_to_that_daemons_upstream(upstream: str) -> None:
    with children.proxy(upstream) as through:
        ran = agent_run(through, 3, 0, "--continuation", "on")
    assert ran.returncode == 0, ran.stderr
    said, first, _ = ran.stderr.splitlines()
    assert said == (
        f"wsproxy: OPENAI_BASE_URL names a wsproxy; this one goes to its upstream, {upstream}"
    )
    assert first.startswith("wsproxy: 3 turns, 2 sent as deltas; 1 WebSocket handshake for ")
