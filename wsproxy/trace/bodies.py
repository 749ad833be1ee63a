"""The texts of a turn, for those who asked for them (`trace_bodies`): redacted, each kept once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from wsproxy.core.accounts import TurnAccount
from wsproxy.trace.keyed import Keyed
from wsproxy.trace.record import Bodies, Content
from wsproxy.trace.redaction import redacted, redacted_json

#: Request headers that may be kept: they say which program asked, never who.
HEADERS: Final = frozenset(
    {"user-agent", "originator", "content-type", "accept", "openai-beta", "traceparent"}
)
HEADER_PREFIXES: Final = ("x-stainless-",)


def bodies_of(account: TurnAccount, keyed: Keyed) -> tuple[Bodies, list[Content]]:
    """Names of everything the turn said and was told, and the contents behind the names."""
    store = _Store(keyed)
    request = account.request
    members = request.members if request is not None else {}
    bodies = Bodies(
        headers=dict(_headers(account.headers)),
        members={n: store.put(m.value) for n, m in members.items() if n != "input"},
        input=[store.put(bytes(item)) for item in (request.items or ())] if request else [],
        output=[store.put(item) for item in account.outputs],
    )
    if request is not None and request.text is not None:
        bodies = msgspec.structs.replace(bodies, input=[store.put(request.text)])
    return bodies, list(store.contents.values())


class _Store:
    def __init__(self, keyed: Keyed) -> None:
        self._keyed = keyed
        self.contents: dict[str, Content] = {}

    def put(self, raw: bytes) -> str:
        raw = redacted_json(raw).translate(None, b"\r\n")
        name = self._keyed.name(raw)
        self.contents.setdefault(name, Content(name, msgspec.Raw(raw)))
        return name


def _headers(headers: Iterable[tuple[bytes, bytes]]) -> Iterable[tuple[str, str]]:
    for raw_name, raw_value in headers:
        name = raw_name.decode("latin-1").lower()
        if name in HEADERS or name.startswith(HEADER_PREFIXES):
            yield name, redacted(raw_value.decode("latin-1"))[:300]
