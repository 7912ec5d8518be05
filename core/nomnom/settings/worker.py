"""The settings of a worker."""

from __future__ import annotations

from typing import Annotated

import msgspec

from nomnom.settings.common import Settings
from nomnom.settings.declaration import Port, Positive, Seconds, about

_MIB = 1024 * 1024


class WorkerSettings(Settings, frozen=True, kw_only=True, rename=str.upper):
    """Attempts, batches and waits. A worker holds at most about twice a batch."""

    max_deliver: Annotated[Positive, about("Failed attempts after which a message becomes a dead letter")] = 3
    batch_size: Annotated[int, msgspec.Meta(ge=1, le=10_000), about("Most messages in one transaction")] = 500
    batch_bytes: Annotated[
        int, msgspec.Meta(ge=4 * _MIB), about("Most bytes in one transaction; one more message may exceed it", "bytes")
    ] = 4 * _MIB
    poll_interval_ms: Annotated[
        int, msgspec.Meta(ge=0, le=60_000), about("Longest wait for a batch to fill, from its first message", "ms")
    ] = 10
    retry_backoff: Annotated[
        Seconds, about("Wait before a failed message's second attempt; it doubles for each further one", "s")
    ] = 1.0
    retry_backoff_max: Annotated[
        Seconds, about("Longest such wait, and the wait before a refused dead letter is stored again", "s")
    ] = 60.0
    database_timeout: Annotated[
        Seconds, about("Longest time for one SQL statement; after that PostgreSQL counts as unavailable", "s")
    ] = 30.0
    shutdown_grace: Annotated[Seconds, about("Time to finish the messages in progress after SIGTERM", "s")] = 25.0
    worker_health_host: Annotated[str, about("Address that /health, /ready and /metrics listen on")] = "0.0.0.0"  # noqa: S104 (probes and scrapers are outside the container)
    worker_health_port: Annotated[Port, about("Port of /health, /ready and /metrics; 0: any free one")] = 8081
