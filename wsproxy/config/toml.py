"""The settings file: from TOML to a flat list of entries that know where they stand."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from wsproxy.config.errors import SettingsError

MAX_FILE_BYTES: Final = 1024 * 1024  # a hundred times the file that lists every setting
#: `lanes = on`, `listen = [localhost:1]`, `head_timeout_s = 15s`: no value of TOML begins so.
BARE_WORD: Final = re.compile(
    r"=\s*\[?\s*(?:(?!(?:true|false|inf|nan)\b)[A-Za-z~/]|[0-9][0-9_.]*[A-Za-z:.])"
)
POSITION: Final = re.compile(r" \(at line (\d+), column \d+\)$")


@dataclass(frozen=True, slots=True)
class Entry:
    """One value of the file; `path` is its table's names and its own."""

    path: tuple[str, ...]
    value: object
    where: str  # "file PATH:LINE"

    @property
    def dotted(self) -> str:
        return ".".join(self.path)


def read_entries(path: Path) -> list[Entry]:
    """All values of the file in their order. Raises SettingsError with file and line."""
    text = _read_text(path)
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also numbers without end
        raise _syntax_error(path, text, error) from None
    return [
        Entry(keys, value, f"file {path}{_line_of(keys[-1], text)}")
        for keys, value in _flatten(document, ())
    ]


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or str(error)
        advice = "check the path given with --config or WSPROXY_CONFIG, and who may read it"
        raise SettingsError(f"file {path}: cannot be read: {problem}", advice) from None
    if len(raw) > MAX_FILE_BYTES:
        raise SettingsError(f"file {path}: over 1 MiB, which no settings file is")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise SettingsError(f"file {path}:{line}: not UTF-8", "save it as UTF-8") from None


def _syntax_error(path: Path, text: str, error: Exception) -> SettingsError:
    message = str(error) if isinstance(error, ValueError) else "nested too deeply"
    position = POSITION.search(message)
    line = int(position[1]) if position else text.count("\n") + 1
    what = POSITION.sub("", message).removesuffix(" (at end of document)")
    return SettingsError(f"file {path}:{line}: not TOML: {what}", _advice(text, line))


def _advice(text: str, line: int) -> str:
    """tomllib calls a bare word an invalid value, as it calls much else."""
    lines = text.splitlines()
    written = lines[line - 1] if line <= len(lines) else ""
    return "strings need quotes in TOML" if BARE_WORD.search(written) else ""


def _flatten(
    table: dict[str, Any], above: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], object]]:
    for key, value in table.items():
        if isinstance(value, dict) and value:
            yield from _flatten(value, (*above, key))
        else:
            yield (*above, key), value


def _line_of(key: str, text: str) -> str:
    """`:LINE` of the only line that sets this key, else nothing: tomllib keeps no positions."""
    pattern = rf"^[ \t]*(?:[\w.\"'-]+\.)?[\"']?{re.escape(key)}[\"']?[ \t]*="
    found = list(re.finditer(pattern, text, re.MULTILINE))
    return f":{text.count(chr(10), 0, found[0].start()) + 1}" if len(found) == 1 else ""
