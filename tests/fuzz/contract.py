"""What every input must get: taken, or refused with a documented error, and no key told."""

from __future__ import annotations

from typing import Final

from tests.canary import SECRET

#: A credential that goes with an input; no output may hold it.
CANARY: Final = SECRET
#: Of what went wrong; inputs are kept whole anyway.
SHOWN_CHARS: Final = 2000


class BrokenContractError(AssertionError):
    """An input got what no input may get."""


def demand(is_so: bool, what: str, *shown: object) -> None:
    """Raise `BrokenContractError` with `what` and what is shown, unless it is so."""
    if not is_so:
        raise BrokenContractError(" ".join((what, *map(repr, shown)))[:SHOWN_CHARS])


def has_canary(said: str | bytes) -> bool:
    """Whether a key is among what was said."""
    return CANARY in (said.decode("latin-1") if isinstance(said, bytes) else said)
