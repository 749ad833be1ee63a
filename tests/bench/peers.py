"""Other proxies, from their registry into an environment of their own each (full run only)."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from tests.bench.children import CACHE, Child, free_port, started
from tests.bench.environments import environment

#: Name → what is installed, and what it does that wsproxy does not.
PEERS: Final = {
    "mitmdump": ("mitmproxy", "intercepts, decodes and can rewrite every message"),
    "claude-tap": ("claude-tap==0.1.146", "keeps every request and answer for its viewer"),
    "codex responses-api-proxy": (
        "npm:@openai/codex@0.169.0",
        "holds the API key itself, and lets nothing but `POST /v1/responses` pass",
    ),
    "LiteLLM": ("litellm[proxy]", "keys, budgets, accounting, translation between providers"),
}
#: What a subject is opened with: a context that ends it.
Opened = Callable[[Child], AbstractContextManager[Child]]


def prepared(name: str) -> Path | None:
    """The environment's folder of programs; None where it cannot be installed."""
    return environment(name, PEERS[name][0])


@contextlib.contextmanager
def mitmdump(upstream: Child) -> Iterator[Child]:
    """A reverse proxy that streams bodies."""
    programs = prepared("mitmdump")
    assert programs is not None
    port, address = free_port(), urlsplit(upstream.base_url)
    flags = ["--mode", f"reverse:http://{address.netloc}", "--listen-port", str(port), "-q"]
    streaming = ["--listen-host", "127.0.0.1", "--set", "stream_large_bodies=1"]
    folder = f"confdir={CACHE / 'mitmproxy'}"
    url = f"http://127.0.0.1:{port}{address.path}"
    command = [str(programs / "mitmdump"), *flags, *streaming, "--set", folder]
    with started("mitmdump", command, url=url) as child:
        yield child


@contextlib.contextmanager
def litellm(upstream: Child) -> Iterator[Child]:
    """One worker, no database, no keys."""
    programs = prepared("LiteLLM")
    assert programs is not None
    port = free_port()
    model = {"model": "openai/bench", "api_base": upstream.base_url, "api_key": "bench"}
    config = CACHE / "litellm.json"  # JSON is YAML
    # A key of its own would cost it a check a turn; it listens on loopback, for this run only.
    keyless = {"dangerously_permit_weak_or_unset_master_key": True}
    models = [{"model_name": "bench", "litellm_params": model}]
    config.write_text(json.dumps({"model_list": models, "general_settings": keyless}))
    flags = ["--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    url = f"http://127.0.0.1:{port}/v1"
    with started("LiteLLM", [str(programs / "litellm"), *flags], url=url) as child:
        yield child


@contextlib.contextmanager
def claude_tap(upstream: Child) -> Iterator[Child]:
    """Proxy only, no dashboard; its client is Codex, so that it takes the Responses API."""
    programs = prepared("claude-tap")
    assert programs is not None
    port = free_port()
    flags = ["--tap-no-launch", "--tap-no-live", "--tap-no-open", "--tap-client", "codex"]
    there = ["--tap-host", "127.0.0.1", "--tap-port", str(port), "--tap-target", upstream.base_url]
    url = f"http://127.0.0.1:{port}/v1"
    with started("claude-tap", [str(programs / "claude-tap"), *flags, *there], url=url) as child:
        yield child


@contextlib.contextmanager
def responses_api_proxy(upstream: Child) -> Iterator[Child]:
    """Codex's own; it reads its key from standard input."""
    name = "codex responses-api-proxy"
    programs = prepared(name)
    assert programs is not None
    port = free_port()
    there = ["--port", str(port), "--upstream-url", f"{upstream.base_url}/responses"]
    # What npm puts into `.bin` only starts it: processor time would be counted of the wrong one.
    native = programs.parent.glob("@openai/codex-*/vendor/*/bin/codex")
    command = [str(next(native, programs / "codex")), "responses-api-proxy", *there]
    url = f"http://127.0.0.1:{port}/v1"
    with started(name, command, url=url, told="sk-bench\n") as child:
        yield child


OPENED: Final[dict[str, Opened]] = {
    "mitmdump": mitmdump,
    "claude-tap": claude_tap,
    "codex responses-api-proxy": responses_api_proxy,
    "LiteLLM": litellm,
}
