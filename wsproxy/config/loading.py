"""Flags over environment over TOML file over defaults, and the memory of which it was."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from wsproxy.config.checks import check_together
from wsproxy.config.errors import SettingsError
from wsproxy.config.home import home_path
from wsproxy.config.kinds import brief
from wsproxy.config.settings import SETTINGS, Settings
from wsproxy.config.toml import Entry, read_entries

PREFIX: Final = "WSPROXY_"
FILE_VARIABLE: Final = "WSPROXY_CONFIG"  # names the TOML file where --config is not given
#: Names that a TOML table makes and that are written shorter elsewhere.
ALIASES: Final = {"upstream_url": "upstream"}
#: What a Kubernetes Service named wsproxy adds to each pod of its namespace (its documentation:
#: Service, "Environment variables"): nobody wrote them, so they are nobody's mistake.
SERVICE_LINK: Final = re.compile(
    r"WSPROXY_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?"
    r"|PORT_[0-9]+_(TCP|UDP|SCTP)(_PROTO|_PORT|_ADDR)?)"
)
#: And under a name that a person might write too, its URL; a person would write a number.
LINK_VARIABLE: Final = "WSPROXY_PORT"
LINK_SCHEMES: Final = ("tcp://", "udp://", "sctp://")
#: What TOML puts around a text or a list, and a flag or an environment variable does not.
MARKS: Final = (
    ('"', '"', "leave the quotes out"),
    ("'", "'", "leave the quotes out"),
    ("[", "]", "leave the brackets and quotes out: a list is words separated by commas"),
)


@dataclass(frozen=True, slots=True)
class Given:
    """A value that a flag gives: text as it was typed, or a list or switch that click made.

    `option` is how it was written, for messages: `--lanes`, `--set max_turns`.
    """

    name: str
    value: object
    option: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, and for each name `default`, `file PATH`, `environment NAME` or `flag --x`."""

    settings: Settings
    sources: Mapping[str, str]


def load(
    flags: Iterable[Given] = (),
    environment: Mapping[str, str] = os.environ,
    file: Path | None = None,
) -> Loaded:
    """Read, check and join all settings. Raises SettingsError for the first wrong one.

    Without `file`, `WSPROXY_CONFIG` may name it.
    """
    named = environment.get(FILE_VARIABLE)
    path = file or (home_path(named) if named else None)
    values: dict[str, Any] = {}
    sources = dict.fromkeys(SETTINGS, "default")
    layers = (_from_file(path), _from_environment(environment), _from_flags(flags))
    for layer in layers:
        for name, (value, source) in layer.items():
            values[name] = value
            sources[name] = source
    settings = Settings(**values)
    check_together(settings, sources)
    return Loaded(settings, sources)


Layer = dict[str, tuple[Any, str]]


def _from_file(path: Path | None) -> Layer:
    layer: Layer = {}
    for entry in read_entries(path) if path else ():
        name = _known(_flat(entry), entry.where, entry.dotted)
        _refuse_second(layer, name, entry.where)
        layer[name] = (_read(name, entry.value, entry.where, is_text=False), f"file {path}")
    return layer


def _from_environment(environment: Mapping[str, str]) -> Layer:
    return {
        name: (_read(name, text, where, is_text=True), where)
        for name, text, where in _variables(environment)
    }


def _from_flags(flags: Iterable[Given]) -> Layer:
    layer: Layer = {}
    for given in flags:
        where = f"flag {given.option}"
        name = _known(_unalias(given.name.replace(".", "_").replace("-", "_")), where, given.name)
        _refuse_second(layer, name, where)
        is_text = isinstance(given.value, str)
        layer[name] = (_read(name, given.value, where, is_text=is_text), where)
    return layer


def _variables(environment: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Name, text and place of each setting in the environment; an empty one counts as absent."""
    by_variable = {about.variable: about.name for about in SETTINGS.values()}
    for variable, text in environment.items():
        if not variable.startswith(PREFIX) or variable == FILE_VARIABLE:
            continue
        if variable not in by_variable:
            if _is_service_link(variable, text):
                continue
            advice = _suggest(variable, [*by_variable, FILE_VARIABLE])
            shown = ascii(variable)[1:-1]
            raise SettingsError(f"environment {shown}: there is no such setting", advice)
        if text:
            yield by_variable[variable], text, f"environment {variable}"


def _is_service_link(variable: str, text: str) -> bool:
    if variable == LINK_VARIABLE:
        return text.startswith(LINK_SCHEMES)
    return SERVICE_LINK.fullmatch(variable) is not None


def _flat(entry: Entry) -> str:
    return _unalias("_".join(entry.path))


def _unalias(name: str) -> str:
    return ALIASES.get(name, name)


def _known(name: str, where: str, written: str) -> str:
    if name in SETTINGS:
        return name
    raise SettingsError(f"{where}: there is no setting {written!a}", _suggest(name, SETTINGS))


def _refuse_second(layer: Layer, name: str, where: str) -> None:
    if name in layer:
        raise SettingsError(f"{where}: {name} is given twice", "leave one of them out")


def _read(name: str, value: object, where: str, *, is_text: bool) -> Any:
    kind = SETTINGS[name].kind
    if is_text:
        _refuse_marks(name, str(value).strip(), where)
    try:
        return kind.parse_text(str(value)) if is_text else kind.parse(value)
    except ValueError as error:
        advice = _suggest(str(value), kind.choices) if kind.choices else kind.advice
        raise SettingsError(f"{where}: {name}: {error}", advice) from None


def _refuse_marks(name: str, text: str, where: str) -> None:
    """A path with quotes around it would be the path of another file, and nobody would know."""
    for mark, end, advice in MARKS:
        if len(text) > 1 and text.startswith(mark) and text.endswith(end):
            raise SettingsError(f"{where}: {name}: {brief(text)} is written as in TOML", advice)


def _suggest(word: str, words: Iterable[str]) -> str:
    close = get_close_matches(word[:100], list(words), n=1)
    if close:
        return f"did you mean {close[0]}?"
    return "`wsproxy config show` lists all settings"
