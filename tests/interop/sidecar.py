"""Codex CLI as `wsproxy run` starts it, with a key and with a login of its own.

    python tests/interop/sidecar.py CACHE

Fails where Codex fails, or where upstream saw anything but one WebSocket of the agent with deltas.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from run import InteropError, run

from wsproxy.demo import children, sightings

CALLS: Final = 5
KNOWN: Final = ["--continuation", "on", "--lanes", "on"]
OPTIONS: Final = ["--skip-git-repo-check", "-s", "danger-full-access", "-m", "gpt-5.6"]
TASK: Final = f"[sim tool_calls={CALLS} reasoning=encrypted] Look around and say what you saw."


def codex(cache: Path, home: Path, upstream: str, variables: Mapping[str, str]) -> None:
    """One task; raises `InteropError` where it was not carried as it should."""
    program = str(cache / "node_modules" / ".bin" / "codex")
    front = [sys.executable, "-m", "wsproxy", "run", "--upstream", upstream, *KNOWN, "--"]
    told = {"CODEX_HOME": str(home), "HOME": str(home), **variables}
    run([*front, program, "exec", *OPTIONS, TASK], str(home), told)
    seen = sightings.take(upstream)
    found = (seen.turns, seen.deltas, seen.http_turns, seen.websockets)
    if found != (CALLS + 1, CALLS, 0, 1):
        raise InteropError(f"turns, deltas, turns over HTTP, WebSockets: {found}")


def main() -> int:
    """The exit code: 0, or 1 where something was wrong."""
    cache = Path(sys.argv[1]).resolve()
    logins = {"key": {}, "login": {"OPENAI_API_KEY": ""}}
    for name, variables in logins.items():
        with tempfile.TemporaryDirectory() as folder, children.simulator([]) as upstream:
            home = Path(folder)
            if name == "login":
                (home / "auth.json").write_text(json.dumps({"OPENAI_API_KEY": "interop"}))
            try:
                codex(cache, home, upstream, variables)
            except (InteropError, children.StartError) as error:
                print(f"wsproxy run -- codex, {name}: {error}", file=sys.stderr)
                return 1
        print(f"wsproxy run -- codex, {name}: {CALLS + 1} turns, {CALLS} deltas", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
