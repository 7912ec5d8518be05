"""The settings of a worker."""

from __future__ import annotations

from typing import Annotated

import msgspec

from nomnom.settings.common import Settings
from nomnom.settings.declaration import Port, Positive, Seconds, about

_MIB = 1024 * 1024


class WorkerSettings(Settings, frozen=True, kw_only=True, rename=str.upper):
    """Attempts, batches and timeouts. A worker holds about two batches at most."""

    max_deliver: Annotated[Positive, about("Failed attempts after which a message becomes a dead letter")] = 3
    batch_size: Annotated[int, msgspec.Meta(ge=1, le=10_000), about("Maximum messages per transaction")] = 500
    batch_bytes: Annotated[
        int, msgspec.Meta(ge=4 * _MIB), about("Maximum bytes per transaction; its last message may exceed it", "bytes")
    ] = 4 * _MIB
    poll_interval_ms: Annotated[
        int,
        msgspec.Meta(ge=0, le=60_000),
        about("Maximum time to fill a batch while another is written, from its first message", "ms"),
    ] = 10
    retry_backoff: Annotated[
        Seconds, about("Delay before the second attempt of a message; doubles with each further one", "s")
    ] = 1.0
    retry_backoff_max: Annotated[
        Seconds, about("Maximum retry delay; also the delay if the dead-letter stream rejects a message", "s")
    ] = 60.0
    database_timeout: Annotated[
        Seconds, about("Timeout of a SQL statement; after it PostgreSQL counts as unavailable", "s")
    ] = 30.0
    shutdown_grace: Annotated[Seconds, about("Grace period for messages in progress after SIGTERM", "s")] = 25.0
    worker_health_host: Annotated[str, about("Listen address of /health, /ready and /metrics")] = "0.0.0.0"  # noqa: S104 (probes and scrapers are outside the container)
    worker_health_port: Annotated[Port, about("Listen port of /health, /ready and /metrics; 0: any free port")] = 8081
