"""One input after another on trial: what it raised, how long it took, how much it took."""

from __future__ import annotations

import hashlib
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Final

Check = Callable[[bytes], None]
#: One input takes microseconds, over sockets milliseconds. What takes this long hangs.
PATIENCE_S: Final = 20.0
#: What one small input may make the process grow by, at its height: a decoder's slice is 16 MiB.
MAX_GROWTH_BYTES: Final = 96 * 1024 * 1024
_RSS_UNIT: Final = 1 if sys.platform == "darwin" else 1024
#: Tries to make a failing input smaller.
MAX_SHRINKS: Final = 400


class HangsError(BaseException):
    """An input took too long; no `Exception`, so that nobody takes it for his own timeout."""


class GrowthError(AssertionError):
    """An input made the process much larger than any before."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An input and what it raised."""

    raw: bytes
    error: BaseException

    @property
    def kind(self) -> str:
        """Type and place: failures of one kind are told once."""
        told = traceback.extract_tb(self.error.__traceback__)
        frames = [f for f in told if not f.filename.endswith("contract.py")]
        ours = [f for f in frames if "/wsproxy/" in f.filename.rpartition("site-packages")[2]]
        last = (ours or frames)[-1]
        place = "/".join(last.filename.split("/")[-3:])
        return f"{type(self.error).__name__} in {place}:{last.lineno}"

    @property
    def mark(self) -> str:
        """A name for its file."""
        return hashlib.sha256(self.raw).hexdigest()[:10]


class Trial:
    """A check under watch."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self._largest = _peak_bytes()

    @staticmethod
    @contextmanager
    def of(opened: Callable[[], AbstractContextManager[Check]]) -> Iterator[Trial]:
        """The trial of a target, its stage open meanwhile."""
        previous = signal.signal(signal.SIGALRM, _hangs)
        try:
            with opened() as check:
                yield Trial(check)
        finally:
            signal.signal(signal.SIGALRM, previous)

    def failure(self, raw: bytes) -> Failure | None:
        """What is wrong with an input; None: nothing."""
        signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)
        try:
            self._check(raw)
            self._look_at_growth()
        except (Exception, HangsError) as error:
            return Failure(raw, error)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return None

    def _look_at_growth(self) -> None:
        peak = _peak_bytes()
        grown, self._largest = peak - self._largest, peak
        if grown > MAX_GROWTH_BYTES:
            raise GrowthError(f"grown by {grown} bytes")

    def shrunk(self, failure: Failure) -> Failure:
        """The same failure of a smaller input, as far as a few tries go."""
        if isinstance(failure.error, HangsError):
            return failure  # each try would take as long
        tries, size = MAX_SHRINKS, len(failure.raw) // 2
        while size and tries:
            at = 0
            while at < len(failure.raw) and tries:
                tries -= 1
                other = self.failure(failure.raw[:at] + failure.raw[at + size :])
                if other is not None and other.kind == failure.kind:
                    failure = other
                else:
                    at += size
            size //= 2
        return failure


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT


def _hangs(_number: int, _frame: FrameType | None) -> None:
    raise HangsError("an input hangs")
