"""What a worker counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector

_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """One worker's figures, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"nomnom_worker_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"nomnom_worker_{name}", text, labels, registry=registry)

        self.received = counter("received", "Messages delivered to this worker.")
        self.redelivered = counter("redelivered", "Of those received, the ones that were delivered before.")
        self.completed = counter("completed", "Messages whose rows are committed.")
        self.superseded = counter("superseded", "Of those completed, the ones older than all their rows.")
        self.repeated = counter("repeated", "Messages that had been answered before, and were only acknowledged.")
        self.rows = counter("rows", "Rows written, by table.", "table")
        self.failed = counter("failed", "Failed attempts, by reason.", "reason")
        self.dead = counter("dead_letters", "Messages stored as dead letters, by reason.", "reason")
        self.refused = counter("dead_letters_refused", "Dead letters not stored: their messages are kept.")
        self.batch_size = Histogram(
            "nomnom_worker_batch_messages", "Messages in a transaction.", registry=registry, buckets=_SIZES
        )
        self.batch_seconds = Histogram(
            "nomnom_worker_batch_seconds", "Time of a transaction.", registry=registry, buckets=_SECONDS
        )
        self.outage = gauge("outage", "1 while this server is away.", "server")
        self.last_batch = gauge("last_batch_timestamp_seconds", "When the last transaction was committed.")
        self.pending = gauge("pending_messages", "Messages waiting in the stream, as of the last delivery.")
        self.held = gauge("held_messages", "Messages delivered to this worker and not answered yet.")
        self.unsent = gauge("unsent_answers", "Answers that wait for NATS to come back.")
