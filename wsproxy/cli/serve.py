"""`wsproxy serve`: the daemon."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from wsproxy.cli.options import SettingsCommand, load_settings, settings_options


@click.command(cls=SettingsCommand)
@settings_options
def serve(**options: Any) -> int:
    """Run the daemon in the foreground.

    Agents use the printed base URL instead of the API's; the words TOKEN and HOST in it stand for
    the token and for a name of this machine. It is ready when its port is open, logs to stderr, and
    ends on SIGTERM or Ctrl-C once its turns have ended: exit code 0, or 75 where turns were cut.
    SIGHUP reads the settings again and says which of them need a restart.
    """
    loaded = load_settings(options)
    serving = import_module("wsproxy.serving")  # only now: it takes a while
    exit_code: int = serving.serve(loaded, lambda: load_settings(options))
    return exit_code
