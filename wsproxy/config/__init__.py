"""Settings: what they are, what they may be, and where each value came from.

`settings` declares them once; `kinds` and `addresses` read values; `loading` applies the order
flags > environment > TOML file > defaults; `pages` writes the documentation from the same table.
"""

from __future__ import annotations

from wsproxy.config.addresses import is_loopback, join_address, split_address
from wsproxy.config.commands import command_for, is_shown_only, shown_url
from wsproxy.config.errors import SettingsError
from wsproxy.config.folders import state_folder, trace_folder
from wsproxy.config.loading import Given, Loaded, load
from wsproxy.config.secret import Secret, read_token
from wsproxy.config.settings import SETTINGS, Setting, Settings

__all__ = [
    "SETTINGS",
    "Given",
    "Loaded",
    "Secret",
    "Setting",
    "Settings",
    "SettingsError",
    "command_for",
    "is_loopback",
    "is_shown_only",
    "join_address",
    "load",
    "read_token",
    "shown_url",
    "split_address",
    "state_folder",
    "trace_folder",
]
