"""`/_wsproxy/…`: what an operator may read. Nothing here changes anything (threat 19)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from wsproxy.downstream.answers import RawAnswer, refusal

PREFIX: Final = "/_wsproxy"
_TEXT: Final = (b"Content-Type", b"text/plain; charset=utf-8")
#: The text format of Prometheus, version 0.0.4.
_METRICS: Final = (b"Content-Type", b"text/plain; version=0.0.4; charset=utf-8")
_JSON: Final = (b"Content-Type", b"application/json")
_NOT_STORED: Final = (b"Cache-Control", b"no-store")


def is_ops_path(path: str) -> bool:
    """True for paths that are ours alone and never go upstream."""
    return path == PREFIX or path.startswith(PREFIX + "/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ops:
    """Where the answers come from. Each is called on the event loop and returns at once.

    `is_ready`: may new work come? `pools`: anything JSON can hold. `metrics`: Prometheus text.
    """

    is_ready: Callable[[], bool] = lambda: True
    pools: Callable[[], object] = dict
    metrics: Callable[[], str] = str

    def answer(self, request: web.BaseRequest, path: str) -> RawAnswer:
        """Answer one request; `path` is raw, without the query."""
        write = {
            f"{PREFIX}/healthz": self._healthz,
            f"{PREFIX}/readyz": self._readyz,
            f"{PREFIX}/metrics": self._metrics,
            f"{PREFIX}/pools": self._pools,
        }.get(path)
        if write is None:
            return refusal(404, "not_found", "wsproxy has healthz, readyz, metrics and pools.")
        if request.method not in ("GET", "HEAD"):
            return refusal(
                405, "read_only", "GET and HEAD only.", headers=[(b"Allow", b"GET, HEAD")]
            )
        return write()

    def _healthz(self) -> RawAnswer:
        return RawAnswer(200, [_TEXT, _NOT_STORED], body=b"ok\n")

    def _readyz(self) -> RawAnswer:
        if self.is_ready():
            return RawAnswer(200, [_TEXT, _NOT_STORED], body=b"ready\n")
        return RawAnswer(503, [_TEXT, _NOT_STORED], body=b"not ready\n")

    def _metrics(self) -> RawAnswer:
        return RawAnswer(200, [_METRICS, _NOT_STORED], body=self.metrics().encode())

    def _pools(self) -> RawAnswer:
        body = json.dumps(self.pools(), ensure_ascii=False).encode()
        return RawAnswer(200, [_JSON, _NOT_STORED], body=body)
