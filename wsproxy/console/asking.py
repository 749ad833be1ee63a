"""Asking a running daemon: its own small pages over plain HTTP on this machine."""

from __future__ import annotations

import http.client
from collections.abc import Sequence
from contextlib import closing
from typing import Final
from urllib.parse import SplitResult, urlsplit

from wsproxy.config import Settings, read_token, split_address
from wsproxy.metrics.report import Report, decode

#: A daemon answers in a millisecond; one that does not in this time is not well.
TIMEOUT_S: Final = 3.0
_MAX_BYTES: Final = 16 * 1024 * 1024  # 200 sessions are 60 KB; against a port of something else
_ANY_HOST: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


class AskError(Exception):
    """No daemon answered; `advice` says what to do."""

    def __init__(self, problem: str, advice: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.advice = advice


def candidates(settings: Settings) -> list[str]:
    """Where the daemon of these settings would be, as URLs without a trailing slash."""
    token = f"/t/{read_token(settings.token_file).reveal()}" if settings.token_file else ""
    return [f"http://{_reached_at(address)}{token}" for address in settings.listen]


def from_url(url: str) -> str:
    """The daemon behind a URL as people write it: an agent's base URL will do."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme != "http" or not parts.hostname or parts.port == 0:
            raise ValueError
    except ValueError:
        raise AskError(f"{url} is no address of a wsproxy", "write http://HOST:PORT") from None
    return f"http://{parts.netloc}{_token_prefix(parts)}"


def get_report(urls: Sequence[str]) -> Report:
    """The report of the first daemon that answers. Raises `AskError`."""
    status, body = ask(urls, "pools")
    if status == 401:
        raise AskError("the daemon wants its token", "give --url http://HOST:PORT/t/TOKEN")
    if status != 200:
        raise AskError(f"the daemon answered {status}", "is it a wsproxy of this version?")
    try:
        return decode(body)
    except ValueError:
        raise AskError("what answers there is no wsproxy", "see --url and --listen") from None


def ask(urls: Sequence[str], page: str, timeout_s: float = TIMEOUT_S) -> tuple[int, bytes]:
    """Status and body of `/_wsproxy/PAGE`, from the first that answers. Raises `AskError`."""
    for url in urls:
        try:
            return _get(urlsplit(url), page, timeout_s)
        except (OSError, http.client.HTTPException, UnicodeError):  # the last: of odd host names
            continue
    where = ", ".join(urlsplit(url).netloc for url in urls)
    raise AskError(f"no wsproxy answers at {where}", "start one: wsproxy serve")


def _get(url: SplitResult, page: str, timeout_s: float) -> tuple[int, bytes]:
    assert url.hostname is not None
    connection = http.client.HTTPConnection(url.hostname, url.port or 80, timeout=timeout_s)
    with closing(connection):
        connection.request("GET", f"{url.path}/_wsproxy/{page}", headers={"Connection": "close"})
        answer = connection.getresponse()
        return answer.status, answer.read(_MAX_BYTES)


def _reached_at(address: str) -> str:
    host, port = split_address(address)
    host = _ANY_HOST.get(host, host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _token_prefix(parts: SplitResult) -> str:
    segments = parts.path.split("/")
    return f"/t/{segments[2]}" if segments[1:2] == ["t"] and len(segments) > 2 else ""
