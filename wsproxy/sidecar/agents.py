"""What a child is told so that its agent uses the proxy: environment, and Codex's own flags."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Final

#: The SDKs and most agents read the first, older ones (openai-python 0.x, LangChain) the second.
BASE_URL_VARIABLES: Final = ("OPENAI_BASE_URL", "OPENAI_API_BASE")
#: Both spellings are read; where only one is set, some programs look at the other.
NO_PROXY_VARIABLES: Final = ("NO_PROXY", "no_proxy")
LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")

_CODEX: Final = frozenset({"codex", "codex.exe", "codex.cmd", "codex.js"})
_RUNNERS: Final = frozenset({"npx", "bunx", "npx.cmd", "bunx.exe"})
_CODEX_PACKAGE: Final = "@openai/codex"


def child_environment(base_url: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The child's environment: ours, with the base URL, and loopback past any HTTP proxy."""
    told = dict(environment)
    for name in BASE_URL_VARIABLES:
        told[name] = base_url
    for name in NO_PROXY_VARIABLES:
        told[name] = _with_loopback(_no_proxy(environment))
    return told


def child_command(
    command: Sequence[str], base_url: str, environment: Mapping[str, str]
) -> list[str]:
    """The command, with overrides of its configuration right behind its name if it is Codex.

    They stand first, so that what the user gives on the command line wins.
    """
    at = _codex_at(command)
    if at is None:
        return list(command)
    flags = [part for line in codex_overrides(base_url, environment) for part in ("-c", line)]
    return [*command[: at + 1], *flags, *command[at + 1 :]]


def codex_overrides(base_url: str, environment: Mapping[str, str]) -> list[str]:
    """`-c` values for Codex CLI 0.169, which reads no base URL from the environment.

    A provider of our own, with Codex's login where there is one, else with the environment's key.
    Its built-in provider moved to us (`openai_base_url`) would do, but adds a member to each item
    it sends back (`internal_chat_message_metadata_passthrough`), so no turn could be continued.
    """
    has_key = bool(environment.get("OPENAI_API_KEY")) and not _is_logged_in(environment)
    login = 'env_key="OPENAI_API_KEY"' if has_key else "requires_openai_auth=true"
    about = ('name="wsproxy"', f"base_url={json.dumps(base_url)}", 'wire_api="responses"', login)
    return ['model_provider="wsproxy"', *(f"model_providers.wsproxy.{line}" for line in about)]


def _codex_at(command: Sequence[str]) -> int | None:
    first = PurePath(command[0]).name.lower()
    if first in _CODEX:
        return 0
    if first not in _RUNNERS:
        return None
    named = next((at for at, word in enumerate(command) if at and not word.startswith("-")), None)
    if named is None:
        return None
    package = command[named]
    is_codex = package == "codex" or package == _CODEX_PACKAGE
    return named if is_codex or package.startswith(f"{_CODEX_PACKAGE}@") else None


def _is_logged_in(environment: Mapping[str, str]) -> bool:
    home = environment.get("CODEX_HOME")
    folder = Path(home) if home else Path(environment.get("HOME", "")) / ".codex"
    return (folder / "auth.json").is_file()


def _no_proxy(environment: Mapping[str, str]) -> list[str]:
    entries: dict[str, None] = {}
    for name in NO_PROXY_VARIABLES:
        for entry in environment.get(name, "").split(","):
            if entry.strip():
                entries[entry.strip()] = None
    return list(entries)


def _with_loopback(entries: Sequence[str]) -> str:
    missing = [] if "*" in entries else [host for host in LOOPBACK if host not in entries]
    return ",".join([*entries, *missing])
