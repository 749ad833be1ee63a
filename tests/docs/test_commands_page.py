"""docs/commands.md names every command and option that there is, and no other."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click
import pytest

from wsproxy.cli.page import commands, commands_page

PAGE: Final = Path(__file__).parents[2] / "docs" / "commands.md"
COMMANDS: Final = dict(commands())


def test_the_page_is_up_to_date() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == commands_page(), "run: python -m wsproxy.cli.page > docs/commands.md"


@pytest.mark.parametrize("path", COMMANDS)
def test_a_command_and_each_of_its_options_explain_themselves(path: str) -> None:
    command = COMMANDS[path]
    assert command.help
    silent = [
        parameter.name
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.help
    ]
    assert silent == []
