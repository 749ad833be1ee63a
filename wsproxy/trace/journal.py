"""The journal: records in, lines of a file out, off everybody's path.

Rules of this file
------------------
1. `put` never blocks, never raises and makes no system call while the writer is busy; what does
   not fit is dropped and counted.
2. One thread writes. It gathers what came meanwhile and hands it to the file in one write.
3. A disk that refuses stops tracing, never a turn: one log line, a counter, a new try each minute.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final, Protocol

from wsproxy.trace.folder import (
    FolderError,
    Limits,
    check_free,
    last_journal,
    make_room,
    next_journal,
    open_folder,
)
from wsproxy.trace.record import Content, Dropped, Record, decode, encode

#: Records that may wait (faults.md §7); a turn is one.
MAX_QUEUED: Final = 4096
#: Bytes behind them: terminal events and, with bodies, requests.
MAX_QUEUED_BYTES: Final = 64 * 1024 * 1024
#: How long the writer gathers after the first record, so that a busy proxy writes 20 times a
#: second and not for each turn.
GATHER_S: Final = 0.05
#: How long tracing rests after the disk refused (faults.md F44).
REST_S: Final = 60.0
#: How long nothing more is said of a queue that is full.
OVERRUN_QUIET_S: Final = 60.0
#: After so much work in one go others have Python's lock for a moment, unless so many entries wait
#: that the queue could fill.
WORK_S: Final = 300e-6
PAUSE_S: Final = 50e-6
HURRY: Final = 1024
#: Records put into one write.
BATCH: Final = 512

#: Gives the records of one entry; called by the writer's thread, so it may take its time.
Making = Callable[[], Sequence[Record]]
Report = Callable[[str, dict[str, str | int]], None]


class File(Protocol):
    """Where lines go. `FolderFile` is the real one."""

    def open(self) -> None:
        """Make ready to append. Raises `OSError`, `FolderError`."""

    def append(self, lines: Sequence[bytes], contents: Sequence[Content]) -> None:
        """Write all lines, and of the contents those that are not there. Raises `OSError`."""

    def sync(self) -> None:
        """See that everything is on the disk. Raises `OSError`."""

    def close(self) -> None:
        """Give the file back; never raises."""


class _Stop:
    """The end of the queue."""


class Journal:
    """A bounded queue and the thread behind it."""

    def __init__(
        self,
        file: File,
        report: Report,
        *,
        max_queued: int = MAX_QUEUED,
        max_queued_bytes: int = MAX_QUEUED_BYTES,
        name: str = "trace",
        gather_s: float = GATHER_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`report` is told of `NAME.stopped`, `NAME.resumed` and `NAME.overrun`."""
        self._file = file
        self._report = report
        self._max_queued = max_queued
        self._max_queued_bytes = max_queued_bytes
        self._name = name
        self._gather_s = gather_s
        self._clock = clock
        self._queue: SimpleQueue[tuple[Making, int] | _Stop] = SimpleQueue()
        self._put_bytes = 0  # written by the callers' thread only
        self._taken_bytes = 0  # written by the writer's thread only
        self._overrun = 0
        self._overrun_told = 0
        self._overrun_told_at = -OVERRUN_QUIET_S
        self._refused = 0
        self._told = 0
        self._resumes_at: float | None = None
        self._is_open = False
        self.written = 0
        self._thread = threading.Thread(target=self._write_on, name=f"wsproxy-{name}", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Records lost since the start: the queue was full, or the disk refused."""
        return self._overrun + self._refused

    @property
    def is_stopped(self) -> bool:
        """Whether the disk refused and tracing rests."""
        return self._resumes_at is not None

    def put(self, making: Making, held_bytes: int = 0) -> None:
        """Queue one entry; `held_bytes` is what it keeps in memory until it is written."""
        is_heavy = self._put_bytes - self._taken_bytes + held_bytes > self._max_queued_bytes
        if is_heavy or self._queue.qsize() >= self._max_queued:
            self._overrun += 1
            return
        self._put_bytes += held_bytes
        self._queue.put((making, held_bytes))

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what is queued, sync, end the thread. Blocks: not for the event loop's thread."""
        if self._thread.is_alive():
            self._queue.put(_Stop())
            self._thread.join(timeout_s)

    # ── The writer's thread ──────────────────────────────────────────────────────────────────

    def _write_on(self) -> None:
        is_ending = False
        while not is_ending:
            first = self._queue.get()
            if not isinstance(first, _Stop):
                time.sleep(self._gather_s)
            batch, is_ending = self._gather(first)
            self._write(batch)
        self._end()

    def _gather(self, first: tuple[Making, int] | _Stop) -> tuple[list[Making], bool]:
        batch: list[Making] = []
        entry = first
        while not isinstance(entry, _Stop):
            batch.append(entry[0])
            self._taken_bytes += entry[1]
            if len(batch) == BATCH:
                return batch, False
            try:
                entry = self._queue.get_nowait()
            except Empty:
                return batch, False
        return batch, True

    def _write(self, batch: Sequence[Making]) -> None:
        if not batch:
            return
        if self._resumes_at is not None and self._clock() < self._resumes_at:
            self._refused += len(batch)
            return
        try:
            self._append(batch)
        except Exception as error:  # whatever breaks here, no turn does
            self._refused += len(batch)
            self._rest(error)
            return
        self.written += len(batch)
        self._tell_overrun()
        if self._resumes_at is not None:
            self._resumes_at = None
            self._report(f"{self._name}.resumed", {"count": self.dropped})

    def _append(self, batch: Sequence[Making]) -> None:
        if not self._is_open:
            self._file.open()
            self._is_open = True
        records = self._made(batch)
        lines = [encode(record) for record in records if not isinstance(record, Content)]
        if (dropped := self.dropped) > self._told:
            lines.append(encode(Dropped(time.time(), dropped - self._told)))
        self._file.append(lines, [record for record in records if isinstance(record, Content)])
        self._told = dropped

    def _made(self, batch: Sequence[Making]) -> list[Record]:
        """The records of a batch, made with pauses: while this thread holds Python's lock, the
        event loop waits up to 5 ms for it wherever it has let go of it."""
        records: list[Record] = []
        began = time.perf_counter()
        for making in batch:
            records += making()
            if time.perf_counter() - began > WORK_S and self._queue.qsize() < HURRY:
                time.sleep(PAUSE_S)
                began = time.perf_counter()
        return records

    def _tell_overrun(self) -> None:
        """Say what did not fit, by the writer: `put` has no time for a log line."""
        count, now = self._overrun - self._overrun_told, self._clock()
        if count and now - self._overrun_told_at >= OVERRUN_QUIET_S:
            self._report(f"{self._name}.overrun", {"count": count})
            self._overrun_told, self._overrun_told_at = self._overrun, now

    def _rest(self, error: Exception) -> None:
        """Stop tracing for a while; said once, however often the disk refuses again."""
        if self._resumes_at is None:
            self._report(f"{self._name}.stopped", {"error": _words(error)})
        self._resumes_at = self._clock() + REST_S
        self._file.close()
        self._is_open = False

    def _end(self) -> None:
        if self._is_open:
            try:
                self._file.sync()
            except OSError as error:
                self._rest(error)
        self._file.close()


def _words(error: Exception) -> str:
    """What is said of it in the log; never the message of an error that is not ours."""
    if isinstance(error, FolderError):
        return f"{error.problem}; {error.advice}"
    name = type(error).__name__
    return (error.strerror or name) if isinstance(error, OSError) else name


class FolderFile:
    """The journal files of a trace folder, one after another."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder = folder
        self._limits = limits
        self._descriptor: int | None = None
        self._size = 0
        self._known: set[str] = set()

    def open(self) -> None:
        """See `File`. Goes on in the last file where that is possible."""
        open_folder(self._folder)
        check_free(self._folder, self._limits)
        found = last_journal(self._folder, self._limits)
        if found is None:
            self._begin()
        else:
            self._descriptor, path = found
            self._size, self._known = _go_on(self._descriptor, path)

    def _begin(self) -> None:
        check_free(self._folder, self._limits)
        make_room(self._folder, self._limits)
        self._descriptor, _ = next_journal(self._folder)
        self._size = 0
        self._known = set()

    def append(self, lines: Sequence[bytes], contents: Sequence[Content]) -> None:
        """See `File`. Where somebody has removed the file, a new one is begun."""
        assert self._descriptor is not None
        if os.fstat(self._descriptor).st_nlink == 0:
            self.close()
            self.open()
        self._write(b"".join([*self._new(contents), *lines]))
        if self._size >= self._limits.max_file_bytes:
            self.close()
            self._begin()

    def _new(self, contents: Sequence[Content]) -> list[bytes]:
        found: list[bytes] = []
        for content in contents:
            if content.name not in self._known:
                self._known.add(content.name)
                found.append(encode(content))
        return found

    def _write(self, text: bytes) -> None:
        assert self._descriptor is not None
        left = memoryview(text)
        while left:
            count = os.write(self._descriptor, left)
            self._size += count
            left = left[count:]

    def sync(self) -> None:
        """See `File`."""
        if self._descriptor is not None:
            os.fsync(self._descriptor)

    def close(self) -> None:
        """See `File`."""
        if self._descriptor is not None:
            os.close(self._descriptor)  # its lock goes with it
            self._descriptor = None


def _go_on(descriptor: int, path: Path) -> tuple[int, set[str]]:
    """Size and known contents of a file that is gone on with; a torn last line is ended."""
    known: set[str] = set()
    last = b"\n"
    with os.fdopen(os.dup(descriptor), "rb") as file:
        file.seek(0)
        for last in file:
            if last.startswith(b'{"kind":"content"'):
                _learn(known, last)
    size = os.fstat(descriptor).st_size
    if not last.endswith(b"\n"):
        size += os.write(descriptor, b"\n")
    return size, known


def _learn(known: set[str], line: bytes) -> None:
    try:
        record = decode(line)
    except ValueError:
        return
    if isinstance(record, Content):
        known.add(record.name)
