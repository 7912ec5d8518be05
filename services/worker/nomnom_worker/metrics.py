"""The worker's Prometheus metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector

_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The metrics of one worker, in their own registry."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"nomnom_worker_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"nomnom_worker_{name}", text, labels, registry=registry)

        self.received = counter("received", "Messages delivered to this worker.")
        self.redelivered = counter("redelivered", "Received messages that had been delivered before.")
        self.completed = counter("completed", "Messages whose rows are committed.")
        self.superseded = counter("superseded", "Completed messages whose rows had all been written by later messages.")
        self.repeated = counter("repeated", "Messages already processed, which were only acknowledged.")
        self.rows = counter("rows", "Rows written, by table.", "table")
        self.failed = counter("failed", "Failed attempts, by reason.", "reason")
        self.dead = counter("dead_letters", "Messages stored as dead letters, by reason.", "reason")
        self.withdrawn = counter(
            "withdrawn_dead_letters", "Dead letters removed again: another worker completed the message."
        )
        self.refused = counter("dead_letters_refused", "Dead letters rejected by their stream; the messages are kept.")
        self.batch_size = Histogram(
            "nomnom_worker_batch_messages", "Messages per transaction.", registry=registry, buckets=_SIZES
        )
        self.batch_seconds = Histogram(
            "nomnom_worker_batch_seconds", "Duration of a transaction in seconds.", registry=registry, buckets=_SECONDS
        )
        self.outage = gauge("outage", "1 while the server is unavailable, otherwise 0.", "server")
        self.stopped = gauge(
            "entity_stopped", "1 while the table of the entity rejects all rows, otherwise 0.", "entity"
        )
        self.last_batch = gauge("last_batch_timestamp_seconds", "Unix time of the last committed transaction.")
        self.pending = gauge("pending_messages", "Messages pending in the stream at the last delivery.")
        self.held = gauge("held_messages", "Messages delivered to this worker and not acknowledged yet.")
        self.unsent = gauge("unsent_answers", "Acknowledgements waiting for NATS to become available.")
