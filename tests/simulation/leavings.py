"""What the proxy of a world leaves behind, and what must be so of it, as of a real one.

Its log, journal, pages and objects hold no key and no text of a user (faults.md C-01), and the
core, told its journal again, gives the same commands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from tests.canary import WATCH
from wsproxy.config.settings import Settings
from wsproxy.core.commands import Note
from wsproxy.core.multiplexer import Multiplexer
from wsproxy.daemon import Daemon, log_note
from wsproxy.downstream.models import ModelCounters
from wsproxy.driver import Driver
from wsproxy.metrics.exposed import Numbers
from wsproxy.metrics.report import Report
from wsproxy.metrics.tally import Tally
from wsproxy.trace.doors import DoorRecorder
from wsproxy.trace.journal import Journal
from wsproxy.trace.keyed import KEY_BYTES, Keyed
from wsproxy.trace.record import Content
from wsproxy.trace.recorder import Recorder
from wsproxy.trace.replay import Outcome, read_runs, replay

#: No world has more events.
_MAX_QUEUED: Final = 1_000_000
_NO_HTTPS: Final[Any] = None  # the daemon's client is nobody's here


class Paper:
    """A `trace.journal.File` in memory."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def open(self) -> None:
        """See `trace.journal.File`."""

    def append(self, lines: Sequence[bytes], contents: Sequence[Content]) -> None:
        """See `trace.journal.File`."""
        assert not contents
        self.lines += lines

    def sync(self) -> None:
        """See `trace.journal.File`."""

    def close(self) -> None:
        """See `trace.journal.File`."""


class Leavings:
    """Everything beside the driver that a daemon has, wired as `wsproxy.daemon` does it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._paper = Paper()
        self._complaints: list[str] = []
        self._journal = Journal(
            self._paper,
            lambda event, about: self._complaints.append(f"{event} {about}"),
            max_queued=_MAX_QUEUED,
            gather_s=0.0,
        )
        # Written when all is over: whatever is changed after it was told would show.
        self._recorder = Recorder(self._journal, partial(Keyed, bytes(KEY_BYTES)))
        self._tally = Tally()
        self._numbers = Numbers(self._report)
        self._core: Multiplexer | None = None
        self._daemon: Daemon | None = None
        self.tracers = (self._tally, self._numbers.turns, self._recorder)

    def doors(self, core: Multiplexer, history: dict[str, Any]) -> DoorRecorder:
        """What records the core's doors; `history` is what its history was made with."""
        self._core = core
        return self._recorder.doors(core, history)

    def watch(self, driver: Driver) -> None:
        """The driver of this world."""
        daemon = Daemon(Settings(), _NO_HTTPS, driver, self._tally, clock=self._clock)
        self._daemon = daemon

    def note(self, note: Note) -> None:
        """A line of the log, which is looked at where it is written."""
        log_note(note)

    def look(self) -> None:
        """Look at the pages of this moment, and at all objects."""
        WATCH.look("the metrics", self._numbers.text())
        WATCH.look("the pools", msgspec.json.encode(self._report()))
        WATCH.look_at_objects()

    def _report(self) -> Report:
        assert self._daemon is not None
        assert self._core is not None
        return self._daemon.report(self._core, ModelCounters())

    def replayed(self) -> Outcome:
        """Write the journal, look at it, and tell it to another core."""
        self._journal.start()
        self._journal.close()
        assert not self._complaints, self._complaints
        WATCH.look("the journal", b"\n".join(self._paper.lines))
        ((run, recorded),) = read_runs(self._paper.lines).items()
        return replay(run, recorded)
