"""What a large ``message_status`` costs: batches, lookups, counts, pages and drops, at a small and at a large size."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import asyncpg

from nomnom.connections.postgres import Database
from nomnom.envelope import Status, new_message_id
from nomnom.inspection.statuses import Statuses
from nomnom.message_status import CLAIM
from nomnom.partitions import Period, drop_partition
from nomnom.receipts import keep_steps
from tests.bench.figures import Report
from tests.bench.harness import Harness

_SMALL = 1_000_000
_DAYS = 30
_BATCH = 500
_IDS = 200
_NEAREST = "SELECT message_id FROM message_status WHERE received_at >= $1 ORDER BY received_at LIMIT 1"
_BYTES = 330
"""Bytes of a row with its indexes, for the check of free space."""
_FILL = """
INSERT INTO {name} (message_id, entity_type, status, received_at, processed_at, stream_position)
SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || substr(md5(n::text || at::text), 1, 3)
           || '8' || substr(md5(at::text || n::text), 1, 15))::uuid,
       'orders', CASE WHEN n % 10000 = 0 THEN 'dlq' ELSE 'completed' END, at, at + interval '20 ms', $3 + n
FROM (
    SELECT n, $1::timestamptz + n * (interval '1 day' / $2::bigint) AS at FROM generate_series(0, $2::bigint - 1) AS n
) AS rows
"""


async def measure(stage: Harness, report: Report, options: argparse.Namespace) -> None:
    """Fill the table with a million rows, measure, fill it with more, measure again; prints the ratios."""
    large = min(options.rows, int(shutil.disk_usage(stage.folder).free * 0.75 / _BYTES))
    connection = await asyncpg.connect(stage.postgres.url)
    # Durability of the generated rows does not matter, and they are not what is measured.
    for setting in ("synchronous_commit = off", "max_wal_size = '4GB'"):
        await connection.execute(f"ALTER SYSTEM SET {setting}")
    await connection.execute("SELECT pg_reload_conf()")
    try:
        days = [Period.DAY.begin(datetime.now(UTC)) - timedelta(days=each) for each in range(1, _DAYS + 1)]
        await _fill(connection, days, _SMALL)
        before = await _figures(stage, connection)
        begun = time.monotonic()
        await _fill(connection, days, large)
        print(f"filled to {large:,} rows in {time.monotonic() - begun:.0f} s")
        after = await _figures(stage, connection)
        print(f"{'':34} {_SMALL:>12,} {large:>12,}  ratio")
        for name, (small, unit) in before.items():
            big = after[name][0]
            print(f"{name:34} {small:12.2f} {big:12.2f}  {big / small:5.2f}  {unit}")
            report.figures[f"tables {name}"] = {"small": small, "large": big}
        blocked = await _drop(stage, connection, f"message_status_{days[-1]:%Y%m%d}")
        print(f"longest insert while a partition of {large // _DAYS:,} rows was dropped: {blocked * 1000:.1f} ms")
        report.figures["tables drop"] = {"longest_insert_ms": blocked * 1000}
    finally:
        await connection.close()


async def _fill(connection: asyncpg.Connection, days: list[datetime], rows: int) -> None:
    """Replace the partitions by ones with so many rows; their indexes are built afterwards, which is faster."""
    share = rows // _DAYS
    for number, day in enumerate(days):
        name = f"message_status_{day:%Y%m%d}"
        await connection.execute(f"DROP TABLE IF EXISTS {name}")
        await connection.execute(f"CREATE TABLE {name} (LIKE message_status INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
        await connection.execute(_FILL.format(name=name), day, share, number * share + 1)
        bounds = f"FROM ('{day.isoformat()}') TO ('{(day + timedelta(days=1)).isoformat()}')"
        await connection.execute(f"ALTER TABLE message_status ATTACH PARTITION {name} FOR VALUES {bounds}")
    await connection.execute("VACUUM (ANALYZE) message_status")


async def _figures(stage: Harness, connection: asyncpg.Connection) -> dict[str, tuple[float, str]]:
    database = Database(stage.postgres.url, application="bench", seconds=60.0)
    statuses = Statuses(database)
    try:
        times = [datetime.now(UTC) - timedelta(days=1 + at * (_DAYS - 2) / _IDS) for at in range(_IDS)]
        ids = [str(await connection.fetchval(_NEAREST, time)) for time in times]
        await connection.execute("DELETE FROM nomnom_steps")
        for _ in range(9):  # a day's steps at a time
            await keep_steps(database)
        return {
            "batches of 500 (CLAIM)": (await _batches(connection), "batches/s"),
            "status of a message": (await _median(lambda at: statuses.find(ids[at % _IDS]), _IDS), "ms"),
            "numbers by status": (await _median(lambda _: statuses.counts(), 10), "ms"),
            "first page": (await _median(lambda _: statuses.page(limit=50), 20), "ms"),
            "first page of dead letters": (
                await _median(lambda _: statuses.page(limit=50, status=Status.DLQ), 20),
                "ms",
            ),
            "page with a filter": (await _median(lambda _: statuses.page(limit=50, error="none"), 5), "ms"),
            "24 hours by hour": (await _median(lambda _: statuses.by_hour(24), 5), "ms"),
        }
    finally:
        await database.close()


async def _batches(connection: asyncpg.Connection) -> float:
    """Batches per second, each committed."""
    rates: list[float] = []
    for _ in range(5):
        begun = time.monotonic()
        for _ in range(20):
            now = datetime.now(UTC)
            await connection.fetch(
                CLAIM,
                sorted(new_message_id() for _ in range(_BATCH)),
                ["orders"] * _BATCH,
                [now] * _BATCH,
                [0] * _BATCH,
                [1] * _BATCH,
            )
        rates.append(20 / (time.monotonic() - begun))
    return statistics.median(rates)


async def _median(call: Callable[[int], Awaitable[object]], times: int) -> float:
    """The median duration of a call in milliseconds."""
    await call(0)
    durations: list[float] = []
    for at in range(times):
        begun = time.monotonic()
        await call(at)
        durations.append(time.monotonic() - begun)
    return statistics.median(durations) * 1000


async def _drop(stage: Harness, connection: asyncpg.Connection, name: str) -> float:
    """The longest duration of an insert while a partition is dropped, in seconds."""
    await connection.execute("UPDATE message_status SET status = 'completed' WHERE status = 'dlq'")
    dropper = await asyncpg.connect(stage.postgres.url)
    dropping = asyncio.create_task(drop_partition(dropper, "message_status", name))
    longest = 0.0
    try:
        while not dropping.done():
            begun = time.monotonic()
            await connection.fetch(CLAIM, [new_message_id()], ["orders"], [datetime.now(UTC)], [0], [1])
            longest = max(longest, time.monotonic() - begun)
        await dropping
    finally:
        await dropper.close()
    return longest
