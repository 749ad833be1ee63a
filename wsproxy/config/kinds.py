"""The kinds of value that a setting can have: how each is read, checked and written.

A kind reads a TOML value with `parse` and the text of a flag or of an environment variable with
`parse_text`. Both raise `ValueError` with what was expected; who calls adds the setting's name
and where it stands.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, TypeVar

from wsproxy.config.home import home_path

T = TypeVar("T")

DURATIONS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
SIZES: Final = {
    "B": 1,
    "kB": 1000,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
}
LARGEST: Final = 2.0**53  # above it a float is no longer exact; no setting comes near
QUOTED: Final = 120  # characters of a wrong value that an error shows
AMOUNT: Final = re.compile(r"([0-9][0-9_]*(?:\.[0-9]+)?)\s*([A-Za-z]*)", re.ASCII)
WHOLE: Final = re.compile(r"[0-9][0-9_]{0,30}", re.ASCII)
TOKEN: Final = re.compile(r"[a-z0-9!#$%&'+.^_`|~-]+\*?", re.ASCII)  # RFC 9110 §5.6.2, `*` ends


class Kind(Generic[T]):
    """One kind of value; `expected` ends the sentence "… is not"."""

    @property
    def expected(self) -> str:
        raise NotImplementedError

    @property
    def choices(self) -> Sequence[str]:
        """The words that are allowed, where it is a closed list."""
        return ()

    @property
    def advice(self) -> str:
        """What to do about a wrong value, where what was expected does not tell it."""
        return ""

    def parse(self, value: object) -> T:
        raise NotImplementedError

    def parse_text(self, text: str) -> T:
        return self.parse(text)

    def render(self, value: T) -> str:
        """The value in TOML."""
        return json.dumps(value, ensure_ascii=False)

    def refuse(self, value: object) -> ValueError:
        return ValueError(f"{brief(value)} is not {self.expected}")


@dataclass(frozen=True, slots=True)
class Switch(Kind[bool]):
    @property
    def expected(self) -> str:
        return "true or false"

    def parse(self, value: object) -> bool:
        if isinstance(value, bool):
            return value
        raise self.refuse(value)

    def parse_text(self, text: str) -> bool:
        word = text.strip().lower()
        if word in ("true", "yes", "on", "1"):
            return True
        if word in ("false", "no", "off", "0"):
            return False
        raise self.refuse(text)


class Choice(Kind[str]):
    def __init__(self, *words: str) -> None:
        self.words = words

    @property
    def expected(self) -> str:
        return "one of " + ", ".join(self.words)

    @property
    def choices(self) -> Sequence[str]:
        return self.words

    def parse(self, value: object) -> str:
        if isinstance(value, str) and value in self.words:
            return value
        raise self.refuse(value)


@dataclass(frozen=True, slots=True)
class Count(Kind[int]):
    minimum: int
    maximum: int

    @property
    def expected(self) -> str:
        return f"a whole number from {self.minimum:,} to {self.maximum:,}"

    def parse(self, value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.refuse(value)
        if not self.minimum <= value <= self.maximum:
            raise self.refuse(value)
        return value

    def parse_text(self, text: str) -> int:
        if WHOLE.fullmatch(text.strip()) is None:
            raise self.refuse(text)
        return self.parse(int(text.replace("_", "")))

    def render(self, value: int) -> str:
        return f"{value:_}"


@dataclass(frozen=True, slots=True)
class Seconds(Kind[float]):
    minimum: float
    maximum: float

    @property
    def expected(self) -> str:
        low, high = readable_duration(self.minimum), readable_duration(self.maximum)
        return f'a duration from {low} to {high} (seconds, or "250ms", "15s", "5min", "1h")'

    def parse(self, value: object) -> float:
        amount = seconds_of(value)
        if amount is None or not self.minimum <= amount <= self.maximum:
            raise self.refuse(value)
        return amount

    def render(self, value: float) -> str:
        text = readable_duration(value).replace(" ", "")
        return json.dumps(text) if seconds_of(text) == value else repr(float(value))


@dataclass(frozen=True, slots=True)
class Bytes(Kind[int]):
    minimum: int
    maximum: int

    @property
    def expected(self) -> str:
        low, high = readable_size(self.minimum), readable_size(self.maximum)
        return f'a size from {low} to {high} (bytes, or "64KiB", "15.5MiB", "200MB")'

    def parse(self, value: object) -> int:
        amount = bytes_of(value)
        if amount is None or not self.minimum <= amount <= self.maximum:
            raise self.refuse(value)
        return amount

    def render(self, value: int) -> str:
        text = readable_size(value).replace(" ", "")
        return json.dumps(text) if bytes_of(text) == value else str(value)


@dataclass(frozen=True, slots=True)
class FilePath(Kind[Path | None]):
    what: str

    @property
    def expected(self) -> str:
        return f'the path of {self.what}, or "" for none'

    def parse(self, value: object) -> Path | None:
        if not isinstance(value, str) or "\0" in value:
            raise self.refuse(value)
        return home_path(value) if value else None

    def render(self, value: Path | None) -> str:
        return '""' if value is None else json.dumps(str(value), ensure_ascii=False)


class Words(Kind[tuple[str, ...]]):
    """A list of words; in a flag or an environment variable they are separated by commas."""

    @property
    def expected(self) -> str:
        return "a list of words"

    def parse(self, value: object) -> tuple[str, ...]:
        if not isinstance(value, list | tuple):
            raise self.refuse(value)
        return tuple(dict.fromkeys(self.parse_word(word) for word in value))

    def parse_text(self, text: str) -> tuple[str, ...]:
        return self.parse([word.strip() for word in text.split(",") if word.strip()])

    def parse_word(self, word: object) -> str:
        if isinstance(word, str) and word and word.isprintable() and " " not in word:
            return word
        raise self.refuse(word)

    def render(self, value: tuple[str, ...]) -> str:
        return json.dumps(list(value), ensure_ascii=False)


class HeaderNames(Words):
    """Header names in any case; one that ends in `*` stands for all that begin so."""

    @property
    def expected(self) -> str:
        return "a list of header names (a trailing * stands for any ending)"

    def parse_word(self, word: object) -> str:
        if isinstance(word, str) and TOKEN.fullmatch(word.lower()) and word != "*":
            return word.lower()
        raise self.refuse(word)


def brief(value: object) -> str:
    """The value as an error quotes it: on one line and not endless."""
    text = ascii(value)
    return text if len(text) <= QUOTED else f"{text[: QUOTED - 1]}…"


def seconds_of(value: object) -> float | None:
    """Seconds in a TOML number or in text like "5min"; None for anything else."""
    return _amount_of(value, DURATIONS, "s")


def bytes_of(value: object) -> int | None:
    """Bytes in a TOML integer or in text like "15.5MiB"; None where that is no whole number."""
    amount = _amount_of(value, SIZES, "B")
    return int(amount) if amount is not None and amount == int(amount) else None


def readable_duration(seconds: float) -> str:
    """`50 min`, `15 s`, `250 ms`: the largest unit in which it is whole."""
    for unit, size in (("h", 3600), ("min", 60), ("s", 1)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds * 1000:g} ms" if 0 < seconds < 1 else f"{seconds:g} s"


def readable_size(size: int) -> str:
    """`64 MiB`, `15.5 MiB`, `200 MB`: the largest unit that needs at most one decimal."""
    for unit in ("GiB", "GB", "MiB", "MB", "KiB", "kB"):
        if size >= SIZES[unit] and (size * 10) % SIZES[unit] == 0:
            return f"{size / SIZES[unit]:g} {unit}"
    return f"{size} B"


def _amount_of(value: object, units: dict[str, float] | dict[str, int], bare: str) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value) if abs(value) < LARGEST else None
    if not isinstance(value, str) or not (found := AMOUNT.fullmatch(value.strip())):
        return None
    unit = units.get(found[2] or bare)
    amount = None if unit is None else float(found[1].replace("_", "")) * unit
    return amount if amount is not None and amount < LARGEST else None
