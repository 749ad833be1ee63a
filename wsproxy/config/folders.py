"""Where wsproxy keeps its files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from wsproxy.config.home import home_folder
from wsproxy.config.settings import Settings


def state_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """`$XDG_STATE_HOME/wsproxy`, else `~/.local/state/wsproxy`. It may not exist yet.

    A relative `XDG_STATE_HOME` is ignored (XDG Base Directory Specification). Raises
    `SettingsError` where there is no home folder.
    """
    base = Path(environment.get("XDG_STATE_HOME", ""))
    if not base.is_absolute():
        base = home_folder(environment) / ".local" / "state"
    return base / "wsproxy"


def trace_folder(settings: Settings, environment: Mapping[str, str] = os.environ) -> Path:
    """`trace_dir`, else `traces` in the state folder. It may not exist yet.

    Raises `SettingsError` where there is no home folder.
    """
    return settings.trace_dir or state_folder(environment) / "traces"
