"""A Dockerfile as its instructions, and its build stage run without Docker."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: What the build stage writes outside of its working folder.
ROOTS: Final = ("/build", "/opt/wsproxy", "/wheels")
TIMEOUT_S: Final = 300.0


@dataclass(frozen=True)
class Instruction:
    """`stage` counts from 1 with each FROM; ARG before it belongs to stage 0."""

    stage: int
    name: str
    value: str


def read(path: Path) -> list[Instruction]:
    """Comments and blank lines left out, continued lines joined."""
    lines = (line for line in path.read_text("utf-8").splitlines() if not line.startswith("#"))
    text = "\n".join(lines).replace("\\\n", " ")
    found: list[Instruction] = []
    stage = 0
    for line in filter(str.strip, text.splitlines()):
        name, _, value = line.strip().partition(" ")
        stage += name == "FROM"
        found.append(Instruction(stage, name, " ".join(value.split())))
    return found


def environment(instructions: Sequence[Instruction]) -> dict[str, str]:
    """ENV of the last stage."""
    last = instructions[-1].stage
    pairs = [i.value for i in instructions if i.stage == last and i.name == "ENV"]
    return dict(word.partition("=")[::2] for value in pairs for word in shlex.split(value))


def build(source: Path, root: Path) -> Path:
    """Run COPY and RUN of the build stage below `root`; the environment that it makes."""
    work = root / "src"
    work.mkdir(parents=True)
    (root / "bin").mkdir()
    (root / "bin" / "python").symlink_to(sys.executable)
    variables = {**os.environ, "PATH": f"{root / 'bin'}:{os.environ['PATH']}"}
    for instruction in read(source / "Dockerfile"):
        if instruction.stage == 1 and instruction.name == "COPY":
            _copy(instruction.value.split(), source, work)
        elif instruction.stage == 1 and instruction.name == "RUN":
            _run(instruction.value, root, work, variables)
    return root / "opt" / "wsproxy"


def _copy(words: Sequence[str], source: Path, work: Path) -> None:
    *patterns, to = words
    for pattern in patterns:
        for found in source.glob(pattern):
            if found.is_dir():
                shutil.copytree(found, work / to, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                (work / to).mkdir(parents=True, exist_ok=True)
                shutil.copy(found, work / to)


def _run(command: str, root: Path, work: Path, variables: Mapping[str, str]) -> None:
    words = [f"{root}{word}" if word.startswith(ROOTS) else word for word in command.split()]
    script = " ".join(words)
    subprocess.run(
        ["sh", "-euc", script], cwd=work, env=dict(variables), check=True, timeout=TIMEOUT_S
    )
