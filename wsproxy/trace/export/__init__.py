"""Turns in the formats of other tools. Figures and ids only: no export holds a body."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from wsproxy.trace.export.har import har
from wsproxy.trace.export.jsonl import jsonl
from wsproxy.trace.export.otlp import otlp
from wsproxy.trace.export.perfetto import perfetto
from wsproxy.trace.reader import Session, Traces

Exporter = Callable[[Traces, Sequence[Session]], Iterable[str]]


FORMATS: Final[Mapping[str, Exporter]] = {
    "jsonl": jsonl,
    "har": har,
    "perfetto": perfetto,
    "otlp": otlp,
}
