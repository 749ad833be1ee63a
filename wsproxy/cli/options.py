"""The options of `wsproxy serve` and its kin, made from the table of settings."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from wsproxy.config import SETTINGS, Given, Loaded, Setting, load

#: What other programs call an option of ours.
USUAL_NAMES: Final = {
    **dict.fromkeys(("--port", "-p", "--host", "-H", "--bind", "-b", "--address"), "--listen"),
    **dict.fromkeys(("--url", "--base-url", "--api-base", "--target", "--backend"), "--upstream"),
    **dict.fromkeys(("--verbose", "-v", "--debug", "--quiet", "-q"), "--log-level"),
    **dict.fromkeys(("--token", "--auth"), "--token-file"),
}

F = TypeVar("F", bound=Callable[..., Any])

#: What stands for the value of an option in its help, where it is no choice and no duration.
PLACEHOLDERS: Final = {"listen": "HOST:PORT", "upstream": "URL", "token_file": "FILE"}


class SettingsCommand(click.Command):
    """A command with `settings_options` that knows what a mistyped one may have meant."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            usual = USUAL_NAMES.get(error.option_name)
            known = {name for parameter in self.params for name in parameter.opts}
            if usual not in known:
                raise
            told = f"{error.message}\ndid you mean {usual}?"
            raise click.UsageError(told, error.ctx) from None


def settings_options(command: F) -> F:
    """Decorate a command that takes `**options` and hands them to `load_settings`."""
    return settings_options_but()(command)


def settings_options_but(**defaults: str) -> Callable[[F], F]:
    """As `settings_options`, for a command of which these defaults are true instead."""

    def decorate(command: F) -> F:
        for declare in reversed([*_flags(defaults), *_general()]):
            command = declare(command)
        return command

    return decorate


def load_settings(options: dict[str, Any], environment: Mapping[str, str] = os.environ) -> Loaded:
    """Read all settings with these options on top. Raises SettingsError."""
    file: Path | None = options["config_file"]
    return load(_given(options), environment, file)


def _flags(defaults: Mapping[str, str]) -> Iterator[Callable[[F], F]]:
    for about in SETTINGS.values():
        if about.flag:
            yield _flag(about, defaults.get(about.name, about.default))


def _flag(about: Setting, default: Any) -> Callable[[F], F]:
    if isinstance(about.default, bool):
        return click.option(about.flag, about.name, is_flag=True, default=None, help=about.help)
    is_list = isinstance(about.default, tuple)
    again = " May be given several times." if is_list else ""
    return click.option(
        about.flag,
        about.name,
        metavar="|".join(about.kind.choices) or PLACEHOLDERS.get(about.name, "SECONDS"),
        multiple=is_list,
        help=f"{about.help}{again}{_default(default)}",
    )


def _general() -> Iterator[Callable[[F], F]]:
    yield click.option(
        "--config",
        "config_file",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="TOML file of settings; WSPROXY_CONFIG names it too.",
    )
    yield click.option(
        "--set",
        "assignments",
        metavar="NAME=VALUE",
        multiple=True,
        help="Any other setting, see docs/settings.md, written as in the environment: no quotes, "
        "lists with commas (`--set changeable_fields=metadata,stream`). "
        "May be given several times.",
    )


def _given(options: dict[str, Any]) -> Iterator[Given]:
    for about in SETTINGS.values():
        value = options.get(about.name)
        if value is not None and value != ():
            yield Given(about.name, value, about.flag)
    for assignment in options["assignments"]:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise click.UsageError(f"--set {assignment}: no value\nwrite --set NAME=VALUE")
        yield Given(name.strip(), text.strip(), f"--set {name.strip()}")


def _default(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"  [default: {value:g}]"
    text = value if isinstance(value, str) else ", ".join(value)
    return f"  [default: {text}]"
