"""Tables partitioned by time: their partitions, and the conversion of an existing table while workers write to it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from importlib.resources import files
from typing import TypeVar

import asyncpg

from nomnom.errors import NomnomError
from nomnom.retry import RetryPolicy, retry
from nomnom.tables import quote

T = TypeVar("T")

AHEAD = 3
"""Partitions that exist ahead of the present one; rows of any other time are in the default partition."""
_LOCKED = RetryPolicy(first=0.05, longest=1.0, jitter=1.0)
_WAIT = 120.0
_OTHER = 3600.0
_LOCK = 0x6E6F6D6E6F6E
"""The advisory lock of partitioning; not that of migrations, which is held in a transaction."""
_KIND = "SELECT relkind::text FROM pg_class WHERE oid = to_regclass($1)"
_PARTITIONS = "SELECT name, low, high, is_default FROM nomnom_partitions($1) ORDER BY low NULLS FIRST"
_ADD = "SELECT nomnom_add_partition($1, $2, $3)"
_DROP = "SELECT nomnom_drop_partition($1, $2)"
# Left by an interrupted run.
_INVALID = """
SELECT class.relname::text AS name FROM pg_index JOIN pg_class AS class ON class.oid = indexrelid
WHERE indrelid = to_regclass($1) AND NOT indisvalid
"""
_LATEST = "SELECT greatest(max({time}), clock_timestamp()) FROM {table}"
_CUTOFF = """
SELECT format(
    'ALTER TABLE %I ADD CONSTRAINT %I CHECK (%I < %L) NOT VALID', $1::text, $1 || '_before_cutoff', $2::text, $3::text
)
"""
_CUTOFF_DROP = "ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {table}_before_cutoff"
_CUTOFF_VALIDATE = "ALTER TABLE {table} VALIDATE CONSTRAINT {table}_before_cutoff"
_SET = """
SELECT set_config('nomnom.table', $1, true), set_config('nomnom.since', $2, true), set_config('nomnom.cutoff', $3, true)
"""


class PartitionError(NomnomError):
    """A partition that cannot be added or dropped."""


class Period(StrEnum):
    """The time that a partition spans."""

    DAY = "day"
    MONTH = "month"

    def begin(self, moment: datetime) -> datetime:
        """The beginning of the period (UTC) that contains a moment."""
        day = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        return day if self is Period.DAY else day.replace(day=1)

    def next(self, begin: datetime) -> datetime:
        """The beginning of the next period."""
        return self.begin(begin + timedelta(days=1 if self is Period.DAY else 31))


PERIODS = {"message_status": Period.DAY, "nomnom_audit": Period.MONTH, "nomnom_archive": Period.MONTH}
"""The partitioned tables."""
_CONVERTED = {"message_status": "received_at", "nomnom_audit": "at"}
"""The tables that earlier versions did not partition, and the columns of their times."""


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition and its bounds; None is unbounded."""

    name: str
    low: datetime | None
    high: datetime | None
    is_default: bool


async def list_partitions(connection: asyncpg.Connection, table: str) -> list[Partition]:
    """The partitions of a table, the oldest first."""
    return [Partition(**dict(row)) for row in await connection.fetch(_PARTITIONS, table)]


async def add_partitions(connection: asyncpg.Connection, table: str, now: datetime, ahead: int = AHEAD) -> list[str]:
    """Add the missing partitions from the present period on; returns their names. Waits for locks for a while."""
    period = PERIODS[table]
    present = await list_partitions(connection, table)
    highest = max((each.high for each in present if each.high), default=None)
    added: list[str] = []
    low = period.begin(now)
    for _ in range(ahead + 1):
        high = period.next(low)
        if highest is None or low >= highest:
            add = partial(connection.fetchval, _ADD, table, low, high)
            added.append(str(await _without_waiting(add, table)))
        low = high
    return added


async def drop_partition(connection: asyncpg.Connection, table: str, name: str) -> None:
    """Drop a partition and its rows; waits for locks for a while, but never makes writers wait."""
    await _without_waiting(partial(connection.execute, _DROP, table, name), table)


async def partition_tables(connection: asyncpg.Connection) -> list[str]:
    """Partition the tables of earlier versions, and add missing partitions; returns what was done.

    Workers may write meanwhile: indexes are built concurrently, and the swap at the end waits for no lock. The existing
    table becomes the first partition. May be repeated after an interruption. Must not run in a transaction.
    """
    done: list[str] = []
    async with _alone(connection):
        for table, period in PERIODS.items():
            if table in _CONVERTED and await connection.fetchval(_KIND, table) != "p":
                await _convert(connection, table)
                done.append(f"table {table}: partitioned by {period}")
            added = await add_partitions(connection, table, datetime.now(UTC))
            done += [f"table {table}: partition {name} added" for name in added]
    return done


@asynccontextmanager
async def _alone(connection: asyncpg.Connection) -> AsyncGenerator[None]:
    """Only one connection at a time. The lock is tried, not waited for: building an index concurrently would wait for
    the waiting statement's snapshot in turn.
    """

    async def acquire() -> None:
        if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):
            raise asyncpg.LockNotAvailableError("another setup is partitioning the tables")

    await retry(acquire, _LOCKED, (asyncpg.LockNotAvailableError,), within=_OTHER)
    try:
        yield
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", _LOCK)


async def _convert(connection: asyncpg.Connection, table: str) -> None:
    since: datetime = await connection.fetchval("SELECT clock_timestamp()")  # pyright: ignore[reportAssignmentType]
    cutoff = await _prepare(connection, table)
    await _without_waiting(lambda: _swap(connection, table, since, cutoff), table)


async def _prepare(connection: asyncpg.Connection, table: str) -> datetime:
    """Build what the swap needs; returns the time before which the rows of the existing table remain in it."""
    for row in await connection.fetch(_INVALID, table):
        await connection.execute(f"DROP INDEX CONCURRENTLY {quote(row['name'])}")
    for step in _script(f"{table}_prepare").split(";\n"):
        if step.strip():
            await connection.execute(step)
    await connection.execute(_CUTOFF_DROP.format(table=table))
    time, period = _CONVERTED[table], PERIODS[table]
    latest: datetime = await connection.fetchval(  # pyright: ignore[reportAssignmentType]
        _LATEST.format(table=table, time=time)
    )
    # Later than a clock of an API that is wrong is expected to be.
    cutoff = period.next(period.begin(latest + timedelta(days=1)))
    await connection.execute(str(await connection.fetchval(_CUTOFF, table, time, cutoff.isoformat())))
    await connection.execute(_CUTOFF_VALIDATE.format(table=table))
    return cutoff


async def _swap(connection: asyncpg.Connection, table: str, since: datetime, cutoff: datetime) -> None:
    async with connection.transaction():
        await connection.execute("SET LOCAL lock_timeout = '40ms'")
        await connection.execute(_SET, table, since.isoformat(), cutoff.isoformat())
        await connection.execute(_script(f"{table}_swap"))
        await connection.execute(_script("attach"))


def _script(name: str) -> str:
    return (files("nomnom.migrations") / f"partition_{name}.sql").read_text()


async def _without_waiting(attempt: Callable[[], Awaitable[T]], table: str) -> T:
    """Try again while a lock is not available at once."""
    try:
        return await retry(attempt, _LOCKED, (asyncpg.LockNotAvailableError,), within=_WAIT)
    except asyncpg.LockNotAvailableError as error:
        raise PartitionError(
            f"table {table}: no lock in {_WAIT:g} s ({error}); end the transaction that is open on it, then try again"
        ) from error
