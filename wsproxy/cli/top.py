"""`wsproxy top`: the pools of a running daemon, live."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import click

from wsproxy.cli.asking import daemon_options, daemon_urls


@click.command()
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600.0),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between two looks.",
)
@click.option("--count", type=click.IntRange(1), help="So many looks, then end.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line and look.")
@daemon_options
def top(interval: float, count: int | None, as_json: bool, **options: Any) -> None:
    """Watch a running daemon until Ctrl-C; one screen after another where the output is piped."""
    import msgspec

    from wsproxy.console.asking import AskError, get_report
    from wsproxy.console.top import follow, reports
    from wsproxy.terminal.table import console

    urls = daemon_urls(options)
    seen = reports(lambda: get_report(urls), interval, count)
    try:
        with suppress(KeyboardInterrupt):
            if as_json:
                for report in seen:
                    click.echo(json.dumps(msgspec.to_builtins(report)))
            else:
                follow(console(), seen)
    except AskError as error:
        raise click.ClickException(f"{error.problem}\n{error.advice}") from None
