"""One command with a proxy of its own, from start to the lines at the end."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

from wsproxy.config import Settings, SettingsError
from wsproxy.daemon import Daemon
from wsproxy.downstream.listening import ListenError
from wsproxy.logs import configure
from wsproxy.sidecar.agents import child_command, child_environment
from wsproxy.sidecar.child import ChildError, run_child
from wsproxy.sidecar.summary import summary, without_turns
from wsproxy.sidecar.thread import ProxyThread

Say = Callable[[str], None]


def run(
    settings: Settings,
    command: Sequence[str],
    say: Say,
    environment: Mapping[str, str] = os.environ,
) -> int:
    """Run `command` behind a proxy; its exit code. `say` writes a line on stderr.

    Raises `SettingsError` where the proxy cannot start.
    """
    configure(settings.log_level, settings.log_format)
    try:
        with ProxyThread(settings) as daemon:
            base_url = daemon.base_url
            code = run_child(
                child_command(command, base_url, environment),
                child_environment(base_url, environment),
            )
            agent_connections = daemon.accepted_count
    except ListenError as error:
        raise SettingsError(str(error)) from None
    except ChildError as error:
        say(f"wsproxy: {error}")
        return error.exit_code
    has_turns = daemon.tally.turns > 0
    for line in (
        summary(settings, daemon.tally, agent_connections, lost_records(daemon))
        if has_turns
        else without_turns(settings, code, environment)
    ):
        say(f"wsproxy: {line}")
    return code


def lost_records(daemon: Daemon) -> int:
    """What its trace should have and has not: the disk refused, or there was too much at once."""
    return daemon.recorder.journal.dropped if daemon.recorder is not None else 0
