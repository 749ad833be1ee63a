"""docs/matching.md: its examples happen as they say, and its table is the code's."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

import pytest

from tests.core.conversation_stage import Seen, Stage
from wsproxy.core.api.items import (
    ANSWERS,
    ECHO_RULES,
    FREE_FORM_MEMBERS,
    OPTIONAL_MEMBERS,
    OPTIONAL_PART_MEMBERS,
)

PAGE: Final = (Path(__file__).parents[2] / "docs" / "matching.md").read_text(encoding="utf-8")
EXAMPLES: Final = re.findall(r"```example\n(.*?)```", PAGE, re.DOTALL)


def outcome(seen: Seen) -> str:
    return f"delta from {seen.delta_from}" if seen.parent else f"full: {seen.why}"


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_happens_as_it_says(example: str) -> None:
    stage = Stage()
    seen: Seen | None = None
    for line in example.splitlines():
        sign, text = line[0], line[2:]
        if sign == "→":
            members = json.loads(text)
            raw = text if "store" in members else text[:-1] + ', "store": false}'
            seen = stage.look(raw.encode())
            continue
        assert seen is not None
        if sign == "←":
            stage.complete(seen, json.loads(text))
        else:
            assert (sign, outcome(seen)) == ("=", text)


def test_every_block_of_the_page_is_an_example() -> None:
    assert len(EXAMPLES) == PAGE.count("```") // 2 >= 8


@pytest.mark.parametrize(
    "word",
    sorted({*ECHO_RULES, *ANSWERS, *FREE_FORM_MEMBERS, *OPTIONAL_MEMBERS, *OPTIONAL_PART_MEMBERS}),
)
def test_the_page_names_every_word_of_the_table(word: str) -> None:
    assert f"`{word}`" in PAGE


def test_the_table_names_no_type_that_the_code_does_not_know() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    named = {word for row in rows for word in re.findall(r"`([a-z_]+)`", row.split("|")[1])}
    assert named == ECHO_RULES.keys()
