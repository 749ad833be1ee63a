"""Standard streams that are closed, or cannot show every character."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.trace.trace_stage import run, turn, written
from wsproxy.cli.main import main

WSPROXY: Final = f"{sys.executable} -m wsproxy"
PATIENCE_S: Final = 30.0
#: The shell closes the stream; Python's own `Popen` cannot.
CLOSED: Final = ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"]
#: An upstream that is never asked, so that nothing of the machine's proxies matters.
UPSTREAM: Final = "--upstream http://127.0.0.1:9/v1"


def shell(script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", script],
        env={**os.environ, **variables},
        capture_output=True,
        encoding="latin-1",
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.mark.parametrize("closed", CLOSED)
def test_a_command_runs_though_a_stream_is_closed(closed: str) -> None:
    ran = shell(f"{WSPROXY} run {UPSTREAM} -- sh -c 'exit 3' {closed}")
    assert ran.returncode == 3, ran.stderr


@pytest.mark.parametrize("closed", CLOSED[:3])
def test_a_daemon_serves_and_stops_though_a_stream_is_closed(closed: str) -> None:
    command = f"exec {WSPROXY} serve {UPSTREAM} --listen 127.0.0.1:0 {closed}"
    is_told_on = "stdout" if closed == "2>&-" else "stderr"
    with subprocess.Popen(
        ["sh", "-c", command],
        stdin=subprocess.DEVNULL,
        text=True,
        **{is_told_on: subprocess.PIPE},  # type: ignore[call-overload]
    ) as daemon:
        try:
            assert "ready" in getattr(daemon, is_told_on).readline()
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(PATIENCE_S) == 0
        finally:
            daemon.kill()


def test_a_child_finds_closed_what_was_closed() -> None:
    look = f"{sys.executable} -c 'import sys; print(sys.stdin, sys.stderr is None)'"
    ran = shell(f"{WSPROXY} run {UPSTREAM} -- {look} <&-")
    assert ran.stdout == "None False\n", ran.stderr


@pytest.mark.parametrize("encoding", ["latin-1", "ascii:strict"])
def test_what_a_terminal_cannot_show_is_replaced_and_its_encoding_kept(encoding: str) -> None:
    script = "import sys; from wsproxy.cli.main import main; main(['--version']); print('→ü')"
    shown = shell(f'{sys.executable} -c "{script}"', PYTHONIOENCODING=encoding)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.splitlines()[-1] == ("?ü" if encoding == "latin-1" else "??")


def test_a_doctor_finishes_at_a_terminal_without_arrows() -> None:
    ran = shell(f"{WSPROXY} doctor {UPSTREAM} --listen 127.0.0.1:8", PYTHONIOENCODING="latin-1")
    assert ran.stderr == ""
    assert "? start one: " in ran.stdout
    assert "traces" in ran.stdout.splitlines()[-1]


def test_streams_that_are_open_are_left_as_they_are() -> None:
    before = sys.stdin, sys.stdout, sys.stderr
    assert main(["--version"]) == 0
    assert (sys.stdin, sys.stdout, sys.stderr) == before


@pytest.mark.parametrize("command", ["--help", "config show", "trace list --json", "trace show"])
def test_output_that_cannot_be_written_is_one_line_and_exit_code_1(
    command: str, tmp_path: Path
) -> None:
    folder = written(tmp_path / "traces", [run(), turn()])
    where = f"--dir {folder}" if command.startswith("trace") else ""
    ran = shell(f"{WSPROXY} {command} {where} >/dev/full")
    assert ran.stderr.splitlines() == [
        "wsproxy: cannot write to standard output: No space left on device"
    ]
    assert ran.returncode == 1


@pytest.mark.parametrize("command", ["config show", "trace list --json", "trace export"])
def test_a_pipe_that_nobody_reads_ends_a_command_without_a_word(
    command: str, tmp_path: Path
) -> None:
    folder = written(tmp_path / "traces", [run(), *map(turn, range(1, 999))])
    where = f"--dir {folder}" if command.startswith("trace") else ""
    ran = shell(f"{WSPROXY} {command} {where} | true")
    assert ran.stderr == ""
