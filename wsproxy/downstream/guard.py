"""Who may speak to us, and in which form: judged before a request is routed.

Rules of this file
------------------
1. A web page has no business here: exact `Host`, no foreign `Origin` (threats 1 and 10).
2. A refusal never repeats what the client sent.
3. The raw request is judged, never a normalised one.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from aiohttp import web
from aiohttp.http import RawRequestMessage
from yarl import URL

from wsproxy.downstream.answers import CORS, RawAnswer, refusal
from wsproxy.ports import Headers

MAX_HEAD_BYTES: Final = 65_536  # upstream's own total (API reference overview); faults.md §7
LOOPBACK_NAMES: Final = frozenset({"127.0.0.1", "localhost", "[::1]"})
_PREFLIGHT_AGE_S: Final = 600  # what browsers cap it at anyway (Chromium: 7200, WebKit: 600)

#: Set by the server on a request that came without our token.
UNAUTHORIZED: Final = web.RequestKey("UNAUTHORIZED", bool)

#: What stands before the paths that a base URL names, the token itself never shown.
URL_PREFIX: Final = web.RequestKey("URL_PREFIX", str)

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_TOKEN_LIST: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z, -]{0,4096}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """The settings of the wall.

    `allowed_hosts`: further `Host` values, `name` (then with our port) or `name:port`.
    `allowed_origins`: serialised origins, e.g. `https://app.example`. `token`: required as
    `/t/TOKEN` in front of every path if set.
    """

    allowed_hosts: frozenset[str] = field(default_factory=frozenset)
    allowed_origins: frozenset[str] = field(default_factory=frozenset)
    token: str | None = field(default=None, repr=False)

    def judge(self, request: web.BaseRequest) -> RawAnswer | None:
        """The answer that ends the matter, or None if the request may be routed."""
        return self._judge_form(request) or self._judge_sender(request)

    def strip_token(self, raw_target: str) -> str | None:
        """The target without `/t/TOKEN`; None if the token is missing or wrong."""
        if self.token is None:
            return raw_target
        prefix = f"/t/{self.token}".encode()
        # Compared over a length of ours: how long the client's token is tells nothing.
        given = raw_target.encode("utf-8", "surrogateescape")[: len(prefix)]
        is_right = hmac.compare_digest(given, prefix)
        rest = raw_target[len(f"/t/{self.token}") :]
        return rest if is_right and rest.startswith("/") else None

    def _judge_form(self, request: web.BaseRequest) -> RawAnswer | None:
        version = tuple(request.version)
        if version not in ((1, 0), (1, 1)):
            return _refused(505, "http_version", "Only HTTP/1.1 and HTTP/1.0 are spoken here.")
        if request.method == "CONNECT" or not request.raw_path.startswith("/"):
            return _refused(400, "invalid_target", "The request target must be a path.")
        if version == (1, 0) and "Transfer-Encoding" in request.headers:
            return _refused(400, "invalid_http", "HTTP/1.0 has no Transfer-Encoding.")
        if head_bytes(request.raw_headers) > MAX_HEAD_BYTES:
            return _refused(431, "headers_too_large", "The request head is over 64 KiB.")
        if not _is_utf8(request.raw_headers):
            return _refused(400, "invalid_http", "A header holds bytes that are not UTF-8.")
        return None

    def _judge_sender(self, request: web.BaseRequest) -> RawAnswer | None:
        if not self._is_host_allowed(request):
            return _refused(
                403,
                "host_not_allowed",
                "This Host is not served here; see the setting allowed_hosts.",
            )
        if not self._is_origin_allowed(request):
            return _refused(
                403,
                "origin_not_allowed",
                "Web pages are not served here; see the setting allowed_origins.",
            )
        origin = request.headers.get("Origin")
        if origin is not None:
            request[CORS] = _cors(origin)
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            return _preflight(request)
        if request.get(UNAUTHORIZED):
            return _refused(
                401,
                "token_required",
                "The base URL must hold this proxy's token: http://HOST:PORT/t/TOKEN/…",
            )
        return None

    def _is_host_allowed(self, request: web.BaseRequest) -> bool:
        host = request.headers.get("Host")
        if host is None:  # HTTP/1.0 only; no browser sends that
            return True
        return host.lower() in _served_hosts(self.allowed_hosts, _local_port(request))

    def _is_origin_allowed(self, request: web.BaseRequest) -> bool:
        origins = request.headers.getall("Origin", [])
        if origins:
            return len(origins) == 1 and origins[0] in self.allowed_origins
        sites = request.headers.getall("Sec-Fetch-Site", [])
        # Node sends `Sec-Fetch-Mode: cors` alone.
        return all(site == "none" for site in sites)


def head_bytes(headers: Headers) -> int:
    """The size of these fields on the wire."""
    return sum(len(name) + len(value) + 4 for name, value in headers)


def retarget(message: RawRequestMessage, raw_target: str) -> RawRequestMessage:
    """The same request for another target, taken as it is."""
    path, _, query = raw_target.partition("?")
    url = URL.build(path=path, query_string=query, encoded=True)
    return message._replace(path=raw_target, url=url)


@lru_cache(maxsize=16)
def _served_hosts(allowed: frozenset[str], port: int) -> frozenset[str]:
    names = LOOPBACK_NAMES.union(name.lower() for name in allowed)
    bare = {name for name in names if not has_port(name)}
    with_our_port = {f"{name}:{port}" for name in bare}
    return (names if port == 80 else names - bare) | with_our_port


def _refused(status: int, code: str, message: str) -> RawAnswer:
    return refusal(status, code, message, is_last=True)


def _local_port(request: web.BaseRequest) -> int:
    transport = request.transport
    return int(transport.get_extra_info("sockname")[1]) if transport is not None else 0


def has_port(name: str) -> bool:
    """Whether a `Host` value names its port; an IPv6 address stands in brackets."""
    return name.rpartition("]")[2].count(":") == 1


def _is_utf8(headers: Headers) -> bool:
    try:
        for _, value in headers:
            value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _cors(origin: str) -> tuple[tuple[bytes, bytes], ...]:
    return (
        (b"Access-Control-Allow-Origin", origin.encode()),
        (b"Access-Control-Expose-Headers", b"*"),
        (b"Vary", b"Origin"),
    )


def _preflight(request: web.BaseRequest) -> RawAnswer:
    method = request.headers["Access-Control-Request-Method"]
    names = request.headers.get("Access-Control-Request-Headers", "")
    is_sound = _TOKEN.fullmatch(method) and _TOKEN_LIST.fullmatch(names)
    if CORS not in request or not is_sound:
        return _refused(403, "origin_not_allowed", "No preflight for this Origin.")
    allowed = [
        (b"Access-Control-Allow-Methods", method.encode()),
        (b"Access-Control-Allow-Headers", names.encode()),
        (b"Access-Control-Max-Age", b"%d" % _PREFLIGHT_AGE_S),
    ]
    return RawAnswer(204, [field for field in allowed if field[1]])
