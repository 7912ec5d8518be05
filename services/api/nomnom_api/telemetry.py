"""The api's Prometheus metrics."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_BOUNDS = (*map(str, _SECONDS), "+Inf")


class RequestMetrics(Collector):
    """Counters of the request path as plain numbers, converted when metrics are scraped.

    The library's counters and histograms take a lock for every update, a few percent of the time of a request.
    """

    def __init__(self) -> None:
        self.accepted = self.duplicates = self.accepted_lines = self.duplicate_lines = 0
        self._requests: dict[tuple[str, int], int] = {}
        self._buckets = [0] * len(_BOUNDS)
        self._seconds = 0.0

    def count(self, route: str, status: int) -> None:
        """Count a request."""
        key = (route, status)
        self._requests[key] = self._requests.get(key, 0) + 1

    def accept(self, seconds: float) -> None:
        """Count an accepted message, acknowledged ``seconds`` after it was published."""
        self.accepted += 1
        self._buckets[bisect_left(_SECONDS, seconds)] += 1
        self._seconds += seconds

    def collect(self) -> Iterable[Metric]:
        """The metrics, for the Prometheus registry."""
        requests = CounterMetricFamily("nomnom_api_requests", "HTTP requests handled", labels=("route", "code"))
        for (route, status), number in self._requests.items():
            requests.add_metric((route, str(status)), number)
        accepted = CounterMetricFamily("nomnom_api_accepted", "Messages acknowledged by JetStream", labels=("route",))
        accepted.add_metric(("message",), self.accepted)
        accepted.add_metric(("batch",), self.accepted_lines)
        duplicates = CounterMetricFamily(
            "nomnom_api_duplicates", "Accepted messages that were already in the stream", labels=("route",)
        )
        duplicates.add_metric(("message",), self.duplicates)
        duplicates.add_metric(("batch",), self.duplicate_lines)
        seconds = HistogramMetricFamily(
            "nomnom_api_publish_seconds", "Time from publishing a single message to its ack"
        )
        seconds.add_metric((), list(zip(_BOUNDS, accumulate(self._buckets), strict=True)), self._seconds)
        return (requests, accepted, duplicates, seconds)


class Metrics:
    """Counters of one process, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = RequestMetrics()
        registry.register(self.requests)
        ProcessCollector(registry=registry)
        self._rejected = Counter(
            "nomnom_api_rejected", "Rejected messages and requests", ("reason",), registry=registry
        )
        self.lines = Counter("nomnom_api_batch_lines", "Non-blank lines of batches read", registry=registry)
        self.abandoned = Counter(
            "nomnom_api_batches_abandoned", "Batches whose client disconnected before the end", registry=registry
        )
        self.batch_seconds = Histogram(
            "nomnom_api_batch_seconds",
            "Duration of batches",
            buckets=(*_SECONDS, 30, 60, 300),
            registry=registry,
        )
        self.group_messages = Histogram(
            "nomnom_api_group_messages",
            "Messages without a key that were stored together",
            buckets=(2, 5, 10, 20, 50, 100, 200, 500, 1000),
            registry=registry,
        )
        self.group_seconds = Histogram(
            "nomnom_api_group_seconds",
            "Time from sending messages that were stored together to their ack",
            buckets=_SECONDS,
            registry=registry,
        )
        self._in_flight = Gauge("nomnom_api_in_flight", "Messages awaiting JetStream's ack", registry=registry)
        self._connected = Gauge("nomnom_api_nats_up", "1 if connected to NATS, 0 otherwise", registry=registry)

    def watch(self, in_flight: Callable[[], float], connected: Callable[[], bool]) -> None:
        """Set the functions that return gauge values when metrics are scraped."""
        self._in_flight.set_function(in_flight)
        self._connected.set_function(connected)

    def reject(self, reason: str, number: int = 1) -> None:
        """Count rejected messages or requests."""
        self._rejected.labels(reason).inc(number)

    def text(self) -> bytes:
        """All metrics in the Prometheus text format."""
        return generate_latest(self.registry)
