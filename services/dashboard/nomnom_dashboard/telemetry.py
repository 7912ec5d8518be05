"""The dashboard's Prometheus metrics."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counters of one process, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "nomnom_dashboard_requests", "Requests answered", ("route", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "nomnom_dashboard_request_seconds",
            "Time to answer a request",
            ("route",),
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=self.registry,
        )
        self._up = Gauge(
            "nomnom_dashboard_source_up", "Whether PostgreSQL or NATS answers", ("source",), registry=self.registry
        )
        self._clients = Gauge("nomnom_dashboard_stream_clients", "Clients of /api/stream", registry=self.registry)

    def count(self, route: str, status: int, seconds: float) -> None:
        """Note one answer."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def note_sources(self, *, database: bool, nats: bool) -> None:
        """Note which servers answer."""
        self._up.labels("postgresql").set(database)
        self._up.labels("nats").set(nats)

    def watch_clients(self, clients: Callable[[], int]) -> None:
        """Ask this for the number of stream clients."""
        self._clients.set_function(clients)

    def text(self) -> bytes:
        """All of them as Prometheus reads them."""
        return generate_latest(self.registry)
