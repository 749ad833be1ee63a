"""The bench: measure, keep the raw results, write the page and its picture.

python -m tests.bench [--quick] [--json FILE] [--docs FOLDER] [--from FILE] [--prepare]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from tests.bench import peers, rounds
from tests.bench.children import CACHE, ROOT, has_nginx
from tests.bench.environments import environment
from tests.bench.ledger import Extent
from tests.bench.page import page
from tests.bench.picture import picture
from tests.bench.profile import SPY
from tests.bench.readme import replaced

DOCS: Final = ROOT / "docs"
README: Final = ROOT / "README.md"


#: How long is looked at what else the machine does.
_LOOK_S: Final = 3.0


def main(arguments: list[str]) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="under two minutes, without peers")
    parser.add_argument("--prepare", action="store_true", help="install nginx and peers, and end")
    parser.add_argument("--json", type=Path, default=CACHE / "results.json")
    parser.add_argument(
        "--docs", type=Path, default=DOCS, help="where the page goes; elsewhere, README.md stays"
    )
    parser.add_argument("--from", dest="raw", type=Path, help="write the page of earlier results")
    chosen = parser.parse_args(arguments)
    if sys.platform != "linux":
        parser.error("needs Linux: CPU and memory are read from /proc, the pace from a timerfd")
    if chosen.prepare:
        return prepare()
    results = json.loads(chosen.raw.read_text()) if chosen.raw else measured(chosen.quick)
    if not chosen.raw:
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        chosen.json.write_text(json.dumps(results, indent=1))
    write(results, chosen.docs)
    print(f"{chosen.docs / 'measurements.md'} is written; raw results: {chosen.raw or chosen.json}")
    return 0


def write(results: dict[str, Any], docs: Path) -> None:
    """The page and its picture; after a full run, into our own docs, the README's table too."""
    docs.mkdir(parents=True, exist_ok=True)
    (docs / "measurements.md").write_text(page(results))
    (docs / "measurements.svg").write_text(picture(results["tables"]))
    if docs.resolve() == DOCS and not results["meta"]["flags"]:
        README.write_text(replaced(README.read_text(), results["tables"]))


def measured(is_quick: bool) -> dict[str, Any]:
    """All measurements, and what they were taken on."""
    before = busy_cores()
    extent = Extent.quick() if is_quick else Extent.full()
    began = time.monotonic()
    ledger = rounds.run(extent)
    cores = os.cpu_count() or 1
    machine = (
        f"{cores} cores, {platform.system()}, Python {platform.python_version()}, "
        f"{extent.rounds} rounds, {time.monotonic() - began:.0f} s, "
        f"{before:.1f} cores busy before."
    )
    flags = " --quick" if is_quick else ""
    meta = {"flags": flags, "machine": machine, "load": round(before, 1), "cores": cores}
    return {"meta": meta, "tables": ledger.tables, "notes": ledger.notes}


def busy_cores() -> float:
    """How many processors others use just now: the system's own load average is of minutes."""

    def used() -> float:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
        return (sum(map(int, fields)) - int(fields[3]) - int(fields[4])) / os.sysconf("SC_CLK_TCK")

    before, began = used(), time.monotonic()
    time.sleep(_LOOK_S)
    return (used() - before) / (time.monotonic() - began)


def prepare() -> int:
    """Install what is compared with; the exit code."""
    if not has_nginx():
        subprocess.run(["apt-get", "install", "-y", "--no-install-recommends", "nginx"], check=True)
    found = [peers.prepared(name) for name in peers.PEERS]
    found.append(environment(SPY, SPY))
    return 0 if all(found) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
