"""All checks, in the order in which things are needed."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace

from wsproxy.config import Loaded, Settings
from wsproxy.doctor import local, road, upstream
from wsproxy.doctor.daemon import Found, check_daemon
from wsproxy.doctor.finding import Finding, Verdict, left_out
from wsproxy.upstream.proxy import choose_proxy

KEY_VARIABLE = "OPENAI_API_KEY"
#: In its place.
_KEY = "[the key]"
#: Shorter ones are no keys but words ("any"), which may stand in any text.
_LEAST_KEY_CHARS = 8


async def examine(
    loaded: Loaded, daemon: Found, environment: Mapping[str, str] = os.environ
) -> AsyncIterator[Finding]:
    """One finding after another; nothing raises because something is wrong out there.

    The key is in none of them, also where upstream repeats it.
    """
    key = environment.get(KEY_VARIABLE, "")
    async for finding in _findings(loaded, daemon, environment):
        is_told = len(key) >= _LEAST_KEY_CHARS and key in finding.text
        yield replace(finding, text=finding.text.replace(key, _KEY)) if is_told else finding


async def _findings(
    loaded: Loaded, daemon: Found, environment: Mapping[str, str]
) -> AsyncIterator[Finding]:
    settings = loaded.settings
    yield local.check_config(loaded)
    yield check_daemon(daemon, settings.upstream, environment)
    proxy_finding = local.check_proxy(settings, environment)
    yield proxy_finding
    if proxy_finding.verdict is Verdict.FAIL:
        for check in ("dns", "tcp", "tls", "key", "clock", "upgrade", *upstream.BEHIND_THE_UPGRADE):
            yield left_out(check, "no proxy that can be used")
    else:
        async for finding in _upstream(settings, environment):
            yield finding
    yield local.check_traces(settings, environment)


async def _upstream(settings: Settings, environment: Mapping[str, str]) -> AsyncIterator[Finding]:
    proxy = choose_proxy(settings.upstream, settings.upstream_proxy, environment)
    findings = await road.check_road(settings, proxy)
    for finding in findings:
        yield finding
    if any(finding.verdict is Verdict.FAIL for finding in findings):
        for check in ("key", "clock", "upgrade", *upstream.BEHIND_THE_UPGRADE):
            yield left_out(check, "upstream cannot be reached")
        return
    key = environment.get(KEY_VARIABLE) or None
    asked, model = await upstream.check_models(settings, proxy, key)
    for finding in asked:
        yield finding
    for finding in await upstream.check_websocket(settings, key, model):
        yield finding
