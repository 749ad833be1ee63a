"""All numbers of one daemon, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Info, disable_created_metrics, generate_latest

from wsproxy.metrics.report import Report
from wsproxy.metrics.state import StateNumbers
from wsproxy.metrics.turns import TurnNumbers

disable_created_metrics()  # type: ignore[no-untyped-call]  # a third of the text, and no use to us


class Numbers:
    """Their own registry: a second daemon in the process (tests, `run`) has its own numbers.

    `turns` is told of every turn and connection; `take` is called once a scrape.
    """

    def __init__(self, take: Callable[[], Report]) -> None:
        self._registry = CollectorRegistry()
        self.turns = TurnNumbers(self._registry)
        self._registry.register(StateNumbers(take))
        Info("wsproxy_build", "This wsproxy.", registry=self._registry).info(
            {"version": version("wsproxy")}
        )

    def text(self) -> str:
        """Text format 0.0.4, as `/_wsproxy/metrics` serves it."""
        return generate_latest(self._registry).decode()
