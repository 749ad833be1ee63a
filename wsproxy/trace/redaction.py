"""Secrets that users, tools and models show by accident, taken out of what is kept.

In JSON a secret stands escaped (`\\nsk-…`, `sk\\u002d…`), so each string is read before it is
looked at; one that holds a secret is written anew, everything else stays as it is to the byte.
"""

from __future__ import annotations

import json
import re
from typing import Final

REDACTED: Final = "[redacted]"
#: Shapes that their issuers publish, so that scanners find them; and what names itself a secret.
SECRETS: Final = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?i:sk|rk|pk|gh[oprsu]|xox[abeprs]|glpat|npm|hf)[-_][A-Za-z0-9_-]{12,}"
    r"|github_pat_[A-Za-z0-9_]{20,}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])"
    r"|AIza[A-Za-z0-9_-]{30,}"
    r"|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"  # JWT (RFC 7519)
    r"|(?i:bearer|basic)\s+[A-Za-z0-9._~+/-]{12,}=*"
    r"|(?<=://)[^\s/@:]*:[^\s/@]+(?=@)"  # user and password of a URL
    r")"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[A-Za-z0-9+/=\s:,.-]*"
)
#: Lower-case parts without one of which, or an escape that may hide one, there is no secret: a
#: search for each takes 0.1 ms a MB, the pattern 100.
_SIGNS: Final = (
    *(b"sk-", b"sk_", b"rk-", b"rk_", b"pk-", b"pk_", b"gho", b"ghp", b"ghr", b"ghs", b"ghu"),
    *(b"xox", b"glpat", b"npm-", b"npm_", b"hf-", b"hf_", b"github_pat", b"akia", b"asia"),
    *(b"aiza", b"eyj", b"bearer", b"basic", b"://", b"private key", b"\\u00"),
)
#: A JSON string as it stands (RFC 8259 §7).
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)


def redacted(text: str) -> str:
    """The same without its secrets."""
    return SECRETS.sub(REDACTED, text)


def redacted_json(raw: bytes) -> bytes:
    """A JSON value without secrets in its strings, names of members included."""
    return _STRING.sub(_string, raw) if _may_hold_secrets(raw) else raw


def _may_hold_secrets(raw: bytes) -> bool:
    lower = raw.lower()
    return any(sign in lower for sign in _SIGNS)


def _string(found: re.Match[bytes]) -> bytes:
    raw = found[0]
    try:
        text = json.loads(raw)
    except ValueError:  # no JSON string after all: nothing of it is kept
        return json.dumps(REDACTED).encode()
    kept = redacted(text)
    return raw if kept == text else json.dumps(kept).encode()
