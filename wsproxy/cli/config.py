"""`wsproxy config`: what is in effect, where it came from, and whether it is right."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from wsproxy.cli.options import load_settings, settings_options
from wsproxy.config import SETTINGS, Loaded
from wsproxy.config.pages import toml_line


@click.group()
def config() -> None:
    """Show or check the settings."""


@config.command()
@click.option("--json", "as_json", is_flag=True, help="As one JSON object, for programs.")
@settings_options
def show(as_json: bool, **options: Any) -> None:
    """Print the settings in effect and where each came from.

    The output is a valid settings file.
    """
    loaded = load_settings(options)
    click.echo(_json(loaded) if as_json else "\n".join(_lines(loaded)))


@config.command()
@settings_options
def check(**options: Any) -> None:
    """Say whether the settings are right: exit code 0, or 2 with the first that is wrong."""
    from wsproxy.upstream.proxy import choose_proxy

    loaded = load_settings(options)
    choose_proxy(loaded.settings.upstream, loaded.settings.upstream_proxy, os.environ)
    changed = sum(source != "default" for source in loaded.sources.values())
    click.echo(f"settings are right: {changed} given, {len(SETTINGS) - changed} by default")


def _lines(loaded: Loaded) -> Iterator[str]:
    for about in SETTINGS.values():
        line = toml_line(about, getattr(loaded.settings, about.name))
        yield f"{line}  # {loaded.sources[about.name]}"


def _json(loaded: Loaded) -> str:
    shown = {
        name: {"value": _plain(getattr(loaded.settings, name)), "source": loaded.sources[name]}
        for name in SETTINGS
    }
    return json.dumps(shown, indent=2)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
