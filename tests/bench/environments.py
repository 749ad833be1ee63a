"""Programs that are compared with or looked with: from the registries, a folder each."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path
from typing import Final

from tests.bench.children import CACHE

_INSTALL_TIMEOUT_S: Final = 600


def environment(name: str, requirement: str) -> Path | None:
    """Its folder of programs, installed where it is not; None where it cannot be.

    A requirement that begins with `npm:` is a package of Node's.
    """
    folder = CACHE / name.lower().replace(" ", "-")
    stamp = folder / "ready"
    is_node = requirement.startswith("npm:")
    if not stamp.exists():
        try:
            if is_node:
                package = requirement.removeprefix("npm:")
                command = ["npm", "install", "--silent", "--prefix", str(folder), package]
            else:
                venv.create(folder, with_pip=True, clear=True)
                python = str(folder / "bin" / "python")
                command = [python, "-m", "pip", "-qq", "install", requirement]
            subprocess.run(command, check=True, timeout=_INSTALL_TIMEOUT_S)
        except (OSError, subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            print(f"bench: {name} is left out: {error}", file=sys.stderr)
            return None
        stamp.touch()
    return folder / ("node_modules/.bin" if is_node else "bin")
