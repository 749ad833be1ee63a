"""What children and commands print, and what errors say: whatever a test reads of it, the canary's
watch hears.

Tests read what they read without it; a pipe that is closed unread is heard to its end first.
"""

from __future__ import annotations

import asyncio.subprocess
import io
import os
import subprocess
from typing import IO, Any, Final

import pytest

from tests.canary import WATCH, is_ours

#: Linux's pipes hold 64 KiB.
_PIPE_BYTES: Final = 65_536


def listen(patch: pytest.MonkeyPatch) -> None:
    """Hear every child and every captured command from now on."""
    patch.setattr(subprocess, "Popen", Child)
    patch.setattr(asyncio.subprocess.SubprocessStreamProtocol, "pipe_data_received", _received)
    patch.setattr(pytest.CaptureFixture, "readouterr", _readouterr)
    patch.setattr(_Raises, "__exit__", _caught)


class Ear(io.FileIO):
    """The reading end of a pipe, below whatever buffers or decodes it."""

    def __init__(self, descriptor: int, where: str) -> None:
        super().__init__(descriptor)
        self._where = where

    def readinto(self, buffer: Any) -> int | None:  # type: ignore[override]
        size = super().readinto(buffer)
        WATCH.hear(self._where, bytes(memoryview(buffer)[: size or 0]))
        return size

    def read(self, size: int | None = -1) -> bytes | None:  # type: ignore[override]
        return self.readall() if size is None or size < 0 else self._heard(super().read(size))

    def readall(self) -> bytes | None:  # type: ignore[override]
        return self._heard(super().readall())

    def close(self) -> None:
        if not self.closed:
            os.set_blocking(self.fileno(), False)  # who holds the other end may be alive
            while self.read(_PIPE_BYTES):
                pass
        super().close()

    def _heard(self, printed: bytes | None) -> bytes | None:
        WATCH.hear(self._where, printed or b"")
        return printed


class Child(subprocess.Popen[Any]):
    """A child process whose pipes have ears; files that it prints into are heard at its end."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._files = [
            (name, options[name])
            for name in ("stdout", "stderr")
            if hasattr(options.get(name), "fileno")
        ]
        if self.stdout is not None:
            self.stdout = _with_ear(self.stdout, self._where("stdout"))
        if self.stderr is not None:
            self.stderr = _with_ear(self.stderr, self._where("stderr"))

    def communicate(self, *arguments: Any, **options: Any) -> tuple[Any, Any]:
        told = super().communicate(*arguments, **options)  # past the pipes' own methods
        for name, printed in zip(("stdout", "stderr"), told, strict=True):
            WATCH.hear(self._where(name), printed or b"")
        return told

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        for name, file in self._files:
            descriptor = file.fileno()
            WATCH.hear(self._where(name), os.pread(descriptor, os.fstat(descriptor).st_size, 0))

    def _where(self, name: str) -> str:
        return f"{name} of child {self.pid}"


def _with_ear(pipe: IO[Any], where: str) -> IO[Any]:
    """The same pipe, as buffered and decoded as it was."""
    ear: Any = Ear(os.dup(pipe.fileno()), where)
    if not isinstance(pipe, io.FileIO):
        ear = io.BufferedReader(ear)
    if isinstance(pipe, io.TextIOWrapper):
        ear = io.TextIOWrapper(ear, encoding=pipe.encoding, errors=pipe.errors)
    pipe.close()
    return ear  # type: ignore[no-any-return]


_pipe_data_received: Final = asyncio.subprocess.SubprocessStreamProtocol.pipe_data_received
_read: Final = pytest.CaptureFixture.readouterr
_Raises: Final[Any] = type(pytest.raises(ArithmeticError))
_catch: Final = _Raises.__exit__


def _received(
    protocol: asyncio.subprocess.SubprocessStreamProtocol, descriptor: int, data: bytes | str
) -> None:
    WATCH.hear(f"descriptor {descriptor} of a child {id(protocol):x}", data)
    _pipe_data_received(protocol, descriptor, data)


def _readouterr(fixture: pytest.CaptureFixture[Any]) -> Any:
    told = _read(fixture)
    WATCH.hear("stdout", told.out)
    WATCH.hear("stderr", told.err)
    return told


def _caught(raises: Any, type_: Any, error: BaseException | None, traceback: Any) -> Any:
    is_expected = _catch(raises, type_, error, traceback)
    while error is not None:  # the expected one and all behind it
        if is_ours(type(error)):
            WATCH.look(f"an error, {type(error).__name__}", f"{error!r} {error}")
        error = error.__cause__ or error.__context__
    return is_expected
