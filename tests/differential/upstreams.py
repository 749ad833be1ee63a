"""Upstreams a script may meet: OpenAI's own, and those that are not; and the proxy's settings."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any, Final

from wsproxy.simulator import Rules

#: How an upgrade may be refused; each turns every call into HTTPS.
REFUSALS: Final = (401, 403, 404, 405, 426, 429, 500, 501, 503)
#: Long enough on a busy machine, short enough for a test of an upgrade that hangs.
SHORT_HANDSHAKE_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Upstream:
    """One upstream and the proxy before it."""

    name: str
    rules: Rules
    settings: dict[str, Any]

    @property
    def has_websocket(self) -> bool:
        """Whether turns can go over the WebSocket at all."""
        return not (self.rules.refuse_upgrade or self.rules.hang_upgrade)


def choose_upstream(random: Random) -> Upstream:
    """Any of them; most have lanes and keep their chains."""
    if random.random() < 0.12:
        return without_websocket(random)
    rules: dict[str, Any] = {}
    words = []
    for name, likely, value in _HABITS:
        if random.random() < likely:
            chosen = random.choice(value) if isinstance(value, tuple) else value
            rules[name] = chosen
            words.append(f"{name}={chosen}")
    settings = choose_settings(random, Rules(**rules))
    words += [f"{name}={value}" for name, value in settings.items()]
    return Upstream(" ".join(words) or "plain", Rules(**rules), settings)


#: Rule, how likely, its value or values.
_HABITS: Final[tuple[tuple[str, float, Any], ...]] = (
    ("lanes", 0.3, ("ignored", "refused")),
    ("continuation", 0.15, ("ignored_null", "ignored_echoed")),
    ("sequence_per_connection", 0.25, True),
    ("lane_place", 0.4, ("first", "middle")),
    ("spaced_json", 0.2, True),
    ("error_shape", 0.3, ("b", "c", "d", "e", "f", "g", "h")),
    ("reencrypt_reasoning", 0.3, False),
    ("empty_completed_output", 0.25, True),
    ("noise", 0.25, True),
    ("keepalive", 0.2, True),
    ("deflate", 0.2, False),
    ("ping_interval_s", 0.1, 0.01),
    ("chain_turns", 0.1, (1, 2, 3)),
    ("chain_loss", 1.0, "refused"),
)


def choose_settings(random: Random, rules: Rules) -> dict[str, Any]:
    """Settings under which nothing may read differently, some of them tight."""
    settings: dict[str, Any] = {}
    keeps_chains = rules.continuation == "kept"
    if keeps_chains and random.random() < 0.6:
        settings["continuation"] = "on"
    elif random.random() < 0.05:
        settings["continuation"] = "off"
    if rules.lanes == "on" and random.random() < 0.4:
        settings["lanes"] = "on"
    elif random.random() < 0.05:
        settings["lanes"] = "off"
    if random.random() < 0.2:
        settings["compression"] = "off"
    if random.random() < 0.2:
        settings["stored_chains"] = "full"
    for name, likely, values in _TIGHT:
        if random.random() < likely:
            settings[name] = random.choice(values)
    if random.random() < 0.15:
        settings |= {"connection_max_age_s": 0.05, "connection_age_jitter_s": 0.0}
    return settings


_TIGHT: Final[tuple[tuple[str, float, tuple[Any, ...]], ...]] = (
    ("max_lanes_per_connection", 0.25, (1, 2, 3)),
    ("max_in_flight_per_connection", 0.2, (1, 2)),
    ("max_connections_per_key_with_lanes", 0.2, (1, 2)),
    ("max_connections_per_key_without_lanes", 0.2, (1, 2)),
    ("history_conversations", 0.15, (1, 3)),
    ("queue_wait_s", 0.3, (0.0, 0.02)),
    ("max_turn_json_bytes", 0.05, (2000, 4000)),
    ("max_input_items", 0.05, (6,)),
)


def without_websocket(random: Random) -> Upstream:
    """An upstream whose upgrade is refused, or never answered."""
    if random.random() < 0.15:
        settings = {"handshake_wait_s": SHORT_HANDSHAKE_S}
        return Upstream("upgrade hangs", Rules(hang_upgrade=True), settings)
    status = random.choice(REFUSALS)
    return Upstream(f"upgrade refused with {status}", Rules(refuse_upgrade=status), {})
