"""Programs that are compared with or looked with: from the registry, an environment each."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path
from typing import Final

from tests.bench.children import CACHE

_INSTALL_TIMEOUT_S: Final = 600


def environment(name: str, requirement: str) -> Path | None:
    """Its folder of programs, installed where it is not; None where it cannot be."""
    folder = CACHE / name.lower()
    stamp = folder / "ready"
    if not stamp.exists():
        venv.create(folder, with_pip=True, clear=True)
        command = [str(folder / "bin" / "python"), "-m", "pip", "-qq", "install", requirement]
        try:
            subprocess.run(command, check=True, timeout=_INSTALL_TIMEOUT_S)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            print(f"bench: {name} is left out: {error}", file=sys.stderr)
            return None
        stamp.touch()
    return folder / "bin"
