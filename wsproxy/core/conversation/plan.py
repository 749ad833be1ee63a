"""What a turn continues, and why not. Where it then runs is the pool's question.

In doubt the input goes in full: a wrong delta makes the model forget or read things twice, a
missed one only costs time.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from wsproxy.core.api.items import Pairing
from wsproxy.core.conversation.fields import changed
from wsproxy.core.conversation.history import Checkpoint, Reading
from wsproxy.core.conversation.transcript import Transcript
from wsproxy.core.conversation.wording import likeliest
from wsproxy.core.ids import Digest


class Route(Enum):
    """How a turn went; the value is told in `x-wsproxy-route`."""

    DELTA = "delta"
    FORK = "fork"
    FULL = "full"
    HTTP = "http"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Why:
    """A reason token (contract §5.12) and what it is about (`index`, `type`, `fields`)."""

    reason: str
    about: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return "; ".join(
            [f"reason={self.reason}", *(f"{name}={value}" for name, value in self.about)]
        )


@dataclass(frozen=True, slots=True)
class Candidate:
    """A checkpoint that the request soundly continues; items from `delta_from` on are new."""

    checkpoint: Checkpoint
    delta_from: int


@dataclass(frozen=True, slots=True)
class Continuation:
    """Sound candidates, longest first; `why_full` is the reason if none of them can be used."""

    candidates: tuple[Candidate, ...]
    why_full: Why


_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_.-]")
_MAX_NAMED_FIELDS: Final = 8


def safe(text: str) -> str:
    """A client's word made fit for a header value."""
    return _UNSAFE.sub("?", text)[:64]


def decide(reading: Reading, transcript: Transcript, fields: Mapping[str, Digest]) -> Continuation:
    """Sort what a look-up found into what may be continued, and say why the rest may not."""
    if not transcript.is_whole_context:
        return Continuation((), Why("own_context"))
    sound: list[Candidate] = []
    why: Why | None = None
    for checkpoint, used in reading.matches:
        if any(reading.held[used:]):
            break  # from here on a delta would repeat what the model made
        objection = _objection(checkpoint, used, transcript, fields)
        if objection is None:
            sound.append(Candidate(checkpoint, used))
        why = why or objection
    if sound:
        return Continuation(tuple(sound), Why("parent_evicted"))
    return Continuation((), _why_none(reading, why))


def _why_none(reading: Reading, objection: Why | None) -> Why:
    """Why nothing can be continued; `objection` is what the longest match met."""
    if objection is not None and (objection.reason != "foreign_item" or reading.is_repeat):
        return objection
    if reading.is_repeat:
        return Why("no_new_items")
    # What is foreign in a delta may be an old item, where the request leaves a longer conversation.
    used = reading.matches[0][1] if reading.matches else 0
    longer = [checkpoint for checkpoint in reading.siblings if checkpoint.length > used]
    difference, is_too_short = likeliest(reading.wording, longer)
    if is_too_short:
        return Why("no_new_items")
    if difference is None or difference.index < used:
        return objection or Why("new_conversation")
    where = ("index", str(difference.index))
    if difference.is_omitted_reasoning:
        return Why("omitted_reasoning", (where,))
    return Why("history_edited", (where, ("type", safe(difference.type))))


def _objection(
    checkpoint: Checkpoint, used: int, transcript: Transcript, fields: Mapping[str, Digest]
) -> Why | None:
    """Why this checkpoint may not be continued by this request; None if it may."""
    names = changed(checkpoint.fields, fields)
    if names:
        return Why("fields_changed", (("fields", ",".join(map(safe, names[:_MAX_NAMED_FIELDS]))),))
    answers: list[Pairing] = []
    for index in range(used, len(transcript)):
        item = transcript.item(index)
        if item.exact is None or not item.may_be_delta:
            return Why(
                "foreign_item", (("index", str(index)), ("type", safe(item.type or "opaque")))
            )
        if item.answer is not None:
            answers.append(item.answer)
    return None if are_paired(checkpoint.open_calls, answers) else Why("unanswered_call")


def are_paired(calls: Sequence[Pairing], answers: Sequence[Pairing]) -> bool:
    """Whether each call has exactly one answer of its kind and each answer has its call."""
    return Counter(calls) == Counter(answers) and len(set(calls)) == len(calls)
