"""Commands at a terminal of their own, as a shell starts them."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

from tests.canary import WATCH

PATIENCE_S: Final = 30.0
_OWN_TERMINAL: Final = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)


class Terminal:
    """The side that a person sits at."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._told = ""

    def until(self, end: str) -> str:
        """Everything that was told so far, when `end` has come."""
        deadline = time.monotonic() + PATIENCE_S
        while end not in self._told:
            left_s = max(0.0, deadline - time.monotonic())
            readable, _, _ = select.select([self._descriptor], [], [], left_s)
            assert readable, self._told
            self._told += os.read(self._descriptor, 4096).decode()
        WATCH.hear("the terminal", self._told)
        return self._told

    def type(self, keys: bytes) -> None:
        """What a person types."""
        os.write(self._descriptor, keys)

    def close(self) -> None:
        """Close the window."""
        with suppress(OSError):
            os.close(self._descriptor)


@contextmanager
def at_a_terminal(
    command: Sequence[str], environment: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[Any], Terminal]]:
    """The running command and its terminal; killed if it still runs at the end."""
    master, slave = pty.openpty()
    terminal = Terminal(master)
    started = [sys.executable, "-c", _OWN_TERMINAL, *command]
    with subprocess.Popen(
        started, env=environment, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
    ) as running:
        os.close(slave)
        try:
            yield running, terminal
        finally:
            running.kill()
            terminal.close()
