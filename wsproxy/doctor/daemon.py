"""The daemon that runs here, if one does: what it uses is what is worth checking."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from wsproxy.config import Loaded, Settings, command_for, is_shown_only, shown_url
from wsproxy.console.asking import AskError, ask, candidates, get_report
from wsproxy.doctor.finding import Finding, ok, warn

_BASE_URL_VARIABLE: Final = "OPENAI_BASE_URL"
#: A daemon answers in a millisecond.
_PATIENCE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Found:
    """What answered at the settings' first address. `status` of readyz, None: nobody did.

    `upstream` is "" where it was not told.
    """

    where: str
    status: int | None
    upstream: str = ""


def find_daemon(settings: Settings) -> Found:
    """Ask at the addresses of the settings."""
    urls, where = candidates(settings), settings.listen[0]
    try:
        status, _ = ask(urls, "readyz", _PATIENCE_S)
    except AskError:
        return Found(where, None)
    try:
        return Found(where, status, get_report(urls).upstream)
    except AskError:
        return Found(where, status)


def as_the_daemon_is(loaded: Loaded, daemon: Found) -> Loaded:
    """The settings with the daemon's upstream, where they name none themselves."""
    is_told = bool(daemon.upstream) and not is_shown_only(daemon.upstream)
    if loaded.sources["upstream"] != "default" or not is_told:
        return loaded
    sources = {**loaded.sources, "upstream": f"the daemon at {daemon.where}"}
    return Loaded(replace(loaded.settings, upstream=daemon.upstream), sources)


def check_daemon(daemon: Found, upstream: str, environment: Mapping[str, str]) -> Finding:
    """Whether one runs, with this upstream, and whether agents are pointed at it."""
    where = daemon.where
    match daemon.status:
        case None:
            start = f"start one: `{command_for('serve', upstream)}`; `wsproxy run` needs none"
            return warn("daemon", f"none runs at {where}", start)
        case 401:
            return warn("daemon", f"the one at {where} wants another token", "see token_file")
        case 200:
            pass
        case status:
            return warn("daemon", f"the one at {where} answers {status}", "is it stopping?")
    if daemon.upstream and daemon.upstream != shown_url(upstream):
        text = f"ready at {where}, but its upstream is {daemon.upstream}"
        return warn("daemon", text, f"`{command_for('doctor', daemon.upstream)}` checks that one")
    base_url = environment.get(_BASE_URL_VARIABLE, "")
    if f":{where.rpartition(':')[2]}/" not in f"{base_url}/":
        return warn(
            "daemon",
            f"ready at {where}, but this shell's {_BASE_URL_VARIABLE} does not name it",
            f"export {_BASE_URL_VARIABLE}=… as `wsproxy serve` prints it",
        )
    return ok("daemon", f"ready at {where}")
