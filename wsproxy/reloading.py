"""SIGHUP: the settings are read again; what can change while turns run does, the rest is named.

Rules of this file
------------------
1. Settings that are wrong change nothing at all.
2. A token may be replaced, never dropped, while other machines can reach us.
3. What is held by connections, histories or open ports needs a restart, and the log says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from wsproxy.config import SETTINGS, Loaded, Settings, SettingsError, is_loopback, split_address
from wsproxy.daemon import Daemon
from wsproxy.logs import configure, get_logger
from wsproxy.options import guard_of

#: Read anew by a SIGHUP; all others are read once, at start. `token_file` is also read again
#: where its name is the same.
RELOADABLE: Final = ("log_level", "log_format", "allowed_hosts", "allowed_origins", "token_file")


def reload_settings(daemon: Daemon, load_again: Callable[[], Loaded]) -> None:
    """Read the settings again and take over what can be. Never raises."""
    log = get_logger()
    old = daemon.settings
    try:
        wanted = load_again().settings
        _check_token(old, wanted)
        new = replace(old, **{name: getattr(wanted, name) for name in RELOADABLE})
        guard = guard_of(new)
    except SettingsError as error:
        log.error("daemon.reload_refused", detail=error.problem)
        return
    daemon.settings = new
    configure(new.log_level, new.log_format)
    assert daemon.front is not None
    daemon.front.guarded_by(guard)
    changed = [name for name in RELOADABLE if getattr(old, name) != getattr(new, name)]
    log.info("daemon.reloaded", fields=changed)
    kept = needs_restart(new, wanted)
    if kept:
        log.warning("daemon.restart_needed", fields=kept)


def needs_restart(running: Settings, wanted: Settings) -> list[str]:
    """Settings that were changed but cannot be taken over while running."""
    return [
        name
        for name in SETTINGS
        if name not in RELOADABLE and getattr(running, name) != getattr(wanted, name)
    ]


def _check_token(old: Settings, wanted: Settings) -> None:
    hosts = [split_address(address)[0] for address in old.listen]
    if wanted.token_file is None and not all(is_loopback(host) for host in hosts):
        raise SettingsError("token_file: other machines can reach this daemon", "stop it first")
