"""Simulator and proxy as processes of their own, and their certain end."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Final

#: Interpreter start and imports take under 1 s on a laptop; a loaded CI machine takes longer.
_START_TIMEOUT_S: Final = 30.0
#: Both have nothing left to finish by then.
_STOP_TIMEOUT_S: Final = 3.0
#: What the user's own shell says about proxies and settings is not part of the story.
_DROPPED_PREFIXES: Final = ("WSPROXY_", "OPENAI_")


class StartError(Exception):
    """A child did not come up; the text holds the end of what it said."""


@contextmanager
def simulator(flags: Sequence[str]) -> Iterator[str]:
    """A simulated API on a free port; yields its base URL. Raises `StartError`."""
    command = ["-m", "wsproxy.simulator", "--listen", "127.0.0.1:0", *flags]
    with _child(command) as line:
        yield line.split()[-1]


@contextmanager
def proxy(upstream: str, *flags: str) -> Iterator[str]:
    """`wsproxy serve` on a free port; yields its base URL. Raises `StartError`.

    The simulator keeps lanes and chains as api.openai.com is known to, and the proxy is told so;
    by itself it would find out with one more connection.
    """
    known = ["--lanes", "on", "--continuation", "on"]
    quiet = ["--log-level", "error", "--drain-timeout", "0", "--set", "trace=off"]
    listen = ["--listen", "127.0.0.1:0", "--upstream", upstream]
    with _child(["-m", "wsproxy", "serve", *listen, *known, *quiet, *flags]) as line:
        yield line.split()[-1]


@contextmanager
def _child(arguments: Sequence[str]) -> Iterator[str]:
    """Run Python with these arguments; yields the first line it prints, ends it afterwards."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(_DROPPED_PREFIXES)
    }
    with (
        tempfile.TemporaryFile("w+") as complaints,
        subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            env=kept,
            start_new_session=True,  # Ctrl-C is for us; we end them in order
        ) as child,
    ):
        try:
            yield _first_line(child, complaints)
        finally:
            _end(child)


def _first_line(child: subprocess.Popen[str], complaints: IO[str]) -> str:
    assert child.stdout is not None
    if select.select([child.stdout], [], [], _START_TIMEOUT_S)[0]:
        line = child.stdout.readline()
        if "http://" in line:
            return line
    complaints.seek(0)
    said = complaints.read().strip() or f"it printed nothing for {_START_TIMEOUT_S:.0f} s"
    raise StartError(said[-2000:])


def _end(child: subprocess.Popen[str]) -> None:
    child.terminate()
    with suppress(subprocess.TimeoutExpired):
        child.wait(_STOP_TIMEOUT_S)
    child.kill()
