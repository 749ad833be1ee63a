"""The command `wsproxy`: which subcommands there are, and how each of them may end.

Rules of this file
------------------
1. A subcommand's module is imported when it is asked for: `wsproxy simulate` needs no aiohttp.
2. What a user did wrong is one line that says what, one that says what to do, and exit code 2.
3. A subcommand returns its exit code (None is 0) or raises; it never calls `sys.exit`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, Final

import click

from wsproxy.cli.streams import OutputError, prepare_streams, watched_output
from wsproxy.config import SettingsError

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_TURNS_CUT: Final = 75  # EX_TEMPFAIL: stopped while turns were running

#: Each subcommand is the click command of the same name in this module, where the module exists.
COMMANDS: Final = {
    "serve": "wsproxy.cli.serve",
    "run": "wsproxy.cli.run",
    "demo": "wsproxy.cli.demo",
    "simulate": "wsproxy.cli.simulate",
    "trace": "wsproxy.cli.trace",
    "pools": "wsproxy.cli.pools",
    "top": "wsproxy.cli.top",
    "doctor": "wsproxy.cli.doctor",
    "config": "wsproxy.cli.config",
}


class Commands(click.Group):
    """A group whose members are imported on demand."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, module in COMMANDS.items() if find_spec(module)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = getattr(import_module(COMMANDS[cmd_name]), cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not name.startswith("-") and name not in self.list_commands(ctx):
            close = get_close_matches(name, self.list_commands(ctx), n=1)
            hint = f"\ndid you mean {close[0]}?" if close else ""
            raise click.UsageError(f"{_NO_COMMAND} {name!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)


#: As click begins it, for the groups whose members it knows itself.
_NO_COMMAND: Final = "No such command"


@click.group(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(version("wsproxy"), message="wsproxy %(version)s")
@click.pass_context
def wsproxy(ctx: click.Context) -> None:
    """Carry HTTP calls to the Responses API over one pooled WebSocket per session."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(EXIT_USAGE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    prepare_streams()
    try:
        with watched_output():
            ended: Any = wsproxy.main(arguments, prog_name="wsproxy", standalone_mode=False)
    except OutputError as error:
        return complain(f"cannot write to standard output: {error}", "", EXIT_FAILED)
    except BrokenPipeError:
        return EXIT_FAILED
    except SettingsError as error:
        return complain(error.problem, error.advice, EXIT_USAGE)
    except click.UsageError as error:
        return _complain_of_usage(error)
    except click.ClickException as error:
        problem, _, advice = error.format_message().partition("\n")
        return complain(problem, advice, error.exit_code)
    except click.Abort:
        return complain("interrupted", "", EXIT_FAILED)
    return ended if isinstance(ended, int) else 0


def complain(problem: str, advice: str, exit_code: int) -> int:
    """Say on stderr what is wrong and what to do about it; returns the exit code."""
    with suppress(OSError):  # who cannot be told anything has the exit code
        click.echo(f"wsproxy: {problem}", err=True)
        if advice:
            click.echo(f"  {advice}", err=True)
    return exit_code


def _complain_of_usage(error: click.UsageError) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return EXIT_USAGE
    is_of_option = isinstance(error, click.BadParameter)  # only its format_message names it
    problem, _, advice = (error.format_message() if is_of_option else error.message).partition("\n")
    command = error.ctx.command_path if error.ctx else "wsproxy"
    close: Sequence[str] = getattr(error, "possibilities", None) or ()
    if close:
        problem, advice = problem.split(" Did you mean")[0], f"did you mean {close[0]}?"
    if problem.startswith(_NO_COMMAND):
        problem = problem.replace(_NO_COMMAND, "there is no command", 1)
        advice = advice or f"`{command} --help` lists them"
    problem = problem[:1].lower() + problem[1:].removesuffix(".")
    return complain(problem, advice or f"see `{command} --help`", EXIT_USAGE)


if __name__ == "__main__":
    sys.exit(main())
