"""One command with a proxy of its own, from start to the two lines at the end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from wsproxy.config import Settings, SettingsError
from wsproxy.console.words import count, counted, size, times
from wsproxy.downstream.listening import ListenError
from wsproxy.logs import configure
from wsproxy.metrics.tally import Tally
from wsproxy.options import Upstream
from wsproxy.sidecar.agents import child_command, child_environment
from wsproxy.sidecar.child import ChildError, run_child
from wsproxy.sidecar.thread import ProxyThread

FREE_PORT: Final = "127.0.0.1:0"

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
    for line in summary(
        daemon.tally,
        agent_connections,
        has_trace=settings.trace == "on",
        may_probe=may_probe(settings),
    ):
        say(line)
    return code


def may_probe(settings: Settings) -> bool:
    """Whether one connection may have asked upstream if it keeps chains (contract §3)."""
    is_asked = settings.transport == "auto" and settings.continuation == "auto"
    return is_asked and not Upstream.of(settings.upstream).is_known


def summary(
    tally: Tally, agent_connections: int, *, has_trace: bool = True, may_probe: bool = False
) -> Iterator[str]:
    """What was saved, in two lines; one where there was nothing to save."""
    if not tally.turns:
        yield "wsproxy: no turn came through; does the command read OPENAI_BASE_URL?"
        return
    parts = [counted(tally.turns, "turn"), f"{count(tally.continued)} sent as deltas"]
    if tally.over_https:
        parts.append(f"{count(tally.over_https)} over HTTPS")
    if tally.refused:
        parts.append(f"{count(tally.refused)} refused")
    probe = " (one may be the probe of an unknown upstream)"
    yield (
        f"wsproxy: {', '.join(parts)}; {counted(tally.handshakes, 'WebSocket handshake')}"
        f"{probe * (may_probe and tally.handshakes > 1)}"
        f" for {counted(agent_connections, 'connection')} of the agent"
    )
    yield (
        f"wsproxy: {size(tally.bytes_up)} sent up instead of {size(tally.bytes_http)} over HTTP"
        f"{times(tally.bytes_http, tally.bytes_up)}{'; see `wsproxy trace show`' * has_trace}"
    )
