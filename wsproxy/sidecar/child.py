"""The child: it owns the terminal, gets the signals, ends first, and says how it ended.

Rules of this file
------------------
1. The child stays in our process group: it is the terminal's foreground, as if started alone.
2. What the terminal sends (Ctrl-C) has reached the child already; only what is sent to us alone
   is passed on. What we were started to ignore (nohup) the child ignores as well.
3. Its exit code is ours, as a shell would give it: 128 + n after a signal, 126, 127.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Final

EXIT_NOT_EXECUTABLE: Final = 126  # POSIX shell, 2.8.2
EXIT_NOT_FOUND: Final = 127
SIGNAL_BASE: Final = 128

#: Those that a terminal sends to the whole foreground group by itself.
_KEYBOARD: Final = ("SIGINT", "SIGQUIT")
_PASSED_ON: Final = (*_KEYBOARD, "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")


class ChildError(Exception):
    """The command cannot be started; `exit_code` is what a shell would end with."""

    def __init__(self, problem: str, exit_code: int) -> None:
        super().__init__(problem)
        self.exit_code = exit_code


def run_child(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Start it, pass signals on, wait for its end; its exit code. Raises `ChildError`.

    Call it on the main thread: signal handlers run there.
    """
    with _signals_passed_on() as passing, _started(command, environment) as child:
        passing.to(child)
        code = child.wait()
    return SIGNAL_BASE - code if code < 0 else code


class _Passing:
    """Passes signals on; one that comes before there is a child is kept for it."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._early: list[int] = []

    def to(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child
        for number in self._early:
            child.send_signal(number)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if signal.Signals(number).name in _KEYBOARD and _is_foreground():
            return
        if self._child is None:
            self._early.append(number)
            return
        with suppress(ProcessLookupError):
            self._child.send_signal(number)


@contextmanager
def _signals_passed_on() -> Iterator[_Passing]:
    passing = _Passing()
    numbers = [getattr(signal, name) for name in _PASSED_ON if hasattr(signal, name)]
    heard = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, passing) for number in heard}
    try:
        yield passing
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _started(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(command, env=dict(environment))
    except (FileNotFoundError, NotADirectoryError):
        raise ChildError(f"{command[0]}: not found", EXIT_NOT_FOUND) from None
    except OSError as error:
        problem = f"{command[0]}: cannot be run: {error.strerror}"
        raise ChildError(problem, EXIT_NOT_EXECUTABLE) from None


def _is_foreground() -> bool:
    """Whether we are the terminal's foreground group, which Ctrl-C goes to as a whole."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except (OSError, AttributeError):
        return os.name == "nt"  # a console sends Ctrl-C to everybody attached to it
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
