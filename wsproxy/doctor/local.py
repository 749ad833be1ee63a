"""Checks of this machine: settings, the daemon, proxy variables, the trace folder."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from wsproxy.config import Loaded, Settings, SettingsError, shown_url, trace_folder
from wsproxy.console.words import counted, size
from wsproxy.doctor.finding import Finding, fail, ok, warn
from wsproxy.upstream.proxy import ProxyError, choose_proxy

#: Sources of `Loaded` that somebody wrote.
_GIVEN: Final = ("flag ", "environment ", "file ")


def check_config(loaded: Loaded) -> Finding:
    """They were read already: which upstream is checked, and how many are not the default."""
    source = loaded.sources["upstream"]
    upstream = f"upstream {shown_url(loaded.settings.upstream)} ({source})"
    given = [name for name, source in loaded.sources.items() if source.startswith(_GIVEN)]
    named = f": {', '.join(given[:6])}{'…' if len(given) > 6 else ''}" if given else ""
    return ok("config", f"{upstream}; {counted(len(given), 'setting')} given{named}")


def check_proxy(settings: Settings, environment: Mapping[str, str]) -> Finding:
    """Which HTTP proxy stands on the way upstream; its credentials are never shown."""
    try:
        proxy = choose_proxy(settings.upstream, settings.upstream_proxy, environment)
    except ProxyError as error:
        return fail("proxy", error.problem, error.advice)
    if proxy is None:
        return ok("proxy", "none on the way upstream")
    login = " with credentials" if proxy.authorization else ""
    return ok("proxy", f"through {proxy.address}{login}; it must let CONNECT pass")


def check_traces(settings: Settings, environment: Mapping[str, str]) -> Finding:
    """Whether the trace folder is ours alone, can be written and has room."""
    if settings.trace == "off":
        return ok("traces", "off")
    try:
        folder = trace_folder(settings, environment)
    except SettingsError as error:
        return fail("traces", error.problem, error.advice)
    where = folder if folder.exists() else _nearest(folder)
    if not os.access(where, os.W_OK | os.X_OK):
        return fail("traces", f"{where} cannot be written", "name another folder in trace_dir")
    if folder.is_symlink() or not where.is_dir():
        return fail("traces", f"{folder} is no folder of its own", "name another in trace_dir")
    if folder.exists() and os.name == "posix" and stat.S_IMODE(folder.stat().st_mode) & 0o077:
        return warn("traces", f"{folder} can be read by others", f"chmod 700 {folder}")
    free = shutil.disk_usage(where).free
    if free < settings.trace_min_free_bytes:
        wanted = size(settings.trace_min_free_bytes)
        return warn("traces", f"{size(free)} free at {where}", f"traces stop below {wanted}")
    will_be = "" if folder.exists() else ", will be made"
    return ok("traces", f"{folder}{will_be}; {size(free)} free")


def _nearest(folder: Path) -> Path:
    """The closest parent that exists."""
    return next(parent for parent in folder.parents if parent.exists())
