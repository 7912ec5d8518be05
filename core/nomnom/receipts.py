"""Messages by time of receipt: counted in steps of ten minutes, which ``nomnom_steps`` keeps.

The housekeeper counts the steps in which something changed since the last count. So does a reader, without keeping
them: what it reads is exact, whether or not a housekeeper runs.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import asyncpg

from nomnom.connections.postgres import Database
from nomnom.envelope import Status

KEPT = timedelta(days=8)
"""How far back steps are kept: more than any screen shows."""
_STEP = timedelta(minutes=10)
_OPEN = timedelta(seconds=60)
"""How long a transaction may be open: its rows may have an earlier ``processed_at`` than a count that missed them."""
_FILLED = 144
"""Steps that one run adds which were never counted: a day's."""
_SECONDS = 10.0

_STORED = """
SELECT step, status, messages, superseded FROM nomnom_steps WHERE step >= $1
"""
_COUNTED_AT = "SELECT max(counted_at) FROM nomnom_steps"
_CHANGED = """
SELECT DISTINCT date_bin($1, received_at, 'epoch') AS step
FROM message_status
WHERE processed_at >= $2 AND received_at >= $3
"""
_COUNT = """
SELECT step, status, messages, superseded
FROM unnest($1::timestamptz[]) AS given (step)
CROSS JOIN LATERAL (
    SELECT status, count(*) AS messages, count(*) FILTER (WHERE superseded) AS superseded
    FROM message_status
    WHERE received_at >= step AND received_at < step + $2::interval
    GROUP BY status
) AS counted
"""
_FORGET = "DELETE FROM nomnom_steps WHERE step = ANY ($1) OR step < $2"
# A step without messages is stored, too: it does not have to be counted again.
_STORE = """
INSERT INTO nomnom_steps (step, status, messages, superseded, counted_at) VALUES ($1, $2, $3, $4, $5)
"""


@dataclass(frozen=True, slots=True)
class HourCount:
    """Messages received in the hour that begins at ``hour`` (UTC), by their present status."""

    hour: datetime
    status: Status
    messages: int
    superseded: int


@dataclass(frozen=True, slots=True)
class _StepCount:
    step: datetime
    status: str
    messages: int
    superseded: int


async def read_hours(database: Database, hours: int) -> list[HourCount]:
    """Messages by hour of receipt and status, for the last ``hours`` hours; hours without messages are left out.

    Raises DatabaseUnavailable, NotSetUp or DatabaseRefused.
    """
    now = datetime.now(UTC)
    begin = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=hours - 1)
    async with database.connection(_SECONDS, snapshot=True) as connection:
        stored = [_StepCount(*row) for row in await connection.fetch(_STORED, begin)]
        changed = await _changed(connection, begin)
        changed |= _steps(begin, now) - {each.step for each in stored}
        counted = await _count(connection, changed)
    messages, superseded = Counter[tuple[datetime, str]](), Counter[tuple[datetime, str]]()
    for each in (*(each for each in stored if each.step not in changed), *counted):
        key = each.step.replace(minute=0), each.status
        messages[key] += each.messages
        superseded[key] += each.superseded
    return [
        HourCount(hour, Status(status), messages[hour, status], superseded[hour, status])
        for hour, status in sorted(messages)
        if messages[hour, status]
    ]


async def keep_steps(database: Database, now: datetime | None = None) -> None:
    """Count the steps in which something changed, and some that were never counted.

    Raises DatabaseUnavailable, NotSetUp or DatabaseRefused.
    """
    now = now or datetime.now(UTC)
    oldest = _begin(now - KEPT)
    async with database.connection() as connection:
        started = await connection.fetchval("SELECT clock_timestamp()")
        stored = {row["step"] for row in await connection.fetch(_STORED, oldest)}
        steps = await _changed(connection, oldest)
        steps |= set(sorted(_steps(oldest, now) - stored, reverse=True)[:_FILLED])
        found = await _count(connection, steps)
        empty = steps - {each.step for each in found}
        found += [_StepCount(each, Status.COMPLETED, 0, 0) for each in sorted(empty)]
        await connection.execute(_FORGET, list(steps), oldest)
        rows = [(each.step, each.status, each.messages, each.superseded, started) for each in found]
        await connection.executemany(_STORE, rows)


async def _changed(connection: asyncpg.Connection, oldest: datetime) -> set[datetime]:
    """The steps that changed since they were counted; none if nothing was counted."""
    counted_at = await connection.fetchval(_COUNTED_AT)
    if counted_at is None:
        return set()
    rows = await connection.fetch(_CHANGED, _STEP, counted_at - _OPEN, oldest)
    return {row["step"] for row in rows}


async def _count(connection: asyncpg.Connection, steps: set[datetime]) -> list[_StepCount]:
    return [_StepCount(*row) for row in await connection.fetch(_COUNT, sorted(steps), _STEP)]


def _begin(moment: datetime) -> datetime:
    return moment.replace(minute=moment.minute // 10 * 10, second=0, microsecond=0)


def _steps(begin: datetime, end: datetime) -> set[datetime]:
    """The steps from a moment to another."""
    first = _begin(begin)
    return {first + each * _STEP for each in range((end - first) // _STEP + 1)}
