"""Signals where the event loop hears none, as on Windows, and those of a terminal."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Final

import pytest

from tests.terminals import at_a_terminal

PATIENCE_S: Final = 20.0
#: What stays is the abstract loop's method, which raises NotImplementedError, as on Windows.
WITHOUT_SIGNALS: Final = """
import asyncio, sys
sys.modules["uvloop"] = None
del asyncio.SelectorEventLoop.add_signal_handler
from wsproxy.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=str)
@pytest.mark.parametrize("command", ["serve", "simulate"])
def test_a_loop_that_hears_no_signals_is_ended_by_them_all_the_same(
    command: str, number: signal.Signals
) -> None:
    arguments = [sys.executable, "-c", WITHOUT_SIGNALS, command, "--listen", "127.0.0.1:0"]
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as running:
        assert running.stdout is not None
        try:
            assert "http://127.0.0.1:" in running.stdout.readline()
            running.send_signal(number)
            assert running.wait(PATIENCE_S) == 0
        finally:
            running.kill()


SERVE: Final = [sys.executable, "-m", "wsproxy", "serve", "--listen", "127.0.0.1:0"]


def test_a_daemon_whose_terminal_is_closed_ends() -> None:
    with at_a_terminal(SERVE) as (running, terminal):
        terminal.until("daemon.ready")
        terminal.close()
        assert running.wait(PATIENCE_S) == 0


def test_a_hangup_where_the_terminal_is_still_there_reloads() -> None:
    with at_a_terminal(SERVE) as (running, terminal):
        terminal.until("daemon.ready")
        running.send_signal(signal.SIGHUP)
        terminal.until("daemon.reloaded")
        assert running.poll() is None
