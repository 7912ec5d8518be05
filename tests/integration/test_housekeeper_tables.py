"""Retention of tables on real servers: what is dropped, what is retained, and that writers never wait for it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from housekeeper_harness import tasks

from conftest import Deployment
from nomnom.envelope import new_message_id
from nomnom.partitions import PERIODS, Period, list_partitions

NOW = (datetime.now(UTC) + timedelta(days=3650)).replace(day=15, hour=12)
"""Later than every partition that setup has added."""
ROW = """
INSERT INTO message_status (message_id, entity_type, status, received_at, processed_at, stream_position)
VALUES ($1, 'orders', $2, $3, $3, $4)
"""
KEY = "INSERT INTO nomnom_keys (message_id, digest, received_at, stream_position) VALUES ($1, 'digest', $2, 1)"


async def partition(deployment: Deployment, table: str, low: datetime) -> str:
    """Add a partition for the period that begins at ``low``."""
    high = PERIODS[table].next(low)
    name = await deployment.database.fetchval("SELECT nomnom_add_partition($1, $2, $3)", table, low, high)
    return str(name)


async def names(deployment: Deployment, table: str) -> set[str]:
    return {each.name for each in await list_partitions(deployment.database, table)}


async def test_partitions_are_added_ahead(deployment: Deployment) -> None:
    async with tasks(deployment) as own:
        upkeep = await own.tables.run(NOW)
        assert (await own.tables.run(NOW)).added == []
    assert {f"message_status_{NOW:%Y%m}{day}" for day in (15, 16, 17, 18)} <= set(upkeep.added)
    assert {f"nomnom_audit_{NOW:%Y%m}01", f"nomnom_archive_{NOW:%Y%m}01"} <= set(upkeep.added)
    for table, period in PERIODS.items():
        highest = max(each.high for each in await list_partitions(deployment.database, table) if each.high)
        assert highest > period.next(period.begin(NOW))


async def test_finished_messages_past_the_retention_are_dropped(deployment: Deployment) -> None:
    old, recent = NOW - timedelta(days=40), NOW - timedelta(days=20)
    dropped = await partition(deployment, "message_status", Period.DAY.begin(old))
    kept = await partition(deployment, "message_status", Period.DAY.begin(recent))
    for status in ("completed", "deleted", "purged", "expired"):
        for at in (old, recent):
            await deployment.database.execute(ROW, new_message_id(), status, at, 0)
    async with tasks(deployment) as own:
        upkeep = await own.tables.run(NOW)
        assert dropped in upkeep.dropped
        assert upkeep.retained == {}
    assert kept in await names(deployment, "message_status")
    assert await deployment.database.fetchval("SELECT count(*) FROM message_status") == 4


@pytest.mark.parametrize("status", ["processing", "failed", "dlq"])
async def test_partition_with_an_unfinished_message_is_retained(deployment: Deployment, status: str) -> None:
    old, message_id = NOW - timedelta(days=40), new_message_id()
    name = await partition(deployment, "message_status", Period.DAY.begin(old))
    await deployment.database.execute(ROW, new_message_id(), "completed", old, 0)
    await deployment.database.execute(ROW, message_id, status, old, 0)
    async with tasks(deployment) as own:
        assert (await own.tables.run(NOW)).retained == {name: f"it has unfinished messages: 1 {status}"}
        await deployment.database.execute("UPDATE message_status SET status = 'completed'")
        assert name in (await own.tables.run(NOW)).dropped


async def test_drop_refuses_a_message_that_came_to_life_after_the_check(deployment: Deployment) -> None:
    old = NOW - timedelta(days=40)
    name = await partition(deployment, "message_status", Period.DAY.begin(old))
    await deployment.database.execute(ROW, new_message_id(), "failed", old, 0)
    with pytest.raises(asyncpg.ObjectInUseError, match="not finished"):
        await deployment.database.execute("SELECT nomnom_drop_partition('message_status', $1)", name)
    assert name in await names(deployment, "message_status")


async def test_keys_and_copies_go_with_their_messages(deployment: Deployment) -> None:
    old, recent = NOW - timedelta(days=40), NOW - timedelta(days=20)
    await partition(deployment, "message_status", Period.DAY.begin(old))
    gone, kept, retained = new_message_id(), new_message_id(), new_message_id()
    await deployment.database.execute(KEY, gone, old)
    await deployment.database.execute(KEY, kept, recent)
    older = NOW - timedelta(days=50)
    await partition(deployment, "message_status", Period.DAY.begin(older))
    await deployment.database.execute(ROW, retained, "dlq", older, 0)
    await deployment.database.execute(KEY, retained, older)
    await deployment.database.execute(
        "INSERT INTO nomnom_sequences (position, message_id, kind, at)"
        " SELECT n, gen_random_uuid(), 'replay', CASE WHEN n <= 2500 THEN $1::timestamptz ELSE $2 END"
        " FROM generate_series(1, 2600) AS n",
        old, recent,
    )  # fmt: skip
    async with tasks(deployment) as own:
        await own.tables.run(NOW)
    rows = await deployment.database.fetch("SELECT message_id FROM nomnom_keys")
    assert {str(row["message_id"]) for row in rows} == {kept, retained}
    assert await deployment.database.fetchval("SELECT min(position) FROM nomnom_sequences") == 2501


async def test_audit_log_and_archive_have_their_own_retention(deployment: Deployment) -> None:
    month = Period.MONTH.begin(NOW - timedelta(days=200))
    audit = await partition(deployment, "nomnom_audit", month)
    archive = await partition(deployment, "nomnom_archive", month)
    late = await partition(deployment, "nomnom_archive", Period.MONTH.begin(month - timedelta(days=1)))
    await deployment.database.execute(
        "INSERT INTO nomnom_archive VALUES (1, $1, NULL, 'orders', $1, $1, 'data', '', '', '{}', '', $2)",
        month - timedelta(days=1), NOW - timedelta(days=10),
    )  # fmt: skip
    async with tasks(deployment) as own:
        upkeep = await own.tables.run(NOW)
    assert archive in upkeep.dropped
    assert upkeep.retained == {late: "it has dead letters that were archived later"}
    assert audit in await names(deployment, "nomnom_audit")
    async with tasks(deployment, housekeeper_audit_days=100, housekeeper_archive_days=5) as own:
        assert {audit, late} <= set((await own.tables.run(NOW)).dropped)


async def test_writers_do_not_wait_for_a_drop_that_waits_for_a_lock(deployment: Deployment) -> None:
    """A reader has the table open: the drop tries again, and writers pass it. Without the limit they queue."""
    old = NOW - timedelta(days=40)
    name = await partition(deployment, "message_status", Period.DAY.begin(old))
    reader = await asyncpg.connect(deployment.settings.database_url)
    dropper = await asyncpg.connect(deployment.settings.database_url)
    try:
        await reader.execute("BEGIN; SELECT count(*) FROM message_status")
        async with tasks(deployment) as own:
            dropping = asyncio.create_task(own.tables.run(NOW))
            await deployment.database.execute("SET statement_timeout = '2s'")
            for _ in range(200):
                await deployment.database.execute(ROW, new_message_id(), "completed", datetime.now(UTC), 0)
                await asyncio.sleep(0.005)
            assert not dropping.done()
            await dropper.execute("SET statement_timeout = '5s'")
            plain = asyncio.create_task(dropper.execute(f"ALTER TABLE message_status DETACH PARTITION {name}"))
            await asyncio.sleep(0.2)
            with pytest.raises(asyncpg.QueryCanceledError):
                await deployment.database.execute(ROW, new_message_id(), "completed", datetime.now(UTC), 0)
            with pytest.raises(asyncpg.QueryCanceledError):
                await plain
            await reader.execute("COMMIT")
            assert name in (await dropping).dropped
    finally:
        await reader.close()
        await dropper.close()
    assert name not in await names(deployment, "message_status")
