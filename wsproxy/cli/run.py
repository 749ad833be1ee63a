"""`wsproxy run`: one command behind a proxy of its own."""

from __future__ import annotations

import os
from dataclasses import replace
from importlib import import_module
from typing import Any, Final

import click

from wsproxy.cli.options import SettingsCommand, load_settings, settings_options_but
from wsproxy.config import Loaded, SettingsError

#: Where the child's own base URL stands, and which setting takes its value.
_INHERITED: Final = "OPENAI_BASE_URL"
_UPSTREAM: Final = "WSPROXY_UPSTREAM"
#: The child owns the terminal: only what stops the proxy may be written between its lines.
_QUIET: Final = "error"
#: Several commands may run at once, each behind its own.
_LISTEN: Final = "127.0.0.1:0"


@click.command(cls=SettingsCommand, context_settings={"allow_interspersed_args": False})
@settings_options_but(listen=_LISTEN)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND…")
def run(command: tuple[str, ...], **options: Any) -> int:
    """Run one command behind a proxy of its own.

    The proxy listens on a free port of this machine. The command's environment names it in
    OPENAI_BASE_URL and OPENAI_API_BASE, and excepts this machine from HTTP proxies; Codex CLI is
    given `-c` overrides instead. Upstream is --upstream (or the setting), else the inherited
    OPENAI_BASE_URL, else api.openai.com. Where the inherited one is a wsproxy's on this machine,
    upstream is that one's.

    Ctrl-C goes to the command, which ends first; SIGTERM is passed on. Ends with the command's
    exit code, 128 + n after a signal, 127 where it is not found, 126 where it cannot be run. Two
    lines on stderr say what was saved.
    """
    loaded = _load(options)
    level = loaded.settings.log_level
    quiet = replace(
        loaded.settings,
        allow_remote=False,
        token_file=None,
        log_level=_QUIET if loaded.sources["log_level"] == "default" else level,
    )
    code: int = import_module("wsproxy.sidecar.running").run(quiet, command, _say)
    return code


def _load(options: dict[str, Any]) -> Loaded:
    options["listen"] = options["listen"] or (_LISTEN,)
    loaded = load_settings(options)
    inherited = os.environ.get(_INHERITED)
    if loaded.sources["upstream"] != "default" or not inherited:
        return loaded
    loaded = _load_with(options, inherited)
    behind = import_module("wsproxy.sidecar.inherited").upstream_behind(loaded.settings.upstream)
    if behind is None:
        return loaded
    _say(f"wsproxy: {_INHERITED} names a wsproxy; this one goes to its upstream, {behind}")
    return _load_with(options, behind)


def _load_with(options: dict[str, Any], upstream: str) -> Loaded:
    try:
        return load_settings(options, {**os.environ, _UPSTREAM: upstream})
    except SettingsError as error:
        problem = error.problem.replace(_UPSTREAM, _INHERITED)
        raise SettingsError(problem, error.advice) from None


def _say(line: str) -> None:
    click.echo(line, err=True)
