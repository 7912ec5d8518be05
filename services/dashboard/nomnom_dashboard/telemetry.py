"""The dashboard's Prometheus metrics."""

from __future__ import annotations

import math
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from nomnom_dashboard.answers import Snapshot

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

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"nomnom_{name}", f"{text}; not a number while unknown", registry=self.registry)

        self._lag = gauge("lag_messages", "Messages that the workers have yet to answer")
        self._oldest = gauge("oldest_message_seconds", "Age of the oldest message in the stream, 0 when it is empty")
        self._bytes = gauge("stream_bytes", "Bytes in the stream")
        self._letters = gauge("dead_letters", "Dead letters that wait for a person")
        self._accepted = gauge("accepted_per_second", "Messages accepted a second, of late")
        self._completed = gauge("completed_per_second", "Messages completed a second, of late")
        self._workers = gauge("workers_connected", "Workers connected to PostgreSQL")
        self._paused = gauge("consumer_paused", "Whether a person has paused the consumer")
        self._clients = Gauge("nomnom_dashboard_stream_clients", "Clients of /api/stream", registry=self.registry)

    def count(self, route: str, status: int, seconds: float) -> None:
        """Note one answer."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def note(self, snapshot: Snapshot) -> None:
        """Note which servers answer, and how the pipeline is."""
        self._up.labels("postgresql").set(snapshot.database.ok)
        self._up.labels("nats").set(snapshot.nats.ok)
        lag, rates, workers = snapshot.lag, snapshot.rates, snapshot.workers
        _set(self._lag, lag and lag.total)
        _set(self._oldest, lag and (lag.oldest_seconds or 0.0))
        _set(self._bytes, lag and lag.bytes)
        _set(self._paused, lag and lag.paused)
        _set(self._letters, snapshot.dead_letters)
        _set(self._accepted, rates.accepted)
        _set(self._completed, rates.completed)
        _set(self._workers, workers and workers.connected)

    def watch_clients(self, clients: Callable[[], int]) -> None:
        """Ask this for the number of stream clients."""
        self._clients.set_function(clients)

    def text(self) -> bytes:
        """All of them as Prometheus reads them."""
        return generate_latest(self.registry)


def _set(gauge: Gauge, value: float | None) -> None:
    gauge.set(math.nan if value is None else value)
