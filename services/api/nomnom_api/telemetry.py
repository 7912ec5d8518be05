"""The api's Prometheus metrics."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest
from prometheus_client.process_collector import ProcessCollector

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """Counters of one process, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter("nomnom_api_requests", "Requests answered", ("route", "code"), registry=registry)
        self._counted: dict[tuple[str, int], Counter] = {}
        accepted = Counter("nomnom_api_accepted", "Messages that JetStream acked", ("route",), registry=registry)
        self.accepted = accepted.labels("message")
        self.accepted_lines = accepted.labels("batch")
        duplicates = Counter(
            "nomnom_api_duplicates", "Of these, messages that were in the stream already", ("route",), registry=registry
        )
        self.duplicates = duplicates.labels("message")
        self.duplicate_lines = duplicates.labels("batch")
        self._rejected = Counter(
            "nomnom_api_rejected", "Messages and requests not accepted", ("reason",), registry=registry
        )
        self.lines = Counter("nomnom_api_batch_lines", "Lines of batches read, blank ones left out", registry=registry)
        self.abandoned = Counter(
            "nomnom_api_batches_abandoned", "Batches whose client went away; what was sent stays", registry=registry
        )
        self.publish_seconds = Histogram(
            "nomnom_api_publish_seconds",
            "From publishing a single message to JetStream's ack",
            buckets=_SECONDS,
            registry=registry,
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

    def count(self, route: str, status: int) -> None:
        """Note an answer."""
        counted = self._counted.get((route, status))
        if counted is None:
            counted = self._counted[route, status] = self._requests.labels(route, str(status))
        counted.inc()

    def reject(self, reason: str, number: int = 1) -> None:
        """Note what was not accepted."""
        self._rejected.labels(reason).inc(number)

    def text(self) -> bytes:
        """All of them as Prometheus reads them."""
        return generate_latest(self.registry)
