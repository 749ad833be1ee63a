"""The user's own folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from wsproxy.config.errors import SettingsError


def home_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """`HOME`, else what the account says; an empty `HOME` counts as none. Raises SettingsError.

    Python's own `Path.home()` takes an empty `HOME` for the root folder.
    """
    if os.name != "posix":
        return Path.home()
    home = environment.get("HOME") or _of_account()
    if not home:
        raise SettingsError(
            "there is no home folder: HOME is empty and the account has none",
            "set HOME or XDG_STATE_HOME, or name a folder in trace_dir",
        )
    return Path(home)


def home_path(text: str) -> Path:
    """The path with a leading `~` replaced; as it is where nobody has that name."""
    if text == "~" or text.startswith("~/"):
        return home_folder() / text[2:]
    return Path(os.path.expanduser(text))  # Path.expanduser raises there


def _of_account() -> str:
    import pwd  # there is none on Windows

    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return ""
