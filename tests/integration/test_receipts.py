"""Messages by hour of receipt: the kept steps and what changed since give the numbers that counting gives."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from conftest import Deployment
from nomnom.connections.postgres import Database
from nomnom.envelope import new_message_id
from nomnom.receipts import KEPT, keep_steps, read_hours

_ADD = """
INSERT INTO message_status (message_id, entity_type, status, received_at, processed_at, superseded)
VALUES ($1, 'orders', $2, $3, $4, $5)
"""
_COMPLETE = """
UPDATE message_status SET status = 'completed', processed_at = statement_timestamp() WHERE message_id = $1
"""
_COUNTED = """
SELECT date_trunc('hour', received_at, 'UTC') AS hour, status, count(*) AS messages,
       count(*) FILTER (WHERE superseded) AS superseded
FROM message_status WHERE received_at >= $1 GROUP BY 1, 2 ORDER BY 1, 2
"""
_SPAN = 48


@pytest.fixture
async def database(deployment: Deployment) -> Database:
    return Database(deployment.settings.database_url, application="test", seconds=10.0)


async def counted(deployment: Deployment) -> list[tuple[object, ...]]:
    begin = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=_SPAN - 1)
    return [tuple(row) for row in await deployment.database.fetch(_COUNTED, begin)]


async def read(database: Database) -> list[tuple[object, ...]]:
    return [(each.hour, each.status, each.messages, each.superseded) for each in await read_hours(database, _SPAN)]


@pytest.mark.parametrize("seed", range(3))
async def test_hours_are_exact_whenever_steps_are_kept(deployment: Deployment, database: Database, seed: int) -> None:
    chance = random.Random(seed)
    added: list[str] = []
    for _ in range(12):
        for _ in range(chance.randrange(1, 8)):
            at = datetime.now(UTC) - timedelta(minutes=chance.uniform(0, 60 * (_SPAN + 2)))
            added.append(new_message_id())
            status = chance.choice(("completed", "failed", "dlq"))
            await deployment.database.execute(
                _ADD, added[-1], status, at, datetime.now(UTC), chance.random() < 0.2 and status == "completed"
            )
        await deployment.database.execute(_COMPLETE, chance.choice(added))
        if chance.random() < 0.5:
            await keep_steps(database)
        assert await read(database) == await counted(deployment)
    await database.close()


async def test_kept_steps_are_not_counted_again(deployment: Deployment, database: Database) -> None:
    """The control: a change with an old time of processing, which no worker makes, is not noticed."""
    old = datetime.now(UTC) - timedelta(hours=5)
    for _ in range(2):
        await deployment.database.execute(_ADD, new_message_id(), "completed", old, old, False)
    await keep_steps(database)
    before = await read(database)
    await deployment.database.execute(_ADD, new_message_id(), "completed", old, old, False)
    assert await read(database) == before != await counted(deployment)
    await keep_steps(database, datetime.now(UTC) + KEPT)
    assert not await deployment.database.fetchval("SELECT sum(messages) FROM nomnom_steps")
    await database.close()
