"""The table of settings as `config/wsproxy.toml` and as `docs/settings.md`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from textwrap import wrap
from typing import Any, Final

from wsproxy.config.settings import SETTINGS, Setting

WIDTH: Final = 98  # columns of the settings file, `# ` included

TOML_TOP: Final = """\
# Every setting of wsproxy with its default. Take the # away in front of a setting to change it.
#
# Flags win over environment variables (WSPROXY_LANES, WSPROXY_UPSTREAM, …), these over this file,
# and this file over the defaults. `wsproxy config show` tells what is in effect and from where.
# Durations are seconds or texts such as "250ms", "15s", "5min", "1h"; sizes are bytes or texts
# such as "64KiB", "15.5MiB", "200MB". A table is a prefix: `proxy` under [upstream] is the same
# as `upstream_proxy`, and `url` under [upstream] is `upstream` itself.
"""

MARKDOWN_TOP: Final = """\
# Settings

Flags win over environment variables, these over the TOML file (`--config FILE` or
`WSPROXY_CONFIG`), and that over the defaults. `wsproxy config show` prints what is in effect and
where each value came from; `wsproxy config check` only says whether it is right.

* The environment variable of a setting is its name in capitals after `WSPROXY_`
  (`WSPROXY_MAX_TURNS`); an empty one counts as absent.
* A setting without a flag of its own is set with `--set NAME=VALUE`, such as `--set max_turns=64`.
* In a flag and in the environment a value stands without quotes or brackets, and a list is words
  separated by commas: `WSPROXY_CHANGEABLE_FIELDS=metadata,stream`. TOML has its own rules:
  `changeable_fields = ["metadata", "stream"]`.
* In TOML a table is a prefix: `proxy` under `[upstream]` is `upstream_proxy`, and `url` under
  `[upstream]` is `upstream` itself.
* Durations are seconds or texts such as `"250ms"`, `"15s"`, `"5min"`, `"1h"`; sizes are bytes or
  texts such as `"64KiB"`, `"15.5MiB"`, `"200MB"`.
* An unknown or wrong setting is an error that names it. Settings are read at start; SIGHUP takes
  over some of them while turns run ([operations](operations.md#reload)).

[`config/wsproxy.toml`](../config/wsproxy.toml) holds all of them as comments. Both are written by
`python -m wsproxy.config`.
"""

TABLE_TOP: Final = "| setting | default | flag | what, and why |\n|---|---|---|---|\n"


def toml_page() -> str:
    """The settings file in which every setting is a comment."""
    return TOML_TOP + "".join(_toml_entry(about) for about in SETTINGS.values())


def markdown_page() -> str:
    """The reference of all settings."""
    return MARKDOWN_TOP + "".join(_markdown_entry(about) for about in SETTINGS.values())


def toml_line(about: Setting, value: Any) -> str:
    """`name = value`, on several lines where a list is long."""
    line = f"{about.name} = {about.kind.render(value)}"
    if len(line) <= WIDTH or not isinstance(value, tuple):
        return line
    items = "".join(f"    {about.kind.render((item,))[1:-1]},\n" for item in value)
    return f"{about.name} = [\n{items}]"


def _toml_entry(about: Setting) -> str:
    heading = [f"\n# ── {about.heading} ".ljust(WIDTH, "─")] if about.heading else []
    prose = _comment([about.help, about.reason, _may_be(about)])
    lines = (f"#{line}" for line in toml_line(about, about.default).splitlines())
    return "\n".join([*heading, "", *prose, *lines, ""])


def _comment(sentences: Iterable[str]) -> Iterator[str]:
    for sentence in filter(None, sentences):
        yield from (f"# {line}" for line in wrap(sentence, WIDTH - 2, break_on_hyphens=False))


def _markdown_entry(about: Setting) -> str:
    flag = f"`{about.flag}`" if about.flag else ""
    default = about.kind.render(about.default)
    why = f" *{about.reason}*" if about.reason else ""
    what = f"{about.help}{why} {_may_be(about)}"
    row = f"| `{about.name}` | `{default}` | {flag} | {what} |\n"
    if not about.heading:
        return row
    return f"\n## {about.heading}\n\n{TABLE_TOP}{row}"


def _may_be(about: Setting) -> str:
    return f"Expects {about.kind.expected}."
