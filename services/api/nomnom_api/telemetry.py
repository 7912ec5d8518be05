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
    """What is counted for each request: plain numbers, read when they are asked for.

    The library's own counters and histograms lock at every step: here that is some percent of a request.
    """

    def __init__(self) -> None:
        self.accepted = self.duplicates = self.accepted_lines = self.duplicate_lines = 0
        self._requests: dict[tuple[str, int], int] = {}
        self._buckets = [0] * len(_BOUNDS)
        self._seconds = 0.0

    def count(self, route: str, status: int) -> None:
        """Note an answer."""
        key = (route, status)
        self._requests[key] = self._requests.get(key, 0) + 1

    def accept(self, seconds: float) -> None:
        """Note a message that was acked this long after it was published."""
        self.accepted += 1
        self._buckets[bisect_left(_SECONDS, seconds)] += 1
        self._seconds += seconds

    def collect(self) -> Iterable[Metric]:
        """The figures as Prometheus reads them."""
        requests = CounterMetricFamily("nomnom_api_requests", "Requests answered", labels=("route", "code"))
        for (route, status), number in self._requests.items():
            requests.add_metric((route, str(status)), number)
        accepted = CounterMetricFamily("nomnom_api_accepted", "Messages that JetStream acked", labels=("route",))
        accepted.add_metric(("message",), self.accepted)
        accepted.add_metric(("batch",), self.accepted_lines)
        duplicates = CounterMetricFamily(
            "nomnom_api_duplicates", "Of these, messages that were in the stream already", labels=("route",)
        )
        duplicates.add_metric(("message",), self.duplicates)
        duplicates.add_metric(("batch",), self.duplicate_lines)
        seconds = HistogramMetricFamily(
            "nomnom_api_publish_seconds", "From publishing a single message to JetStream's ack"
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
            "nomnom_api_rejected", "Messages and requests not accepted", ("reason",), registry=registry
        )
        self.lines = Counter("nomnom_api_batch_lines", "Lines of batches read, blank ones left out", registry=registry)
        self.abandoned = Counter(
            "nomnom_api_batches_abandoned", "Batches whose client went away; what was sent stays", registry=registry
        )
        self.batch_seconds = Histogram(
            "nomnom_api_batch_seconds", "Time to take a batch", buckets=(*_SECONDS, 30, 60, 300), registry=registry
        )
        self._in_flight = Gauge("nomnom_api_in_flight", "Messages that wait for JetStream's ack", registry=registry)
        self._connected = Gauge("nomnom_api_nats_up", "Whether there is a connection to NATS", registry=registry)

    def watch(self, in_flight: Callable[[], float], connected: Callable[[], bool]) -> None:
        """Ask these for what is measured when it is looked at."""
        self._in_flight.set_function(in_flight)
        self._connected.set_function(connected)

    def reject(self, reason: str, number: int = 1) -> None:
        """Note what was not accepted."""
        self._rejected.labels(reason).inc(number)

    def text(self) -> bytes:
        """All of them as Prometheus reads them."""
        return generate_latest(self.registry)
