"""The base URL that the shell had already: is it the API's, or another wsproxy's?

A proxy behind a proxy carries every turn over HTTP: the outer one cannot know what the inner one
holds. So a proxy of one command goes where a running daemon goes.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from wsproxy.config import SettingsError, is_loopback, is_shown_only
from wsproxy.console.asking import AskError, ask, from_url, get_report

VARIABLE: Final = "OPENAI_BASE_URL"
#: In all, for what may be anybody's port; a daemon answers in a millisecond.
_PATIENCE_S: Final = 1.0
_ALIVE: Final = b"ok\n"
_TOKEN_WANTED: Final = b'"token_required"'


def upstream_behind(base_url: str) -> str | None:
    """The upstream of the wsproxy that answers at that URL on this machine; None if none does.

    Raises `SettingsError` where one answers, but not that question.
    """
    parts = urlsplit(base_url)
    if parts.scheme != "http" or not is_loopback(parts.hostname or ""):
        return None
    return _in_time(lambda: _upstream_at(from_url(base_url), parts.netloc))


def _upstream_at(url: str, where: str) -> str | None:
    try:
        status, body = ask([url], "healthz", _PATIENCE_S)
    except AskError:
        return None
    if status == 401 and _TOKEN_WANTED in body:
        raise _unasked(f"the wsproxy at {where} wants its token")
    if (status, body) != (200, _ALIVE):
        return None
    try:
        upstream = get_report([url]).upstream
    except AskError as error:
        raise _unasked(f"the wsproxy at {where} does not tell its upstream: {error}") from None
    if is_shown_only(upstream):
        raise _unasked(f"the wsproxy at {where} keeps the token of its upstream, {upstream}")
    return upstream


def _unasked(problem: str) -> SettingsError:
    return SettingsError(
        f"environment {VARIABLE}: {problem}",
        "name the API with --upstream URL, or `unset OPENAI_BASE_URL`; one proxy behind another "
        "saves nothing",
    )


def _in_time(call: Callable[[], str | None]) -> str | None:
    """What it returns or raises; None where that takes too long: it is left behind, then."""
    told: queue.SimpleQueue[str | SettingsError | None] = queue.SimpleQueue()

    def tell() -> None:
        try:
            told.put(call())
        except SettingsError as error:
            told.put(error)

    threading.Thread(target=tell, name="inherited", daemon=True).start()
    try:
        found = told.get(timeout=_PATIENCE_S)
    except queue.Empty:
        return None
    if isinstance(found, SettingsError):
        raise found
    return found
