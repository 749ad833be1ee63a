"""Commands and addresses as messages name them.

A command that is copied into a shell does what the message says; a token in a URL is not shown.
"""

from __future__ import annotations

import re
import shlex
from typing import Final

from wsproxy.config.settings import SETTINGS

#: In front of the path of another wsproxy, where that one wants a token (contract §8).
_TOKEN: Final = re.compile(r"(?<=/t/)[^/]+")
_HIDDEN: Final = "TOKEN"


def shown_url(url: str) -> str:
    """The URL for logs, traces and pages, without the token in it."""
    return _TOKEN.sub(_HIDDEN, url, count=1)


def is_shown_only(url: str) -> bool:
    """Whether it is a URL by `shown_url` that had a token: nobody can be reached there."""
    return f"/t/{_HIDDEN}" in url


def command_for(name: str, upstream: str) -> str:
    """`wsproxy NAME`, with `--upstream` where the upstream is not the default; "" is it, too."""
    if upstream in ("", SETTINGS["upstream"].default):
        return f"wsproxy {name}"
    return f"wsproxy {name} --upstream {shlex.quote(shown_url(upstream))}"
