"""Choices for generated stories, cheap to draw and quick to shrink."""

from __future__ import annotations

from typing import Any


class Tape:
    """Choices read off bytes that hypothesis draws, and shrinks; 0 when they run out."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def below(self, count: int) -> int:
        byte = self._data[self._at] if self._at < len(self._data) else 0
        self._at += 1
        return byte % count

    def pick(self, *choices: Any) -> Any:
        return choices[self.below(len(choices))]

    def once_in(self, count: int) -> bool:
        return self.below(count) == count - 1
