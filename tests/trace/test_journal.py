"""The journal: off everybody's path, bounded, and quiet about a disk that refuses."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.trace.trace_stage import ROOMY, FakeFile, turn, written
from wsproxy.trace.folder import FolderError, Limits, journals
from wsproxy.trace.journal import REST_S, FolderFile, Journal
from wsproxy.trace.reader import read_traces
from wsproxy.trace.record import Dropped, Record, decode, encode


class Log:
    """Keeps what is reported."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, str | int]]] = []

    def __call__(self, event: str, fields: dict[str, str | int]) -> None:
        self.lines.append((event, fields))

    @property
    def events(self) -> list[str]:
        return [event for event, _ in self.lines]


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Stage:
    """A journal over a file that fails on order."""

    def __init__(self) -> None:
        self.file, self.log, self.clock = FakeFile(), Log(), Clock()
        self.journal = Journal(
            self.file, self.log, max_queued=8, max_queued_bytes=1000, clock=self.clock
        )
        self.journal.start()

    def put(self, number: int, held_bytes: int = 0) -> None:
        self.journal.put(lambda: [turn(number)], held_bytes)

    def put_and_wait(self, number: int) -> None:
        """Until the writer is through with it."""
        before = self.journal.written + self.journal.dropped
        self.put(number)
        wait_for(lambda: self.journal.written + self.journal.dropped > before)

    @property
    def written(self) -> list[Record]:
        return [decode(line) for line in self.file.lines]


def wait_for(is_done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not is_done():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.file.gate.set()
    stage.journal.close()


def test_records_are_written_in_order_and_synced_at_the_end(stage: Stage) -> None:
    for number in range(1, 6):
        stage.put(number)
    stage.journal.close()
    assert stage.written == [turn(number) for number in range(1, 6)]
    assert stage.file.synced == 1


def test_an_overrun_queue_drops_and_counts_and_never_blocks(stage: Stage) -> None:
    stage.file.gate.clear()
    stage.put(1)
    wait_for(lambda: stage.file.opened == 1)  # the writer is held up in `append` from now on
    began = time.monotonic()
    for number in range(2, 30):
        stage.put(number)
    assert time.monotonic() - began < 0.5
    assert stage.journal.dropped == 20
    stage.file.gate.set()
    stage.journal.close()
    assert stage.written[-1] == Dropped(pytest.approx(time.time(), abs=60), 20)  # type: ignore[arg-type]
    assert len(stage.written) == 1 + 8 + 1
    assert stage.log.lines == [("trace.overrun", {"count": 20})]


def test_of_a_queue_that_stays_full_one_line_a_minute_tells(stage: Stage) -> None:
    for seconds in (0, 30, 61):
        stage.clock.now = seconds
        stage.journal.put(lambda: [turn(1)], held_bytes=2000)  # more than may wait
        stage.put_and_wait(2)
    stage.journal.close()
    assert stage.log.lines == [("trace.overrun", {"count": 1}), ("trace.overrun", {"count": 2})]


def test_what_waits_is_bounded_in_bytes_too(stage: Stage) -> None:
    stage.file.gate.clear()
    stage.put(1, held_bytes=900)
    stage.put(2, held_bytes=900)
    assert stage.journal.dropped == 1
    stage.file.gate.set()
    wait_for(lambda: stage.journal.written == 1)
    stage.put(3, held_bytes=900)
    assert stage.journal.dropped == 1


FAILURES = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EIO, "Input/output error"),
    PermissionError(errno.EACCES, "Permission denied"),
    FolderError("/traces is a symbolic link", "name the folder itself"),
    ValueError("a bug, and the user's text: hunter2"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_a_disk_that_refuses_is_told_once_and_tried_again_each_minute(
    failure: Exception, stage: Stage
) -> None:
    stage.file.fails_with = failure
    for number in range(1, 4):
        stage.put_and_wait(number)
        stage.clock.now += REST_S + 1  # the next one tries again, and fails again
    assert stage.journal.is_stopped
    assert stage.log.events == ["trace.stopped"]
    assert "hunter2" not in str(stage.log.lines)
    assert stage.file.opened == 3
    stage.file.fails_with = None
    stage.put_and_wait(4)
    assert stage.log.lines[1:] == [("trace.resumed", {"count": 3})]
    assert [type(record).__name__ for record in stage.written] == ["TurnRecord", "Dropped"]


def test_while_it_rests_the_disk_is_left_alone(stage: Stage) -> None:
    stage.file.fails_with = OSError(errno.ENOSPC, "No space left on device")
    for number in range(1, 6):
        stage.put_and_wait(number)
    assert stage.file.opened == 1
    assert stage.journal.dropped == 5


def journal_in(folder: Path, limits: Limits = ROOMY) -> Journal:
    journal = Journal(FolderFile(folder, limits), Log())
    journal.start()
    return journal


def test_a_torn_last_line_is_ended_before_the_next_record(tmp_path: Path) -> None:
    folder = written(tmp_path / "traces", [turn(1)], tail=encode(turn(2))[:50])
    journal = journal_in(folder)
    journal.put(lambda: [turn(3)])
    journal.close()
    traces = read_traces(folder)
    assert list(traces.turns) == [turn(1).turn, turn(3).turn]
    assert traces.damaged == 1
    assert len(journals(folder)) == 1


def test_a_full_file_is_followed_by_another_and_the_oldest_goes(tmp_path: Path) -> None:
    limits = Limits(max_file_bytes=2000, max_files=3, min_free_bytes=0)
    journal = journal_in(tmp_path / "traces", limits)
    for batch in range(10):
        turns = [turn(number) for number in range(20 * batch + 1, 20 * batch + 21)]
        journal.put(partial(list, turns))
        wait_for(lambda done=batch + 1: journal.written == done)  # type: ignore[misc]
    journal.close()
    files = journals(tmp_path / "traces")
    assert len(files) == 3
    assert turn(200).turn in read_traces(tmp_path / "traces").turns
    assert turn(1).turn not in read_traces(tmp_path / "traces").turns


@pytest.mark.parametrize("is_folder", [True, False], ids=["the folder", "its file"])
def test_what_is_removed_under_a_running_daemon_is_begun_anew(
    is_folder: bool, tmp_path: Path
) -> None:
    folder = tmp_path / "traces"
    journal = journal_in(folder)
    journal.put(lambda: [turn(1)])
    wait_for(lambda: journal.written == 1)
    if is_folder:
        shutil.rmtree(folder)
    else:
        journals(folder)[0].unlink()
    journal.put(lambda: [turn(2)])
    journal.close()
    assert list(read_traces(folder).turns) == [turn(2).turn]
    assert journal.dropped == 0


def test_two_daemons_write_two_files(tmp_path: Path) -> None:
    first, second = journal_in(tmp_path / "traces"), journal_in(tmp_path / "traces")
    first.put(lambda: [turn(1)])
    wait_for(lambda: first.written == 1)
    second.put(lambda: [turn(2)])
    wait_for(lambda: second.written == 1)
    first.close()
    second.close()
    assert len(journals(tmp_path / "traces")) == 2
    assert len(read_traces(tmp_path / "traces").turns) == 2


def test_a_folder_that_cannot_be_made_stops_tracing_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    log = Log()
    journal = Journal(FolderFile(tmp_path / "file" / "traces", ROOMY), log)
    journal.start()
    journal.put(lambda: [turn(1)])
    wait_for(lambda: journal.dropped == 1)
    journal.close()
    assert log.events == ["trace.stopped"]
