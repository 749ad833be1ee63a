"""`wsproxy serve`: the daemon."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from wsproxy.cli.options import load_settings, settings_options


@click.command()
@settings_options
def serve(**options: Any) -> int:
    """Run the daemon in the foreground.

    Agents use the printed base URL instead of the API's. It is ready when its port is open, logs
    to stderr, and ends on SIGTERM or Ctrl-C once its turns have ended: exit code 0, or 75 where
    turns were cut.
    """
    loaded = load_settings(options)
    exit_code: int = import_module("wsproxy.daemon").serve(loaded)  # only now: it takes a while
    return exit_code
