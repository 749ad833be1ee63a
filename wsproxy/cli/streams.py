"""The three standard streams, made fit for use before anything else is opened.

Rules of this file
------------------
1. No socket and no file may ever get descriptor 0, 1 or 2: event loops and children take these
   for the standard streams.
2. What a terminal cannot show becomes `?`: an arrow is no reason to end.
3. A child finds closed what was closed: the stand-ins are not inherited (PEP 446).
"""

from __future__ import annotations

import io
import os
import sys
from typing import Final

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
