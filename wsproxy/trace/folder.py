"""The trace folder: who may read it, which files it has, and how large it may grow.

Rules of this file
------------------
1. The folder is 0700 and every file 0600, whatever the umask; a symbolic link is never followed.
2. A file is written by one process at a time (it holds a lock); it grows to `max_file_bytes`.
3. The oldest files go first, and never one that somebody writes.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

if sys.platform != "win32":
    import fcntl

#: Without, every daemon writes a file of its own.
_HAS_LOCKS: Final = sys.platform != "win32"
MIB: Final = 1024 * 1024
_JOURNAL: Final = re.compile(r"journal-([0-9]{6})\.jsonl")
_NO_FOLLOW: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much the traces may take (faults.md §7)."""

    max_file_bytes: int = 64 * MIB
    max_files: int = 10
    max_total_bytes: int = 1024 * MIB
    min_free_bytes: int = 1024 * MIB


class FolderError(Exception):
    """The folder or a file in it is not fit for traces; `advice` says what to do."""

    def __init__(self, problem: str, advice: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.advice = advice


def open_folder(folder: Path) -> None:
    """Make the folder, or see that only its owner can read it. Raises `FolderError`, `OSError`."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise FolderError(f"{folder} is a symbolic link", "name the folder itself in trace_dir")
    if not stat.S_ISDIR(found.st_mode):
        raise FolderError(f"{folder} is no folder", "name another one in trace_dir")
    if hasattr(os, "geteuid") and found.st_uid != os.geteuid():
        raise FolderError(f"{folder} belongs to another user", "name another one in trace_dir")
    if stat.S_IMODE(found.st_mode) != 0o700:
        _tighten(folder)


def _tighten(folder: Path) -> None:
    """Close a folder that others may look into, unless it serves other purposes too."""
    strangers = [entry.name for entry in os.scandir(folder) if not _is_ours(entry.name)]
    if strangers and os.name == "posix":
        raise FolderError(f"{folder} is open to others", f"chmod 700 {folder}, or use another")
    folder.chmod(0o700)


def _is_ours(name: str) -> bool:
    return name == "key" or _JOURNAL.fullmatch(name) is not None


def create_file(path: Path) -> int:
    """Make a file that only its owner can read; its descriptor. Raises `FileExistsError`."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | _NO_FOLLOW
    descriptor = os.open(path, flags, 0o600)
    if hasattr(os, "fchmod"):
        os.fchmod(descriptor, 0o600)  # the umask may have taken even the owner's bits
    return descriptor


def write_new_file(path: Path, content: bytes) -> None:
    """Write a file that is not there yet, for its owner alone. Raises `OSError`."""
    with os.fdopen(create_file(path), "wb") as file:
        file.write(content)


def open_own_file(path: Path, flags: int) -> int:
    """Open a regular file of ours. Raises `FolderError` where it is something else."""
    try:
        descriptor = os.open(path, flags | _NO_FOLLOW)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise FolderError(f"{path} is a symbolic link", f"remove {path}") from None
        raise
    found = os.fstat(descriptor)
    is_own = not hasattr(os, "geteuid") or found.st_uid == os.geteuid()
    if not stat.S_ISREG(found.st_mode) or not is_own or found.st_nlink > 1:
        os.close(descriptor)
        raise FolderError(f"{path} is not a file of wsproxy's own", f"remove {path}")
    return descriptor


def read_own_file(path: Path) -> bytes:
    """The content of a file of ours. Raises `FolderError`, `OSError`."""
    with os.fdopen(open_own_file(path, os.O_RDONLY), "rb") as file:
        return file.read()


def journals(folder: Path) -> list[Path]:
    """The journal files there are, oldest first. Raises `OSError`."""
    return sorted(path for path in folder.iterdir() if _JOURNAL.fullmatch(path.name))


def lock(descriptor: int) -> bool:
    """Take the file for this process; False if another writes it."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def next_journal(folder: Path) -> tuple[int, Path]:
    """A new journal after the last there is, locked. Raises `OSError`."""
    last = journals(folder)[-1:]
    number = int(last[0].stem.partition("-")[2]) if last else 0
    while True:
        number += 1
        path = folder / f"journal-{number:06d}.jsonl"
        with suppress(FileExistsError):
            descriptor = create_file(path)
            lock(descriptor)
            return descriptor, path


def last_journal(folder: Path, limits: Limits) -> tuple[int, Path] | None:
    """The last journal, locked, if there is room in it and nobody else writes it."""
    for path in journals(folder)[-1:]:
        descriptor = open_own_file(path, os.O_RDWR | os.O_APPEND)
        if os.fstat(descriptor).st_size < limits.max_file_bytes and lock(descriptor):
            return descriptor, path
        os.close(descriptor)
    return None


def make_room(folder: Path, limits: Limits) -> None:
    """Remove old journals until one more fits. Raises `OSError`."""
    paths = journals(folder)
    total = sum(path.stat().st_size for path in paths)
    for path in paths[:-1]:
        is_full = len(paths) >= limits.max_files
        if not is_full and total + limits.max_file_bytes <= limits.max_total_bytes:
            return
        size = path.stat().st_size
        if _remove(path):
            paths = paths[1:]
            total -= size


def _remove(path: Path) -> bool:
    descriptor = open_own_file(path, os.O_RDWR)
    try:
        if _HAS_LOCKS and not lock(descriptor):
            return False
        path.unlink()
    finally:
        os.close(descriptor)
    return True


def check_free(folder: Path, limits: Limits) -> None:
    """Raises `OSError` (ENOSPC) where the disk has less free than others may need."""
    if shutil.disk_usage(folder).free < limits.min_free_bytes:
        raise OSError(errno.ENOSPC, "less free than trace_min_free_bytes")


def lines_of(path: Path) -> Iterator[bytes]:
    """The lines of a journal with their line feeds; the last may be torn. Raises `OSError`."""
    with os.fdopen(open_own_file(path, os.O_RDONLY), "rb") as file:
        yield from file
