"""What is said at the end: what was saved, or why there was nothing to save."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from typing import Final

from wsproxy.config import Settings, command_for
from wsproxy.console.words import count, counted, size, times
from wsproxy.metrics.tally import Tally
from wsproxy.options import Upstream
from wsproxy.sidecar.child import SIGNAL_BASE

_PROBE: Final = " (one may be the probe of an unknown upstream)"
_KEY: Final = "OPENAI_API_KEY"


def summary(
    settings: Settings, tally: Tally, agent_connections: int, lost_records: int = 0
) -> Iterator[str]:
    """What became of the turns, and what was saved: two lines; a third if traces were lost."""
    probe = _PROBE * (may_probe(settings) and tally.handshakes > 1)
    yield (
        f"{_turns(tally)}, {_roads(settings, tally)}"
        f"; {counted(tally.handshakes, 'WebSocket handshake')}{probe}"
        f" for {counted(agent_connections, 'connection')} of the agent"
    )
    if not tally.bytes_up:
        yield f"nothing was sent up; `{command_for('doctor', settings.upstream)}` looks for why"
        return
    yield (
        f"{size(tally.bytes_up)} sent up instead of {size(tally.bytes_http)} over HTTP"
        f"{times(tally.bytes_http, tally.bytes_up)}"
        f"{'; see `wsproxy trace show`' * (settings.trace == 'on' and not lost_records)}"
    )
    if lost_records:
        lost = counted(lost_records, "record")
        yield f"{lost} of the trace could not be written; `wsproxy doctor` looks at the folder"


def without_turns(settings: Settings, code: int, environment: Mapping[str, str]) -> Iterator[str]:
    """Why there was nothing to save: one line, and a second one where a key may be missing."""
    if code:
        yield f"the command ended with exit code {code}{_signal(code)} before any turn"
    else:
        yield "no turn came through; does the command read OPENAI_BASE_URL?"
    is_keyless = not environment.get(_KEY) and not Upstream.of(settings.upstream).is_known
    if is_keyless and not _signal(code):
        yield f"{_KEY} is not set and SDKs want one; if this upstream does not: {_KEY}=any"


def may_probe(settings: Settings) -> bool:
    """Whether one connection may have asked upstream if it keeps chains (contract §3)."""
    is_asked = settings.transport == "auto" and settings.continuation == "auto"
    return is_asked and not Upstream.of(settings.upstream).is_known


def _turns(tally: Tally) -> str:
    numbers = (("failed", tally.failed), ("abandoned", tally.abandoned))
    amiss = [f"{count(number)} {word}" for word, number in numbers if number]
    return counted(tally.turns, "turn") + (f" ({', '.join(amiss)})" if amiss else "")


def _roads(settings: Settings, tally: Tally) -> str:
    deltas = f"{count(tally.continued)} sent as deltas"
    if not tally.over_https:
        return deltas
    scheme = settings.upstream.partition(":")[0].upper()
    return f"{deltas}, {count(tally.over_https)} over {scheme}"


def _signal(code: int) -> str:
    """Which signal a shell would mean by this exit code."""
    try:
        return f" ({signal.Signals(code - SIGNAL_BASE).name})"
    except ValueError:
        return ""
