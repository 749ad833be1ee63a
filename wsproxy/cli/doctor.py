"""`wsproxy doctor`: what is wrong, and what to do about it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final

import click

from wsproxy.cli.options import SettingsCommand, load_settings, settings_options
from wsproxy.config import Loaded, SettingsError

if TYPE_CHECKING:
    from wsproxy.doctor.finding import Finding

_COLOURS: Final = {"ok": "green", "warn": "yellow", "fail": "red", "left out": "bright_black"}
#: A probe that asks is itself given one second by default (Kubernetes, Docker: more).
_READY_TIMEOUT_S: Final = 0.8


@click.command(cls=SettingsCommand)
@click.option("--json", "as_json", is_flag=True, help="As one JSON object, for programs.")
@click.option("--ready", is_flag=True, help="Only: exit code 0 if the daemon is ready, else 1.")
@settings_options
def doctor(as_json: bool, ready: bool, **options: Any) -> int:
    """Check everything between this machine and upstream.

    Settings, daemon, HTTP proxy, DNS, TCP, TLS, key, clock, upgrade, compression, round trip,
    lanes, chains, trace folder: each line says ok, warn, fail or left out, and what to do. The key
    is taken from OPENAI_API_KEY; without one the checks that need it are left out. No model runs.
    Exit code 1 if a check failed. Upstream is that of the settings or, where these name none, the
    running daemon's; the first line says which.

    With --ready it only asks the daemon at the address of the settings: for probes of containers
    and supervisors.
    """
    if ready:
        return _ready(load_settings(options))
    return asyncio.run(_examine(options, as_json))


def _ready(loaded: Loaded) -> int:
    from wsproxy.console.asking import AskError, ask, candidates

    try:
        status, _ = ask(candidates(loaded.settings), "readyz", _READY_TIMEOUT_S)
    except AskError as error:
        raise click.ClickException(f"{error.problem}\n{error.advice}") from None
    if status == 200:
        return 0
    raise click.ClickException(f"the daemon is not ready: it answered {status}")


async def _examine(options: dict[str, Any], as_json: bool) -> int:
    from wsproxy.doctor.finding import Verdict

    findings = []
    async for finding in _findings(options):
        findings.append(finding)
        if not as_json:
            _print(finding)
    has_failed = any(finding.verdict is Verdict.FAIL for finding in findings)
    if as_json:
        checks = [finding.as_json() for finding in findings]
        click.echo(json.dumps({"ok": not has_failed, "checks": checks}, indent=2))
    return int(has_failed)


async def _findings(options: dict[str, Any]) -> AsyncIterator[Finding]:
    from wsproxy.doctor.daemon import as_the_daemon_is, find_daemon
    from wsproxy.doctor.examination import examine
    from wsproxy.doctor.finding import fail
    from wsproxy.logs import configure

    try:
        loaded = load_settings(options)
    except SettingsError as error:
        yield fail("config", error.problem, error.advice)
        return
    configure("error", loaded.settings.log_format)
    daemon = find_daemon(loaded.settings)
    async for finding in examine(as_the_daemon_is(loaded, daemon), daemon):
        yield finding


def _print(finding: Finding) -> None:
    from wsproxy.logs import has_colours

    word = finding.verdict.value
    mark = f"{word:8}"
    if has_colours(sys.stdout):
        mark = click.style(mark, fg=_COLOURS[word])
    click.echo(f"{mark} {finding.check:12} {finding.text}")
    if finding.advice:
        click.echo(f"{'':22}→ {finding.advice}")
