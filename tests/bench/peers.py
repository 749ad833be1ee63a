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


OPENED: Final[dict[str, Opened]] = {"mitmdump": mitmdump, "LiteLLM": litellm}
