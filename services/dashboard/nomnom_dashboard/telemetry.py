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
            "nomnom_dashboard_requests", "HTTP requests handled", ("route", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "nomnom_dashboard_request_seconds",
            "Duration of HTTP requests in seconds",
            ("route",),
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=self.registry,
        )
        self._up = Gauge(
            "nomnom_dashboard_source_up",
            "1 if the source is available, else 0",
            ("source",),
            registry=self.registry,
        )

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"nomnom_{name}", f"{text}; NaN if unknown", registry=self.registry)

        self._lag = gauge("lag_messages", "Messages not acknowledged yet: pending and in progress")
        self._oldest = gauge(
            "oldest_message_seconds", "Age of the oldest message in the stream, 0 if the stream is empty"
        )
        self._bytes = gauge("stream_bytes", "Size of the stream in bytes")
        self._dead_letters = gauge("dead_letters", "Messages in the dead-letter stream")
        self._accepted = gauge("accepted_per_second", "Messages accepted per second over the last seconds")
        self._completed = gauge("completed_per_second", "Messages completed per second over the last seconds")
        self._workers = gauge("workers_connected", "Workers connected to PostgreSQL")
        self._paused = gauge("consumer_paused", "1 if the consumer is paused, 0 otherwise")
        self._unexplained = gauge("unexplained_messages", "Accepted messages that are neither stored nor accounted for")
        self._verified = gauge(
            "account_verified_timestamp_seconds", "Time of the oldest verification of any part of the account"
        )
        self._clients = Gauge(
            "nomnom_dashboard_stream_clients", "Connected clients of /api/stream", registry=self.registry
        )

    def count(self, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def note(self, snapshot: Snapshot) -> None:
        """Update the gauges from a snapshot."""
        self._up.labels("postgresql").set(snapshot.database.ok)
        self._up.labels("nats").set(snapshot.nats.ok)
        lag, rates, workers = snapshot.lag, snapshot.rates, snapshot.workers
        _set(self._lag, lag and lag.total)
        _set(self._oldest, lag and (lag.oldest_seconds or 0.0))
        _set(self._bytes, lag and lag.bytes)
        _set(self._paused, lag and lag.paused)
        _set(self._dead_letters, snapshot.dead_letters)
        _set(self._accepted, rates.accepted)
        _set(self._completed, rates.completed)
        account = snapshot.account
        _set(self._unexplained, account and account.unexplained)
        _set(self._verified, account and account.verified_at and account.verified_at.timestamp())
        _set(self._workers, workers and workers.connected)

    def watch_clients(self, clients: Callable[[], int]) -> None:
        """Set the function that returns the number of stream clients."""
        self._clients.set_function(clients)

    def text(self) -> bytes:
        """All metrics in the Prometheus text format."""
        return generate_latest(self.registry)


def _set(gauge: Gauge, value: float | None) -> None:
    gauge.set(math.nan if value is None else value)
