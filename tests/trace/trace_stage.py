"""What the trace tests share: records out of nothing, and folders that hold them."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from wsproxy.trace.folder import Limits, create_file, open_folder
from wsproxy.trace.record import ConnectionRecord, Content, Phases, Record, Run, TurnRecord, encode

#: A Thursday noon.
AT = 1_700_000_000.0
#: For folders on whatever disk the tests run on.
ROOMY = Limits(min_free_bytes=0)


def turn(number: int = 1, **changed: Any) -> TurnRecord:
    """A turn of a tool loop: the first in full, the others as deltas."""
    is_first = number == 1
    given = {
        "turn": f"t{number:012x}",
        "run": "aaaa0001",
        "at": AT + number,
        "key": "0badcafe",
        "session": "5e551011",
        "route": "full" if is_first else "delta",
        "reason": "new_conversation" if is_first else "",
        "outcome": "completed",
        "status": 200,
        "phases": Phases(0.001, 0.002, 0.003, 0.1, 0.12, 0.4),
        "connection": 1,
        "lane": "l01",
        "conversation": 1,
        "model": "gpt-5.6",
        "items": 2 * number - 1,
        "items_sent": 1,
        "bytes_http": 1000 * number,
        "bytes_up": 1000,
        "bytes_down": 4000,
        "events": 12,
        "tokens_in": 100,
        "tokens_cached": 80,
        "tokens_out": 20,
    }
    return TurnRecord(**{**given, **changed})


def connection(**changed: Any) -> ConnectionRecord:
    """The handshake of connection 1."""
    given = {"run": "aaaa0001", "at": AT, "connection": 1, "key": "0badcafe", "change": "opened"}
    return ConnectionRecord(**{**given, "took_s": 0.03, "is_compressed": True, **changed})


def run(**changed: Any) -> Run:
    """The daemon that wrote them."""
    given = {"run": "aaaa0001", "at": AT, "version": "0.1.0", "upstream": "https://api.example/v1"}
    return Run(**{**given, "pid": 4711, **changed})


def written(folder: Path, records: Iterable[Record], *, number: int = 1, tail: bytes = b"") -> Path:
    """A trace folder with one journal of these records, and `tail` after them."""
    open_folder(folder)
    path = folder / f"journal-{number:06d}.jsonl"
    with open(create_file(path), "wb") as file:
        file.write(b"".join(map(encode, records)) + tail)
    return folder


class FakeFile:
    """A `journal.File` in memory that fails as it is told and may be held up."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.fails_with: Exception | None = None
        self.opened = 0
        self.synced = 0
        self.gate = threading.Event()
        self.gate.set()

    def open(self) -> None:
        self.opened += 1
        self._check()

    def append(self, lines: Sequence[bytes], contents: Sequence[Content]) -> None:
        self.gate.wait(5)
        self._check()
        self.lines += lines

    def sync(self) -> None:
        self._check()
        self.synced += 1

    def close(self) -> None:
        pass

    def _check(self) -> None:
        if self.fails_with is not None:
            raise self.fails_with
