"""The trace folder: only its owner reads it, and it does not grow for ever."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.trace.trace_stage import ROOMY, written
from wsproxy.trace.folder import (
    FolderError,
    Limits,
    check_free,
    create_file,
    journals,
    last_journal,
    lines_of,
    make_room,
    next_journal,
    open_folder,
)
from wsproxy.trace.keyed import open_keyed


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o777], ids="umask {:03o}".format)
def _umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("_umask")
def test_folder_and_files_are_their_owners_whatever_the_umask(tmp_path: Path) -> None:
    folder = tmp_path / "traces"
    open_folder(folder)
    open_keyed(folder)
    descriptor, path = next_journal(folder)
    os.close(descriptor)
    assert mode(folder) == 0o700
    assert {mode(path), mode(folder / "key")} == {0o600}


def as_link(path: Path) -> None:
    target = path.with_name("elsewhere")
    target.mkdir()
    path.symlink_to(target)


def as_file(path: Path) -> None:
    path.write_text("")


def as_open_folder_of_others(path: Path) -> None:
    path.mkdir()
    path.chmod(0o755)
    (path / "letter.txt").write_text("")


@pytest.mark.parametrize("make", [as_link, as_file, as_open_folder_of_others])
def test_a_folder_that_is_not_ours_alone_is_refused(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    make(tmp_path / "traces")
    with pytest.raises(FolderError) as refusal:
        open_folder(tmp_path / "traces")
    assert str(tmp_path / "traces") in refusal.value.problem
    assert refusal.value.advice


def test_a_folder_of_ours_that_was_opened_to_others_is_closed_again(tmp_path: Path) -> None:
    folder = written(tmp_path / "traces", [])
    folder.chmod(0o755)
    open_folder(folder)
    assert mode(folder) == 0o700


@pytest.mark.parametrize("kind", ["symbolic link", "hard link"])
def test_a_journal_that_leads_elsewhere_is_neither_read_nor_written(
    kind: str, tmp_path: Path
) -> None:
    folder = written(tmp_path / "traces", [])
    victim = tmp_path / "victim"
    victim.write_bytes(b"")
    link = folder / "journal-000002.jsonl"
    if kind == "symbolic link":
        link.symlink_to(victim)
    else:
        link.hardlink_to(victim)
    with pytest.raises(FolderError):
        last_journal(folder, ROOMY)
    with pytest.raises(FolderError):
        list(lines_of(link))


def test_a_key_is_made_once_and_kept(tmp_path: Path) -> None:
    open_folder(tmp_path / "traces")
    first = open_keyed(tmp_path / "traces")
    again = open_keyed(tmp_path / "traces")
    assert first.short(b"hello") == again.short(b"hello")
    (tmp_path / "traces" / "key").unlink()
    assert open_keyed(tmp_path / "traces").short(b"hello") != first.short(b"hello")


def test_a_damaged_key_is_named_with_what_to_do(tmp_path: Path) -> None:
    folder = written(tmp_path / "traces", [])
    with open(create_file(folder / "key"), "wb") as file:
        file.write(b"zz")
    with pytest.raises(FolderError, match="damaged"):
        open_keyed(folder)


def test_the_last_journal_is_gone_on_with_unless_it_is_full_or_in_use(tmp_path: Path) -> None:
    folder = written(tmp_path / "traces", [], tail=b"x" * 100)
    assert last_journal(folder, Limits(max_file_bytes=100)) is None
    found = last_journal(folder, ROOMY)
    assert found is not None
    descriptor, path = found
    assert path.name == "journal-000001.jsonl"
    assert last_journal(folder, ROOMY) is None, "another process writes it"
    os.close(descriptor)


@pytest.mark.parametrize(
    ("limits", "left"),
    [
        (Limits(max_file_bytes=10, max_files=3, max_total_bytes=1000), 2),
        (Limits(max_file_bytes=10, max_files=9, max_total_bytes=30), 2),
        (Limits(max_file_bytes=10, max_files=9, max_total_bytes=1000), 5),
    ],
    ids=["count", "bytes in all", "room enough"],
)
def test_the_oldest_journals_make_room(limits: Limits, left: int, tmp_path: Path) -> None:
    folder = tmp_path / "traces"
    for number in range(1, 6):
        written(folder, [], number=number, tail=b"0123456789")
    make_room(folder, limits)
    numbers = [int(path.stem[-6:]) for path in journals(folder)]
    assert numbers == list(range(6 - left, 6))


def test_a_journal_that_somebody_writes_is_not_removed(tmp_path: Path) -> None:
    folder = tmp_path / "traces"
    descriptor, busy = next_journal(written(folder, []))
    written(folder, [], number=3)
    make_room(folder, Limits(max_files=1))
    assert busy in journals(folder)
    os.close(descriptor)


def test_a_disk_with_little_left_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="trace_min_free_bytes") as refusal:
        check_free(tmp_path, Limits(min_free_bytes=1 << 62))
    assert refusal.value.errno == errno.ENOSPC
