"""The three standard streams, made fit for use before anything else is opened.

Rules of this file
------------------
1. No socket and no file may ever get descriptor 0, 1 or 2: event loops and children take these
   for the standard streams.
2. What a terminal cannot show becomes `?`: an arrow is no reason to end.
3. A child finds closed what was closed: the stand-ins are not inherited (PEP 446).
4. Output that cannot be written ends the command with an `OutputError`, whoever wrote it; a pipe
   that nobody reads any more ends it without a word.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

_NAMES: Final = ("stdin", "stdout", "stderr")


def prepare_streams() -> None:
    """Put the null device where a standard stream is closed; let output replace characters."""
    for descriptor, name in enumerate(_NAMES):
        if not _is_open(descriptor):
            _open_null(descriptor)
        if getattr(sys, name) is None:
            mode = "w" if descriptor else "r"
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


class OutputError(Exception):
    """Standard output cannot be written: a full disk, a limit. Says why."""


@contextmanager
def watched_output() -> Iterator[None]:
    """Raise `OutputError` inside wherever standard output fails, its last flush included."""
    before = sys.stdout
    if before is not sys.__stdout__ or not isinstance(before, io.TextIOWrapper) or before.isatty():
        yield  # a terminal is never full, and what else stands there is somebody's own
        return
    raw = _Output(before.fileno(), "wb", closefd=False)
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(raw), before.encoding, before.errors)
    try:
        yield
        sys.stdout.flush()
    finally:
        sys.stdout = before


class _Output(io.FileIO):
    """A file that fails once; what is still in buffers above it then is lost anyway."""

    _has_failed = False

    def write(self, text: Any) -> int:
        if self._has_failed:
            return len(text)
        try:
            return super().write(text)
        except BrokenPipeError:
            self._has_failed = True
            raise
        except OSError as error:
            self._has_failed = True
            raise OutputError(error.strerror) from None


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _open_null(descriptor: int) -> None:
    opened = os.open(os.devnull, os.O_RDWR)
    if opened != descriptor:  # not the lowest one that is free, where a system counts otherwise
        os.dup2(opened, descriptor, inheritable=False)
        os.close(opened)
