"""Survivors that no test can catch, each with its reason (`survivors.toml`)."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.mutation.mutator import Place

PAGE: Final = Path(__file__).with_name("survivors.toml")


@dataclass(frozen=True, slots=True)
class Survivor:
    """A mutant under which the program behaves the same; `why` in one sentence."""

    module: str
    place: Place
    why: str


def read(page: Path = PAGE) -> list[Survivor]:
    """All survivors of the page. Raises `KeyError` where a member is missing."""
    rows = tomllib.loads(page.read_text(encoding="utf-8")).get("survivor", [])
    return [
        Survivor(row["module"], Place(row["in"], row["line"], row["change"]), row["why"])
        for row in rows
    ]


def reasons(module: str) -> dict[Place, str]:
    """Place → why no test can tell, for one module."""
    return {each.place: each.why for each in read() if each.module == module}
