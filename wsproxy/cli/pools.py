"""`wsproxy pools`: what a running daemon holds, on one screen."""

from __future__ import annotations

import json
from typing import Any

import click

from wsproxy.cli.asking import daemon_options, daemon_urls


@click.command()
@click.option("--json", "as_json", is_flag=True, help="As one JSON object, for programs.")
@daemon_options
def pools(as_json: bool, **options: Any) -> None:
    """Show a running daemon's sessions, connections and queue.

    One row a session: connections, age of the oldest, lane names used, turns in flight, turns
    queued and the longest wait, transport, and for how long no WebSocket will be tried. Keys and
    sessions are shown as 8 hex digits of a keyed digest.
    """
    import msgspec

    from wsproxy.console.asking import AskError, get_report
    from wsproxy.console.screen import screen
    from wsproxy.terminal.table import console

    try:
        report = get_report(daemon_urls(options))
    except AskError as error:
        raise click.ClickException(f"{error.problem}\n{error.advice}") from None
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(report), indent=2))
    else:
        out = console()
        out.print(screen(report, width=out.width))
