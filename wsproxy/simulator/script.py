"""What one request orders of the model: `sim.*` metadata, a marker in user text, the model name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final

from wsproxy.simulator.errors import ApiError

#: `[sim tool_calls=20 parallel=2]` anywhere in a user message.
MARKER: Final = re.compile(r"\[sim ([^\]\n]{1,400})\]")
_PAIR: Final = re.compile(r"([a-z_]+)=([^\s,]+)")
#: `sim-tools-20`, `sim-tools-20-text-400`
_MODEL: Final = re.compile(r"^sim((?:-[a-z_]+-[A-Za-z0-9_.]+)+)$")
_ALIASES: Final = {"tools": "tool_calls", "text": "text_tokens", "pace": "tokens_per_s"}


@dataclass(frozen=True, slots=True)
class Script:
    """One request's orders; the defaults leave the model to itself."""

    tool_calls: int = -1  # calls in the loop since the last user message; -1 = by the user's words
    parallel: int = 1  # calls in one response
    text_tokens: int = 0  # 0 = a short answer of its own choice
    reasoning: str = ""  # "encrypted" or "plain"
    custom_tool: bool = False
    tokens_per_s: float = 0.0
    think_ms: float = 0.0
    fail: str = ""  # "failed", "incomplete", CODE, "after_created:CODE"
    items: str = ""  # further output types, comma or plus separated
    argument_bytes: int = 0  # pad the first string argument of every call to that size


def orders_in_text(text: str) -> dict[str, str]:
    """Orders of every marker in one user text, later ones winning."""
    found: dict[str, str] = {}
    for marker in MARKER.finditer(text):
        found.update(_PAIR.findall(marker[1]))
    return found


def orders_in_model(model: str) -> dict[str, str]:
    """Orders in a model name such as `sim-tools-20`."""
    match = _MODEL.match(model)
    if match is None:
        return {}
    words = match[1][1:].split("-")
    return {
        _ALIASES.get(name, name): value for name, value in zip(words[::2], words[1::2], strict=True)
    }


def orders_in_metadata(metadata: object) -> dict[str, str]:
    """Orders in the members of `metadata` that begin with `sim.`."""
    if not isinstance(metadata, dict):
        return {}
    return {
        name[4:]: value
        for name, value in metadata.items()
        if name.startswith("sim.") and isinstance(value, str)
    }


def read_script(model: str, markers: Mapping[str, str], metadata: object) -> Script:
    """The script in force: metadata over markers over model name; nonsense counts as absent.

    Raises ApiError for a marker's name that is no order: a marker is typed by a person.
    """
    orders = {**orders_in_model(model), **markers, **orders_in_metadata(metadata)}
    if not orders:
        return _DEFAULT
    _refuse_unknown(markers)
    known: dict[str, object] = {}
    for field in fields(Script):
        if field.name in orders:
            value = _converted(str(field.type), orders[field.name])
            if value is not None:
                known[field.name] = value
    return Script(**known)  # type: ignore[arg-type]


def _refuse_unknown(markers: Mapping[str, str]) -> None:
    names = [field.name for field in fields(Script)]
    for name in markers:
        if name not in names:
            told = f"[sim …] knows no order {name!r}: choose from {', '.join(names)}."
            raise ApiError(told, code="unknown_order")


def _converted(kind: str, text: str) -> object:
    try:
        if kind == "int":
            return int(text)
        if kind == "float":
            return float(text)
    except ValueError:
        return None
    if kind == "bool":
        return text.lower() in {"1", "true", "yes", "on"}
    return text


_DEFAULT: Final = Script()
