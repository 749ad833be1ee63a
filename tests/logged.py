"""The log under test: every line is looked at, and one that would lose a field raises."""

from __future__ import annotations

import io
from itertools import count

from tests.canary import WATCH
from wsproxy import logs


class Watched(io.StringIO):
    """A log in which the canary is looked for; keeps its lines only where a test reads them."""

    def __init__(self, *, keeps_lines: bool) -> None:
        super().__init__()
        self._keeps_lines = keeps_lines

    def write(self, text: str) -> int:
        WATCH.look("the log", text)
        return super().write(text) if self._keeps_lines else len(text)


def use_log(stream: Watched) -> None:
    """Log into it from now on. Each line is a second after the one before: none is suppressed."""
    seconds = count()
    logs.configure(
        "debug", "json", stream=stream, clock=lambda: float(next(seconds)), is_strict=True
    )
