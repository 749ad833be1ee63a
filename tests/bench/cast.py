"""Everybody who takes part, started together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from tests.bench import children, peers
from tests.bench.authority import Authority
from tests.bench.children import Child
from tests.bench.ledger import Ledger, say


@dataclass(frozen=True, slots=True)
class Cast:
    """Upstreams (`plain`, `deflating`, `secure`), and who stands in front of which."""

    plain: Child
    deflating: Child
    secure: Child
    wsproxy: Child
    deflated: Child
    secured: Child
    untraced: Child
    raw_relay: Child
    nginx: Child | None

    def roads(self) -> dict[str, Child]:
        """Without a proxy, and with ours."""
        return {"direct": self.plain, "wsproxy": self.wsproxy}

    def relays(self) -> dict[str, Child]:
        """The same, and what relays at the least cost."""
        nginx = {"nginx": self.nginx} if self.nginx else {}
        return {**self.roads(), "raw relay": self.raw_relay, **nginx}


@contextlib.contextmanager
def cast(authority: Authority) -> Iterator[Cast]:
    """Start them; all end with the context."""
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        plain = enter(children.source())
        deflating = enter(children.source(has_deflate=True))
        secure = enter(children.source(authority=authority))
        yield Cast(
            plain,
            deflating,
            secure,
            enter(children.wsproxy(plain)),
            enter(children.wsproxy(deflating, has_deflate=True)),
            enter(children.wsproxy(secure, authority=authority)),
            enter(children.wsproxy(plain, is_tracing=False)),
            enter(children.raw_relay(plain)),
            enter(children.nginx(plain)) if children.has_nginx() else None,
        )


@contextlib.contextmanager
def others(upstream: Child, ledger: Ledger) -> Iterator[dict[str, Child]]:
    """The peers that can be installed and do start; of the rest the ledger is told."""
    found, missing = {}, []
    with contextlib.ExitStack() as stack:
        for name, opened in peers.OPENED.items():
            try:
                if peers.prepared(name) is not None:
                    found[name] = stack.enter_context(opened(upstream))
                    continue
            except (AssertionError, TimeoutError) as error:
                say("peers", str(error))
            missing.append(name)
        if missing:
            ledger.explain("turns at 16 clients", f"Not in this run: {', '.join(missing)}.")
        yield found
