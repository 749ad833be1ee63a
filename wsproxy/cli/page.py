"""Writes docs/commands.md from the commands themselves.

python -m wsproxy.cli.page > docs/commands.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from inspect import cleandoc
from typing import Final

import click

from wsproxy.cli.main import wsproxy
from wsproxy.cli.serve import serve

TOP: Final = """\
# Commands

| exit code | means |
|---|---|
| 0 | ended as it should |
| 1 | failed |
| 2 | wrong use: an option, a setting, a port in use, a file that cannot be read |
| 75 | stopped while turns were running, and some were cut |

`wsproxy run` ends with the exit code of the command it ran. Errors go to stderr: one line that
says what is wrong, one that says what to do. Settings without an option of their own are in
[settings](settings.md). This page is written by `python -m wsproxy.cli.page`.
"""


def commands_page() -> str:
    """The reference of all commands that exist."""
    return TOP + "".join(_section(path, command) for path, command in commands())


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command below `wsproxy` with its full name, groups before their members."""
    yield from _below("wsproxy", wsproxy)


def _below(path: str, group: click.Group) -> Iterator[tuple[str, click.Command]]:
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        if command is None or command.hidden:
            continue
        yield f"{path} {name}", command
        if isinstance(command, click.Group):
            yield from _below(f"{path} {name}", command)


def _section(path: str, command: click.Command) -> str:
    ctx = click.Context(command, info_name=path)
    usage = " ".join([path, *command.collect_usage_pieces(ctx)])
    level = "##" if path.count(" ") == 1 else "###"
    text = cleandoc((command.help or "").partition("\f")[0]).replace("\b\n", "")
    return f"\n{level} {path}\n\n```sh\n{usage}\n```\n\n{text}\n{_options(ctx, command)}"


def _options(ctx: click.Context, command: click.Command) -> str:
    shared = {param.name for param in serve.params}
    has_all = command is not serve and shared <= {param.name for param in command.params}
    own = [param for param in command.params if not has_all or param.name not in shared]
    records = filter(None, (param.get_help_record(ctx) for param in own))
    rows = [f"| `{_cell(names)}` | {_cell(text)} |\n" for names, text in records]
    table = f"\n| option | does |\n|---|---|\n{''.join(rows)}" if rows else ""
    return f"{table}\nTakes all options of `wsproxy serve` too.\n" if has_all else table


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.buffer.write(commands_page().encode())
