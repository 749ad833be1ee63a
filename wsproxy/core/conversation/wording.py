"""A request's items in the client's wording, held against what a checkpoint has.

Rules of this file
------------------
1. Position by position: the client's own items exactly, the model's by `core/api/items.py`.
2. Items whose bytes are those of a known checkpoint's input are never parsed: they are that
   checkpoint's items, and echoes of what its items were echoes of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from wsproxy.core.api.canonical import DIGEST_BYTES
from wsproxy.core.api.items import Held, held_type, is_echo, is_emptied_reasoning
from wsproxy.core.conversation.checkpoint import Checkpoint
from wsproxy.core.conversation.transcript import Transcript
from wsproxy.core.ids import Digest


@dataclass(frozen=True, slots=True)
class Difference:
    """Where a request first differs from what was expected: item index and type.

    `is_omitted_reasoning`: reasoning was expected there, and it, or all proof of it, is left out.
    """

    index: int
    type: str
    is_omitted_reasoning: bool = False


class Wording:
    """Compares one request with checkpoints; `known` is one whose input bytes it starts with."""

    def __init__(
        self, transcript: Transcript, known: Checkpoint | None, *, skips_reasoning: bool
    ) -> None:
        """`skips_reasoning`: what the client left out of the model's reasoning is no difference."""
        self._transcript = transcript
        self._known = known
        self._skips_reasoning = skips_reasoning
        start = 0 if known is None else known.count
        new = [transcript.item(index).exact for index in range(start, len(transcript))]
        self._opaque = {start + at for at, digest in enumerate(new) if digest is None}
        before = b"" if known is None else known.exact
        self._exact = before + b"".join(digest or bytes(DIGEST_BYTES) for digest in new)

    @property
    def exact(self) -> bytes | None:
        """The exact digests of all items in a row; None if an item is opaque."""
        return None if self._opaque else self._exact

    def follows(self, checkpoint: Checkpoint, used: int) -> tuple[Held | None, ...] | None:
        """Whether the first `used` items are the checkpoint's: then what the model made of them."""
        if used != checkpoint.length and not self._skips_reasoning:
            return None
        held, position = self._compare(checkpoint, used)
        return tuple(held) if position == checkpoint.length and len(held) == used else None

    def difference(self, checkpoint: Checkpoint) -> Difference | None:
        """Where the request leaves the checkpoint's items; None if it ends before it does."""
        held, position = self._compare(checkpoint, len(self._transcript))
        at = len(held)
        if at == len(self._transcript):
            return None
        type_ = self._transcript.item(at).type or "opaque"
        return Difference(at, type_, self._is_omission(checkpoint, position, at))

    def _is_omission(self, checkpoint: Checkpoint, position: int, at: int) -> bool:
        """Whether reasoning was expected, and what stands there is its rest or comes after it."""
        expected = checkpoint.held[position] if position < checkpoint.length else None
        if not _is_reasoning(expected):
            return False
        if self._transcript.item(at).type != "reasoning" or self._is_emptied(expected, at):
            return True
        later = takewhile(_is_reasoning, checkpoint.held[position + 1 :])
        return any(held is not None and self._is_echo(held, at) for held in later)

    def _compare(self, checkpoint: Checkpoint, limit: int) -> tuple[list[Held | None], int]:
        """Go along both while they are the same, over `limit` items of the request at most.

        Gives what the model made of the items gone over, and the checkpoint's position reached.
        """
        held: list[Held | None] = []
        position = 0
        if limit >= checkpoint.count and self._starts_with(checkpoint):
            position = checkpoint.count
            held += checkpoint.held[:position]
        for expected in checkpoint.held[position:]:
            if len(held) < limit and self._is_same(checkpoint, position, expected, len(held)):
                held.append(expected)
            elif not (self._skips_reasoning and _is_reasoning(expected)):
                break
            position += 1
        return held, position

    def _starts_with(self, checkpoint: Checkpoint) -> bool:
        """Whether the checkpoint's input stands at the start, the same values throughout."""
        return self._exact.startswith(checkpoint.exact) and all(
            at >= checkpoint.count for at in self._opaque
        )

    def _is_same(
        self, checkpoint: Checkpoint, position: int, expected: Held | None, at: int
    ) -> bool:
        if at in self._opaque:
            return False
        exact = checkpoint.exact_at(position)
        if exact is not None and exact == self._exact_at(at):
            return True
        if expected is not None:
            return self._is_echo(expected, at)
        # A string input is kept as the mark that every spelling of such a message has in common.
        item = self._transcript.item(at)
        return item.role == "user" and exact == item.identity

    def _is_echo(self, expected: Held, at: int) -> bool:
        known = self._known
        is_stored = self._transcript.is_stored
        if (
            known is not None
            and at < known.count
            and known.is_stored is is_stored
            and known.track.held[at] == expected
        ):
            return True
        return is_echo(expected, self._transcript.item(at), is_stored=is_stored) or (
            self._skips_reasoning and self._is_emptied(expected, at)
        )

    def _is_emptied(self, expected: Held | None, at: int) -> bool:
        return expected is not None and is_emptied_reasoning(expected, self._transcript.item(at))

    def _exact_at(self, at: int) -> Digest:
        return Digest(self._exact[at * DIGEST_BYTES : (at + 1) * DIGEST_BYTES])


def _is_reasoning(held: Held | None) -> bool:
    return held is not None and held_type(held) == "reasoning"


def likeliest(
    wording: Wording, checkpoints: Sequence[Checkpoint]
) -> tuple[Difference | None, bool]:
    """Of all that the request may have been meant to continue, the one it shares most with.

    Gives where it differs, and whether it does not differ but ends too early.
    """
    best: Difference | None = None
    for checkpoint in checkpoints:
        found = wording.difference(checkpoint)
        if found is None:
            return None, True
        if found.index > (best.index if best is not None else 0):
            best = found
    return best, False
