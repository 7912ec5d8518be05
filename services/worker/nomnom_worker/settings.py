"""The worker's settings."""

from __future__ import annotations

from typing import Annotated

import msgspec

from nomnom.settings import Port, Positive, Seconds, Settings

_MIB = 1024 * 1024


class WorkerSettings(Settings, frozen=True, kw_only=True, rename=str.upper):
    """The settings of a worker. Times in seconds unless the name has another unit."""

    max_deliver: Positive = 3
    """Failed attempts after which a message becomes a dead letter."""
    batch_size: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 500
    """The most messages in one transaction. A worker holds at most twice as many."""
    batch_bytes: Annotated[int, msgspec.Meta(ge=4 * _MIB)] = 4 * _MIB
    """The most bytes in one transaction (one message more may pass it). A worker holds at most about twice as much."""
    poll_interval_ms: Annotated[int, msgspec.Meta(ge=0, le=60_000)] = 10
    """The longest wait for a batch to fill, from its first message."""
    retry_backoff: Seconds = 1.0
    """The wait before a failed message's second attempt; each further one waits twice as long."""
    retry_backoff_max: Seconds = 60.0
    """The longest such wait, and the wait before another try to store a dead letter that was refused."""
    database_timeout: Seconds = 30.0
    """How long PostgreSQL may take for one statement; after that it counts as away."""
    shutdown_grace: Seconds = 25.0
    """How long the worker may take to finish what it holds after SIGTERM."""
    worker_health_host: str = "0.0.0.0"  # noqa: S104 (probes and scrapers come from outside the container)
    worker_health_port: Port = 8081
