"""A copy of some sessions that can be shown to strangers, and what was taken out of it.

Kept: routes, reasons, times, sizes, tokens, faults. Not kept: bodies, the upstream's host, names
under which sessions and identities could be recognised, names of fields, models and error codes
that are not the API's.
"""

from __future__ import annotations

import re
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from wsproxy.core.api.errors import STATUS_OF_CODE, STATUS_OF_TYPE
from wsproxy.core.api.items import ANSWERS, ECHO_RULES
from wsproxy.core.multiplex.recovery import Fault
from wsproxy.trace.advice import REASONS
from wsproxy.trace.keyed import KEY_BYTES, Keyed
from wsproxy.trace.reader import Session, Traces, connections_of
from wsproxy.trace.record import ConnectionRecord, Record, Run, TurnRecord, encode

#: Members of a request that everybody's API reference has; others may be a company's own.
KNOWN_FIELDS: Final = frozenset(
    """background client_metadata context_management conversation include input instructions
    max_output_tokens max_tool_calls metadata model moderation parallel_tool_calls
    previous_response_id prompt prompt_cache_key prompt_cache_retention reasoning
    safety_identifier service_tier store stream stream_options temperature text tool_choice tools
    top_logprobs top_p truncation user verbosity""".split()
)
KNOWN_ITEMS: Final = frozenset(
    (*ECHO_RULES, *(answer for _, answer, _ in ANSWERS.values()), "item_reference", "end", "opaque")
)
#: Names of the API's families and their variants; whatever else stands in one is somebody's own.
KNOWN_MODELS: Final = re.compile(
    r"(?:gpt-\d[a-z0-9.]*|chatgpt|o\d|codex)"
    r"(?:-(?:mini|nano|pro|max|turbo|chat|codex|latest|preview|spark|audio|realtime|search"
    r"|deep|research|instruct|\d{1,4}|\d+k))*"
)
#: Error codes and outcomes that are the API's or ours.
KNOWN_CODES: Final = frozenset(
    (*STATUS_OF_CODE, *STATUS_OF_TYPE, *REASONS, *(fault.value for fault in Fault), "")
)
#: What a turn's `about` may say.
KNOWN_ABOUT: Final = ("index", "type", "fields", "chains")


class Redaction:
    """One copy: new names for everything that could be recognised, and a count of it all."""

    def __init__(self) -> None:
        self._keyed = Keyed(secrets.token_bytes(KEY_BYTES))
        self._first = 0.0
        self.removed: Counter[str] = Counter()

    def copy(self, traces: Traces, sessions: Sequence[Session]) -> list[str]:
        """The lines of the copy: a journal of its own, times counted from its first turn."""
        turns = [turn for session in sessions for turn in session.turns]
        self._first = min(turn.at for turn in turns)
        runs = [traces.runs[name] for name in {turn.run for turn in turns} if name in traces.runs]
        self.removed["bodies"] += sum(_texts(turn) for turn in turns)
        records: list[Record] = [
            *map(self._run, runs),
            *map(self._connection, connections_of(traces, sessions)),
            *map(self._turn, turns),
        ]
        return [encode(record).decode().rstrip() for record in records]

    def _run(self, run: Run) -> Run:
        self.removed["upstream URLs and process ids"] += 1
        return Run(self._renamed(run.run), self._shifted(run.at), run.version, "", 0)

    def _connection(self, record: ConnectionRecord) -> ConnectionRecord:
        return msgspec.structs.replace(
            record,
            run=self._renamed(record.run),
            key=self._renamed(record.key),
            at=self._shifted(record.at),
        )

    def _turn(self, turn: TurnRecord) -> TurnRecord:
        return msgspec.structs.replace(
            turn,
            turn="t" + self._keyed.digest(turn.turn.encode(), 6).hex(),
            run=self._renamed(turn.run),
            key=self._renamed(turn.key),
            session=self._renamed(turn.session),
            at=self._shifted(turn.at),
            about=self._about(turn.about),
            model=self._model(turn.model),
            hint="set" if turn.hint else "",
            code=self._code(turn.code),
            bodies=None,
        )

    def _about(self, about: Mapping[str, str]) -> dict[str, str]:
        shown = {name: about[name] for name in KNOWN_ABOUT if name in about}
        if "fields" in shown:
            names = shown["fields"].split(",")
            shown["fields"] = ",".join(self._field(name) for name in names)
        if shown.get("type", "message") not in KNOWN_ITEMS:
            self.removed["unknown item types"] += 1
            shown["type"] = "other"
        return shown

    def _field(self, name: str) -> str:
        if name in KNOWN_FIELDS:
            return name
        self.removed["names of unknown fields"] += 1
        return "other"

    def _model(self, model: str) -> str:
        if not model or KNOWN_MODELS.fullmatch(model):
            return model
        self.removed["names of unknown models"] += 1
        return "other"

    def _code(self, code: str) -> str:
        if code in KNOWN_CODES:
            return code
        self.removed["unknown error codes"] += 1
        return "other"

    def _renamed(self, name: str) -> str:
        self.removed["names of runs, identities and sessions, replaced by random ones"] += 1
        return self._keyed.short(name.encode())

    def _shifted(self, at: float) -> float:
        self.removed["dates, counted from the first turn instead"] += 1
        return round(max(0.0, at - self._first), 6)  # the daemon began before; so may a connection


def _texts(turn: TurnRecord) -> int:
    bodies = turn.bodies
    if bodies is None:
        return 0
    return len(bodies.headers) + len(bodies.members) + len(bodies.input) + len(bodies.output)


def removed_lines(removed: Mapping[str, int]) -> list[str]:
    """What was taken out, in words."""
    return [f"{count} × {what}" for what, count in removed.items() if count] or ["nothing"]
