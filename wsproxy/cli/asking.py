"""The options of commands that talk to a running daemon."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from wsproxy.cli.options import load_settings

F = TypeVar("F", bound=Callable[..., Any])


def daemon_options(command: F) -> F:
    """Decorate a command that hands its `**options` to `daemon_urls`."""
    for declare in (
        click.option(
            "--config",
            "config_file",
            metavar="FILE",
            type=click.Path(path_type=Path),
            help="The daemon's TOML file, for its address; WSPROXY_CONFIG names it too.",
        ),
        click.option(
            "--listen",
            metavar="HOST:PORT",
            multiple=True,
            help="Where the daemon listens.  [default: as its settings say]",
        ),
        click.option("--url", metavar="URL", help="The daemon's URL; its base URL will do."),
    ):
        command = declare(command)
    return command


def daemon_urls(options: dict[str, Any]) -> list[str]:
    """Where to ask. Raises SettingsError and click.ClickException."""
    from wsproxy.console.asking import AskError, candidates, from_url

    url: str | None = options.pop("url")
    try:
        if url is not None:
            return [from_url(url)]
    except AskError as error:
        raise click.UsageError(f"{error.problem}\n{error.advice}") from None
    return candidates(load_settings({**options, "assignments": ()}).settings)
