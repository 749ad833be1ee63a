"""What upstream itself saw of one run, read from the simulator's log."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.request import ProxyHandler, Request, build_opener

_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Sightings:
    """Bytes are those of requests on the wire: bodies over HTTP, frames over the WebSocket."""

    turns: int
    http_turns: int
    deltas: int
    bytes_up: int
    connections: int
    websockets: int


def take(base_url: str) -> Sightings:
    """What the simulator saw since the last time, which it then forgets."""
    log = base_url.rsplit("/", 1)[0] + "/_simulator/log"
    records = json.loads(_ask("GET", log))
    _ask("DELETE", log)
    return count(records)


def count(records: Sequence[dict[str, Any]]) -> Sightings:
    """Add up the log's records."""
    creates = [each for each in records if each["record"] == "Create"]
    opened = [each for each in records if each["record"] == "Opened"]
    agents = [each for each in opened if not each["target"].startswith("/_simulator/")]
    return Sightings(
        turns=len(creates),
        http_turns=sum(each["via"] == "http" for each in creates),
        deltas=sum(each["previous_response_id"] is not None for each in creates),
        bytes_up=sum(each["wire_size"] for each in creates),
        connections=len(agents),
        websockets=sum(each["via"] == "ws" for each in agents),
    )


def _ask(method: str, url: str) -> bytes:
    opener = build_opener(ProxyHandler({}))  # loopback is never reached through a proxy
    with opener.open(Request(url, method=method), timeout=_TIMEOUT_S) as answer:
        body: bytes = answer.read()
    return body
