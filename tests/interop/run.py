"""Codex CLI and openai-node do a tool loop against the simulator, directly and through wsproxy.

    scripts/interop [--calls N]

Fails where a client fails, or where upstream saw anything but one WebSocket with deltas.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from wsproxy.demo import children, sightings
from wsproxy.demo.sightings import Sightings

#: Codex declares its tools at the top level for the first, inside the input for the second.
MODELS: Final = ("gpt-5.6", "gpt-5.6-sol")
ROADS: Final = ("direct", "deflate", "off")
TIMEOUT_S: Final = 120.0

#: Retries are off: a turn that has to be sent twice is a failure here.
CODEX_CONFIG: Final = """\
model = "{model}"
model_provider = "wsproxy"
approval_policy = "never"
sandbox_mode = "danger-full-access"
check_for_update_on_startup = false

[model_providers.wsproxy]
name = "wsproxy"
base_url = "{base_url}"
wire_api = "responses"
env_key = "OPENAI_API_KEY"
request_max_retries = 0
stream_max_retries = 0

[analytics]
enabled = false
"""


class InteropError(Exception):
    """A client failed, or upstream saw what it should not."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a client said last, and what upstream saw of it."""

    answer: str
    seen: Sightings


def codex(cache: Path, base_url: str, model: str, calls: int) -> str:
    """Let Codex do a task of that many tool calls; its last words."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder, "codex")
        home.mkdir()
        config = CODEX_CONFIG.format(model=model, base_url=base_url)
        (home / "config.toml").write_text(config, encoding="utf-8")
        program = str(cache / "node_modules" / ".bin" / "codex")
        task = f"[sim tool_calls={calls} reasoning=encrypted] Look around and say what you saw."
        command = [program, "exec", "--skip-git-repo-check", task]
        return run(command, folder, {"CODEX_HOME": str(home), "HOME": folder})


def node(cache: Path, base_url: str) -> str:
    """A tool loop with openai-node; everything it was given, as JSON."""
    script = Path(__file__).with_name("agent.mjs")
    return run(["node", str(script), str(cache)], str(cache), {"OPENAI_BASE_URL": base_url})


def run(command: list[str], folder: str, variables: dict[str, str]) -> str:
    """What the program printed. Raises `InteropError` where it failed."""
    loopback = {"OPENAI_API_KEY": "interop", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    ran = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **loopback, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    if ran.returncode != 0:
        raise InteropError(f"{command[0]} ended with {ran.returncode}:\n{ran.stderr[-3000:]}")
    return ran.stdout.strip()


def outcomes(client: Callable[[str], str]) -> Iterator[tuple[str, Outcome]]:
    """One run a road, each against a simulator of its own."""
    for road in ROADS:
        with children.simulator(["--models=gpt-5.6", "--models=gpt-5.6-sol"]) as upstream:
            if road == "direct":
                yield road, Outcome(client(upstream), sightings.take(upstream))
                continue
            with children.proxy(upstream, "--compression", road) as through:
                yield road, Outcome(client(through), sightings.take(upstream))


def check(road: str, outcome: Outcome, direct: Outcome, turns: int) -> None:
    """Raise `InteropError` unless upstream saw one WebSocket, and deltas from the second turn."""
    seen = outcome.seen
    wrong = []
    if seen.turns != turns:
        wrong.append(f"{seen.turns} turns instead of {turns}")
    if road != "direct" and seen.websockets != 1:
        wrong.append(f"{seen.websockets} WebSockets instead of 1")
    if road != "direct" and seen.http_turns:
        wrong.append(f"{seen.http_turns} turns over HTTP")
    if road != "direct" and seen.deltas != turns - 1:
        wrong.append(f"{seen.deltas} deltas instead of {turns - 1}")
    if not outcome.answer or shape(outcome.answer) != shape(direct.answer):
        wrong.append(f"the answer was {outcome.answer[:300]!r}, direct {direct.answer[:300]!r}")
    if wrong:
        raise InteropError(f"{road}: " + "; ".join(wrong))


def shape(answer: str) -> Any:
    """What of an answer must be the same in every run: Codex's context names the day and folder,
    so its text differs, but not how many items the model saw."""
    return answer.split()[0] if answer.startswith("items=") else json.loads(answer)


def compare(name: str, client: Callable[[str], str], turns: int) -> None:
    """Run a client over every road, check and print what upstream saw."""
    direct: Outcome | None = None
    for road, outcome in outcomes(client):
        direct = direct or outcome
        check(road, outcome, direct, turns)
        seen = outcome.seen
        share = direct.seen.bytes_up / seen.bytes_up
        print(
            f"{name:22} {road:8} {seen.turns:5} {seen.deltas:6} {seen.connections:11}"
            f" {seen.bytes_up:10,} {share:6.1f} ×",
            flush=True,
        )


def main() -> int:
    """The exit code: 0, or 1 where something was wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("cache", type=Path)
    parser.add_argument("--calls", type=int, default=20)
    given = parser.parse_args()
    print(f"{'client':22} {'road':8} {'turns':>5} deltas connections {'bytes up':>10}    fewer")
    try:
        compare("openai-node", lambda base: node(given.cache, base), 7)
        for model in MODELS:
            client = codex_with(given.cache, model, given.calls)
            compare(f"Codex CLI {model}", client, given.calls + 1)
    except (InteropError, children.StartError) as error:
        print(f"interop: {error}", file=sys.stderr)
        return 1
    return 0


def codex_with(cache: Path, model: str, calls: int) -> Callable[[str], str]:
    """Codex bound to all but the road."""
    return lambda base_url: codex(cache, base_url, model, calls)


if __name__ == "__main__":
    sys.exit(main())
