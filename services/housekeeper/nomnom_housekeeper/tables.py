"""Tables partitioned by time: partitions are added ahead, and dropped after their retention.

A partition of ``message_status`` with a message that is not finished (processing, failed, dlq) is retained. Dropping
never makes writers wait: a lock that is not available within 40 ms is tried again later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import asyncpg

from nomnom.connections.postgres import ERRORS, Database, close
from nomnom.partitions import PERIODS, Partition, add_partitions, drop_partition, list_partitions
from nomnom.settings import HousekeeperSettings
from nomnom.telemetry import logger
from nomnom_housekeeper.metrics import Metrics

_log = logger(__name__)
_BATCH = 1000
_UNFINISHED = """
SELECT status, count(*) AS messages
FROM message_status
WHERE status <> 'completed' AND status IN ('processing', 'failed', 'dlq')
    AND received_at >= coalesce($1, '-infinity'::timestamptz) AND received_at < $2
GROUP BY status ORDER BY status
"""
_ARCHIVED_SINCE = """
SELECT EXISTS (
    SELECT FROM nomnom_archive
    WHERE stored_at >= coalesce($1, '-infinity'::timestamptz) AND stored_at < $2 AND archived_at >= $3
)
"""
_PRUNE_KEYS = """
WITH pruned AS (
    DELETE FROM nomnom_keys
    WHERE message_id IN (
        SELECT key.message_id
        FROM nomnom_keys AS key
        WHERE key.received_at < $1 AND NOT EXISTS (
            SELECT FROM message_status AS kept
            WHERE kept.message_id = key.message_id AND kept.received_at = key.received_at
        )
        LIMIT $2
    )
    RETURNING message_id
)
SELECT count(*)::integer FROM pruned
"""
_PRUNE_SEQUENCES = "SELECT nomnom_prune_sequences($1, $2)"


@dataclass(slots=True)
class Upkeep:
    """What a run has done: names of partitions, and why others were retained."""

    added: list[str] = field(default_factory=list[str])
    dropped: list[str] = field(default_factory=list[str])
    retained: dict[str, str] = field(default_factory=dict[str, str])
    pruned: int = 0


class Tables:
    """Keeps the partitioned tables. Methods raise RequestError or PartitionError."""

    def __init__(self, database: Database, settings: HousekeeperSettings, metrics: Metrics) -> None:
        self._database, self._metrics = database, metrics
        self._patience = settings.housekeeper_query_seconds
        self._days: Mapping[str, float] = {
            "message_status": settings.housekeeper_status_days,
            "nomnom_audit": settings.housekeeper_audit_days,
            "nomnom_archive": settings.housekeeper_archive_days,
        }

    async def run(self, now: datetime | None = None) -> Upkeep:
        """Add and drop partitions, and prune what belonged to them."""
        now = now or datetime.now(UTC)
        upkeep = Upkeep()
        # Not of the pool: each statement is a transaction of its own, which holds its locks for a moment only.
        connection = await self._database.connect(self._patience)
        try:
            for table in PERIODS:
                upkeep.added += await add_partitions(connection, table, now)
                await self._drop(connection, table, now - timedelta(days=self._days[table]), upkeep)
        except ERRORS as error:
            raise self._database.error(error) from error
        finally:
            await close(connection)
        cutoff = now - timedelta(days=self._days["message_status"])
        upkeep.pruned += await self._prune("nomnom_keys", _PRUNE_KEYS, cutoff)
        upkeep.pruned += await self._prune("nomnom_sequences", _PRUNE_SEQUENCES, cutoff)
        self._metrics.retained.set(len(upkeep.retained))
        if upkeep.added or upkeep.dropped or upkeep.pruned:
            _log.info("tables kept", added=upkeep.added, dropped=upkeep.dropped, pruned=upkeep.pruned)
        for name, reason in upkeep.retained.items():
            _log.warning("partition retained", partition=name, reason=reason)
        return upkeep

    async def _drop(self, connection: asyncpg.Connection, table: str, cutoff: datetime, upkeep: Upkeep) -> None:
        for each in await list_partitions(connection, table):
            if each.high is None or each.high > cutoff or each.is_default:
                continue
            if reason := await _retained(connection, table, each, cutoff):
                upkeep.retained[each.name] = reason
                continue
            try:
                await drop_partition(connection, table, each.name)
            except asyncpg.ObjectInUseError as error:  # a message came to life meanwhile
                upkeep.retained[each.name] = str(error)
                continue
            upkeep.dropped.append(each.name)
            self._metrics.dropped.labels(table).inc()

    async def _prune(self, table: str, statement: str, cutoff: datetime) -> int:
        """Delete in small transactions."""
        total = 0
        while True:
            async with self._database.connection() as connection:
                pruned = int(str(await connection.fetchval(statement, cutoff, _BATCH)))
            total += pruned
            self._metrics.pruned.labels(table).inc(pruned)
            if pruned < _BATCH:
                return total


async def _retained(connection: asyncpg.Connection, table: str, partition: Partition, cutoff: datetime) -> str:
    """Why a partition is kept beyond its retention; empty if it is not."""
    if table == "message_status":
        rows = await connection.fetch(_UNFINISHED, partition.low, partition.high)
        found = ", ".join(f"{row['messages']:,} {row['status']}" for row in rows)
        return f"it has unfinished messages: {found}" if found else ""
    if table == "nomnom_archive" and await connection.fetchval(_ARCHIVED_SINCE, partition.low, partition.high, cutoff):
        return "it has dead letters that were archived later"
    return ""
