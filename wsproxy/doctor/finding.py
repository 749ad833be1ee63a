"""What one check found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    """The value is what is printed, and what `--json` holds."""

    OK = "ok"
    WARN = "warn"  # works, but not as well as it could
    FAIL = "fail"  # turns will fail, or go over HTTPS
    LEFT_OUT = "left out"  # cannot be told: no key, or an earlier check failed


@dataclass(frozen=True, slots=True)
class Finding:
    """One line. `advice` says what to do where something is to be done."""

    check: str
    verdict: Verdict
    text: str
    advice: str = ""

    def as_json(self) -> dict[str, str]:
        """For `--json`."""
        return {
            "check": self.check,
            "verdict": self.verdict.value,
            "text": self.text,
            "advice": self.advice,
        }


def ok(check: str, text: str) -> Finding:
    """All is well."""
    return Finding(check, Verdict.OK, text)


def warn(check: str, text: str, advice: str) -> Finding:
    """Works, but."""
    return Finding(check, Verdict.WARN, text, advice)


def fail(check: str, text: str, advice: str) -> Finding:
    """Does not work."""
    return Finding(check, Verdict.FAIL, text, advice)


def left_out(check: str, why: str) -> Finding:
    """Cannot be told."""
    return Finding(check, Verdict.LEFT_OUT, why)
