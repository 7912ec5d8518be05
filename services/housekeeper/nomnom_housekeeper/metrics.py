"""The housekeeper's Prometheus metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, PlatformCollector, ProcessCollector

from nomnom.inspection.retention import Retention


class Metrics:
    """The metrics of one housekeeper, in their own registry. One that stands by reports 0."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"nomnom_housekeeper_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"nomnom_housekeeper_{name}", text, labels, registry=registry)

        self.active = gauge("active", "1 while this housekeeper holds the lease, otherwise 0.")
        self.failing = gauge("failing", "1 while the task fails, otherwise 0.", "task")
        self.last_success = gauge("last_success_timestamp_seconds", "Unix time of the task's last success.", "task")
        self.expired = counter("expired_messages", "Unprocessed messages moved to the dead letters.")
        self.withdrawn = counter(
            "withdrawn_dead_letters", "Dead letters removed again: a worker completed the message."
        )
        self.rejected = counter(
            "rejected_dead_letters", "Expired messages kept: their stream rejected the dead letter."
        )
        self.archived = counter("archived_dead_letters", "Dead letters moved to the archive.")
        self.dropped = counter("dropped_partitions", "Partitions dropped after their retention, by table.", "table")
        self.pruned = counter("pruned_rows", "Rows deleted after their retention, by table.", "table")
        self.retained = gauge("retained_partitions", "Partitions past their retention with unfinished messages.")
        self.oldest = gauge("oldest_seconds", "Age of the oldest message in the stream; 0 if it is empty.", "stream")
        self.limit = gauge("max_age_seconds", "Maximum age of messages in the stream; 0 for none.", "stream")
        self.expiring = gauge("expiring_messages", "Messages that reach the maximum age within 24 hours.", "stream")

    def show(self, stream: str, retention: Retention) -> None:
        """Show the retention of a stream."""
        self.oldest.labels(stream).set(retention.oldest or 0)
        self.limit.labels(stream).set(retention.limit or 0)
        self.expiring.labels(stream).set(retention.expiring)

    def stand_by(self) -> None:
        """Show nothing that only the active housekeeper knows."""
        self.active.set(0)
        self.retained.set(0)
        for each in (self.failing, self.oldest, self.limit, self.expiring):
            each.clear()
