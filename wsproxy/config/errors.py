"""What a wrong setting raises."""

from __future__ import annotations


class SettingsError(ValueError):
    """A setting that cannot be used; the program ends with exit code 2.

    `problem` names the setting, where it stands and what was expected; `advice` says what to do
    about it and may be empty.
    """

    def __init__(self, problem: str, advice: str = "") -> None:
        super().__init__(f"{problem}\n{advice}" if advice else problem)
        self.problem = problem
        self.advice = advice
