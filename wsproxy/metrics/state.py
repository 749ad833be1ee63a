"""Numbers of the moment for Prometheus: read from one report when somebody asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from wsproxy.core.multiplex.connection import State
from wsproxy.metrics.report import Report

_STATES: Final = tuple(state.name.lower() for state in State if state is not State.CLOSED)


class StateNumbers(Collector):
    """Gauges and totals that are kept elsewhere; `take` is called once a scrape."""

    def __init__(self, take: Callable[[], Report]) -> None:
        self._take = take

    def describe(self) -> list[Metric]:
        """Nothing yet: the registry would ask for a report before there is a daemon."""
        return []

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        report = self._take()
        yield from _pool(report)
        yield from _models(report)
        yield _gauge("up_seconds", "Since the start.", report.up_s)
        yield _gauge("draining", "1 while nothing new is accepted.", float(report.is_draining))
        yield _gauge("downstream_connections", "Open, from agents.", report.downstream_connections)
        yield _total("downstream_connections_accepted", "From agents.", report.downstream_accepted)
        yield _total("downstream_connections_refused", "One too many.", report.downstream_refused)
        yield _gauge("request_body_bytes", "Held for turns.", report.request_body_bytes)
        yield _gauge("history_conversations", "Remembered.", report.history.conversations)
        yield _gauge("history_bytes", "Of what is remembered.", report.history.bytes)
        yield _total("trace_records_dropped", "Queue full or disk refused.", report.trace_dropped)
        yield _total("spans_dropped", "Queue full or collector refused.", report.spans_dropped)


def _pool(report: Report) -> Iterator[Metric]:
    pool = report.pool
    connections = GaugeMetricFamily("wsproxy_connections", "Upstream WebSockets.", labels=["state"])
    for state in _STATES:
        connections.add_metric([state], sum(one.state == state for one in pool.connections))
    yield connections
    lanes = GaugeMetricFamily("wsproxy_lanes", "Lane names in use.", labels=["state"])
    warm = sum(one.lanes_warm for one in pool.connections)
    busy = sum(one.in_flight for one in pool.connections)
    used = sum(one.lanes_used for one in pool.connections)
    for state, count in (("busy", busy), ("warm", warm), ("used", used)):
        lanes.add_metric([state], count)
    yield lanes
    yield _gauge("turns_running", "Turns that have no answer yet.", pool.turns)
    yield _gauge("queue_length", "Turns that wait for a connection or a lane.", pool.queued)
    yield _gauge("queue_longest_wait_seconds", "Of those turns.", pool.longest_wait_s)
    refused = sum(key.no_websocket_s > 0 for key in pool.keys)
    yield _gauge("keys_without_websocket", "Identities whose breaker is open.", refused)
    yield _gauge(
        "url_without_websocket_seconds",
        "How long no WebSocket will be tried at all.",
        pool.url_no_websocket_s,
    )


def _models(report: Report) -> Iterator[Metric]:
    models = report.models
    answers = CounterMetricFamily(
        "wsproxy_model_cache_answers", "Answers of the model cache.", labels=["how"]
    )
    kinds = (("hit", models.hits), ("miss", models.misses), ("stale", models.stale_served))
    for how, count in kinds:
        answers.add_metric([how], count)
    yield answers
    yield _total("model_cache_revalidations", "Conditional questions.", models.revalidations)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"wsproxy_{name}", text, value=value)


def _total(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"wsproxy_{name}", text, value=value)
