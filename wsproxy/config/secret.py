"""A text that must never be shown."""

from __future__ import annotations

import hashlib
import hmac
import re
from pathlib import Path
from shlex import quote
from typing import Final, NoReturn

from wsproxy.config.errors import SettingsError

#: It stands in a path: unreserved characters only (RFC 3986 §2.3), too many to be guessed.
TOKEN: Final = re.compile(r"[A-Za-z0-9._~-]{16,256}", re.ASCII)
TOKEN_FILE_MAX_BYTES: Final = 4096  # the token, and room for white space around it
MAKE_TOKEN: Final = "python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"


class Secret:
    """Shows as `Secret(…4f2a)`: the end of its SHA-256, enough to tell two of them apart."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself, for the one place that needs it."""
        return self._text

    def matches(self, candidate: str) -> bool:
        """Compare in constant time."""
        return hmac.compare_digest(self._text.encode(), candidate.encode(errors="surrogatepass"))

    def __repr__(self) -> str:
        return f"Secret(…{hashlib.sha256(self._text.encode()).hexdigest()[-4:]})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.matches(other._text)

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled or copied")


def read_token(path: Path) -> Secret:
    """The token in `token_file`, white space around it removed. Raises SettingsError."""
    try:
        with path.open("rb") as file:
            text = file.read(TOKEN_FILE_MAX_BYTES).decode("ascii", "replace").strip()
    except OSError as error:
        advice = f"make it with: {_making(path)}" if isinstance(error, FileNotFoundError) else ""
        raise SettingsError(
            f"token_file: cannot read {path}: {error.strerror}",
            advice or "name a file that this user may read",
        ) from None
    if TOKEN.fullmatch(text) is None:
        raise SettingsError(
            f"token_file: {path} must hold 16 to 256 letters, digits or - . _ ~ and nothing else",
            f"make one with: {_making(path)}",
        )
    return Secret(text)


def _making(path: Path) -> str:
    """The shell command that writes a new token there, for its owner alone."""
    file = quote(str(path))
    return f"{MAKE_TOKEN} > {file} && chmod 600 {file}"
