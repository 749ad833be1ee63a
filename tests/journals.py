"""Journals that tests leave behind: the core, told the same again, must give the same commands."""

from __future__ import annotations

import os
from pathlib import Path

from wsproxy.trace.reader import TraceError
from wsproxy.trace.replay import Outcome, outcomes


def replayed(folder: Path) -> list[Outcome]:
    """The runs of a trace folder that do not replay.

    A daemon that was killed has written a beginning, perhaps an empty one, and that must replay;
    one whose journal lost records replays up to the gap.
    """
    if not folder.exists():
        return []
    try:
        found = list(outcomes(folder))
    except TraceError:
        return []  # killed before it wrote, or a disk that refused
    return [o for o in found if o.difference or (o.missing and not o.lost)]


def replayed_beginning(folder: Path, max_bytes: int) -> list[Outcome]:
    """As `replayed`, for the beginning of a long run; the folder keeps nothing else."""
    for path in sorted(folder.glob("journal-*"))[1:]:
        path.unlink()
    first = folder / "journal-000001.jsonl"
    if not first.exists():
        return []  # rotated away: a replay needs its beginning
    os.truncate(first, min(first.stat().st_size, max_bytes))
    return replayed(folder)
