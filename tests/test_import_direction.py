"""Who may import whom: the table of docs/architecture.md, held against every import there is."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent
PACKAGE: Final = ROOT / "wsproxy"
EVERYTHING: Final = frozenset({"*"})


@dataclass(frozen=True)
class Place:
    """`parts`: what of wsproxy it may import; `libraries`: what from outside, "*" for any."""

    parts: frozenset[str]
    libraries: frozenset[str] = EVERYTHING


def place(*parts: str, libraries: str = "*") -> Place:
    return Place(frozenset(parts), frozenset(libraries.split()))


PLACES: Final = {
    "core": place("core", libraries="msgspec h11 wsproto lru"),
    "ports": place("core", libraries=""),
    "reading": place("core", "ports", libraries="lru"),
    "answering": place("core", "ports", libraries=""),
    "driver": place("core", "ports", "reading", "answering", "backlog", "pulse"),
    "backlog": place("core", "ports"),
    "pulse": place(libraries=""),
    "config": place("config", libraries=""),
    "logs": place("logs", libraries="structlog"),
    "downstream": place(
        *("downstream", "core", "ports", "reading", "answering", "driver", "config", "logs")
    ),
    "upstream": place("upstream", "core", "ports", "config", "logs"),
    "terminal": place("terminal", "logs", libraries="rich"),
    "trace": place("trace", "core", "config", "logs", "terminal"),
    "simulator": place("simulator", libraries="h11 wsproto click zstandard"),
    "demo": place("demo", libraries="openai rich"),
    "metrics": place("metrics", "core", libraries="msgspec prometheus_client"),
    "options": place("config", "core", "downstream", "driver", "reading", "upstream"),
    "daemon": place(
        "options",
        *("core", "ports", "reading", "driver", "config", "logs", "downstream", "upstream"),
        *("trace", "metrics"),
    ),
    "systemd": place(libraries=""),
    "reloading": place("config", "daemon", "logs", "options"),
    "greeting": place("config", "downstream", "options"),
    "serving": place("config", "daemon", "downstream", "greeting", "logs", "reloading", "systemd"),
    "console": place(
        *("console", "config", "core", "metrics", "terminal"), libraries="msgspec rich"
    ),
    "sidecar": place(
        "sidecar", "config", "console", "daemon", "downstream", "logs", "metrics", "options"
    ),
    "doctor": place("doctor", "config", "console", "core", "logs", "ports", "trace", "upstream"),
    "cli": place("*"),
    "__main__": place("cli"),
    "__init__": place(libraries=""),
}

#: The core decides; what waits, reads a clock, draws lots or logs lives elsewhere.
NOT_IN_CORE: Final = frozenset(
    {
        # Waiting
        *("asyncio", "concurrent", "multiprocessing", "threading"),
        *("select", "selectors", "signal", "socket", "ssl", "subprocess", "urllib.request"),
        # The world outside
        *("datetime", "time", "random", "secrets"),
        *("logging", "os", "pathlib", "shutil", "tempfile"),
    }
)


def place_of(path: Path) -> str:
    """The first name below wsproxy/: `core`, `driver`, …"""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(tree: ast.AST) -> Iterator[str]:
    """Every imported module by its dotted name, wherever the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            is_root = node.module == "wsproxy"
            names = [f"wsproxy.{alias.name}" for alias in node.names]
            yield from names if is_root else [node.module or ""]


def offence(here: str, module: str) -> str | None:
    """Why this place may not import that module, or None."""
    top, _, below = module.partition(".")
    allowed = PLACES[here]
    if top == "wsproxy":
        part = below.partition(".")[0]
        is_fine = part in allowed.parts or "*" in allowed.parts or part == ""
        return None if is_fine else f"{here} may not know wsproxy.{part}"
    if here == "core" and (top in NOT_IN_CORE or module in NOT_IN_CORE):
        return f"core decides and never waits: no {module}"
    if top in sys.stdlib_module_names or top in allowed.libraries or "*" in allowed.libraries:
        return None
    return f"{here} may not use {top}"


MODULES: Final = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_table_of_the_architecture(path: Path) -> None:
    here = place_of(path)
    assert here in PLACES, f"docs/architecture.md has no line for {here}"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    offences = [why for module in imports_of(tree) if (why := offence(here, module))]
    assert offences == []


@pytest.mark.parametrize(
    ("here", "module"),
    [
        ("core", "asyncio"),
        ("core", "time"),
        ("core", "aiohttp"),
        ("core", "wsproxy.logs"),
        ("ports", "wsproxy.driver"),
        ("downstream", "wsproxy.upstream.dialer"),
        ("upstream", "wsproxy.downstream"),
        ("simulator", "wsproxy.core.ids"),
        ("simulator", "aiohttp"),
        ("demo", "wsproxy.driver"),
        ("daemon", "wsproxy.cli.main"),
        ("metrics", "wsproxy.daemon"),
        ("console", "wsproxy.daemon"),
    ],
)
def test_a_wrong_import_would_be_found(here: str, module: str) -> None:
    assert offence(here, module) is not None


def test_every_place_stands_in_the_architecture() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    described = {line.split("`")[1].strip("/").removesuffix(".py") for line in rows_of(page)}
    assert described <= set(PLACES)


def rows_of(page: str) -> Iterator[str]:
    """The rows of the table whose last column is *may import*."""
    table = page.split("| may import |", 1)[1].split("\n\n", 1)[0]
    return (line for line in table.splitlines() if line.startswith("| `"))
