"""Errors of PostgreSQL that messages and tables cause: each affects what caused it, and nothing else."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

import asyncpg
import pytest
from worker_harness import (
    START,
    Running,
    dead_letters,
    order,
    publish,
    publish_orders,
    status,
    until,
    until_drained,
    until_status,
    worker,
)

from conftest import Deployment
from nomnom.envelope import from_microseconds

_RAISING = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF new.o_orderkey % 100 = 7 THEN RAISE EXCEPTION 'credit limit exceeded' USING ERRCODE = '{code}'; END IF;
    RETURN new;
END $$;
CREATE TRIGGER refusing BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION refuse();
"""
_SLOW = """
CREATE FUNCTION delay() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep({seconds}); RETURN new; END $$;
CREATE TRIGGER delaying BEFORE INSERT ON orders FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION delay();
"""
CUSTOMER = "C|{key}|name|address|1|phone|1.00|BUILDING|comment"


@pytest.mark.parametrize("code", ["BR001", "42501", "XX000", "38001", "53100", "57P01", "08006", "40001"])
async def test_error_raised_for_one_row_fails_its_message_only(deployment: Deployment, code: str) -> None:
    await deployment.database.execute(_RAISING.format(code=code))
    ids = await publish_orders(deployment, range(300))
    async with worker(deployment.settings) as running:
        await until_drained(deployment)
        assert await running.metric('outage{server="postgresql"}') == 0
        assert await running.metric('failed_total{reason="data"}') == 9
    rejected = {ids[key] for key in (7, 107, 207)}
    rows = await deployment.database.fetch("SELECT message_id, status, retry_count, error_message FROM message_status")
    failed = [row for row in rows if row["status"] != "completed"]
    assert {str(row["message_id"]) for row in failed} == rejected
    assert {(row["status"], row["retry_count"], row["error_message"]) for row in failed} == {
        ("dlq", 3, "credit limit exceeded")
    }
    assert await deployment.database.fetchval("SELECT count(*) FROM orders") == 297
    found = await dead_letters(deployment)
    assert {each.headers["Nomnom-Error"] for each in found} == {"credit limit exceeded"}


async def test_row_level_security_fails_the_rows_that_it_rejects(deployment: Deployment) -> None:
    name = f"limited_{urlsplit(deployment.settings.database_url).path[1:]}"
    await deployment.database.execute(
        f"CREATE ROLE {name} LOGIN PASSWORD 'secret';"
        f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {name};"
        "ALTER TABLE orders ENABLE ROW LEVEL SECURITY;"
        "CREATE POLICY few ON orders USING (o_orderkey <> 5) WITH CHECK (o_orderkey <> 5)"
    )
    parts = urlsplit(deployment.settings.database_url)
    url = f"postgresql://{name}:secret@{parts.hostname}:{parts.port}{parts.path}"
    try:
        ids = await publish_orders(deployment, range(20))
        async with worker(deployment.settings, database_url=url):
            row = await until_status(deployment, ids[5], "dlq")
            await until_drained(deployment)
        assert "row-level security" in row["error_message"]
        assert await deployment.database.fetchval("SELECT count(*) FROM orders") == 19
    finally:
        await deployment.database.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


async def test_batch_that_is_too_slow_is_halved(deployment: Deployment) -> None:
    await deployment.database.execute(_SLOW.format(seconds=0.02, condition="true"))
    ids = await publish_orders(deployment, range(400))
    async with worker(deployment.settings, database_timeout=1.0) as running:
        await until_drained(deployment, wait=60)
        assert await running.metric('failed_total{reason="data"}') == 0
        assert await running.metric('outage{server="postgresql"}') == 0
    assert await deployment.database.fetchval("SELECT count(*) FROM orders") == len(ids)


async def test_message_that_is_too_slow_fails_alone(deployment: Deployment) -> None:
    await deployment.database.execute(_SLOW.format(seconds=30, condition="new.o_orderkey = 3"))
    ids = await publish_orders(deployment, range(8))
    async with worker(deployment.settings, database_timeout=0.5):
        row = await until_status(deployment, ids[3], "dlq", wait=40)
        await until_drained(deployment)
    assert row["retry_count"] == 3
    assert "DATABASE_TIMEOUT" in row["error_message"]
    assert await deployment.database.fetchval("SELECT count(*) FROM orders") == 7


async def test_locked_status_row_delays_its_message_only(deployment: Deployment) -> None:
    ids = await publish_orders(deployment, range(6))
    other = await asyncpg.connect(deployment.settings.database_url)
    async with worker(deployment.settings, database_timeout=0.5, retry_backoff_max=1.0) as running:
        await until_drained(deployment)
        again = (
            "INSERT INTO message_status (message_id, entity_type, status, received_at)"
            " VALUES ($1, 'orders', 'failed', $2)"
        )
        held = "01890000-0000-7000-8000-000000000001"
        async with other.transaction():
            await other.execute(again, held, from_microseconds(START))
            await publish(deployment, order(100), held)
            more = [await publish(deployment, order(key)) for key in range(101, 110)]
            for each in more:
                await until_status(deployment, each, "completed")
            assert await running.metric('outage{server="postgresql"}') == 0
        await until_status(deployment, held, "completed")
        await until_drained(deployment)
    assert await deployment.database.fetchval("SELECT count(*) FROM orders") == len(ids) + 10
    await other.close()


@pytest.mark.parametrize(
    ("alter", "repair", "reason"),
    [
        (
            "ALTER TABLE orders RENAME COLUMN o_clerk TO clerk",
            "ALTER TABLE orders RENAME COLUMN clerk TO o_clerk",
            "o_clerk",
        ),
        ("ALTER TABLE orders RENAME TO archive", "ALTER TABLE archive RENAME TO orders", "does not exist"),
        (
            "ALTER TABLE orders ADD region text NOT NULL DEFAULT ''; ALTER TABLE orders ALTER region DROP DEFAULT",
            "ALTER TABLE orders ALTER region SET DEFAULT ''",
            "requires column region",
        ),
        (
            "ALTER TABLE orders DROP CONSTRAINT orders_pkey",
            "ALTER TABLE orders ADD PRIMARY KEY (o_orderkey)",
            "ON CONFLICT",
        ),
    ],
    ids=["column renamed", "table renamed", "column added", "key dropped"],
)
async def test_altered_table_stops_its_own_entity(deployment: Deployment, alter: str, repair: str, reason: str) -> None:
    async with worker(deployment.settings) as running:
        before = await publish(deployment, order(1))
        await until_status(deployment, before, "completed")
        await deployment.database.execute(alter)
        stopped = [await publish(deployment, order(key)) for key in range(2, 12)]
        state = await until(lambda: _stopped(running, reason))
        assert (state["status"], state["database"]["ready"]) == ("degraded", True)
        assert await running.metric('entity_stopped{entity="orders"}') == 1
        others = [await publish(deployment, CUSTOMER.format(key=key)) for key in range(20)]
        for each in others:
            await until_status(deployment, each, "completed")
        await asyncio.sleep(3.5)  # several deliveries, more than there are attempts
        assert await _stopped(running, reason)
        assert await running.metric("dead_letters_total") == 0
        await deployment.database.execute(repair)
        rows = [await until_status(deployment, each, "completed") for each in stopped]
        await until(lambda: _ready(running))
        assert await running.metric('entity_stopped{entity="orders"}') == 0
        assert await running.metric('failed_total{reason="data"}') == 0
    assert {row["retry_count"] for row in rows} == {0}
    assert await dead_letters(deployment) == []


async def test_revoked_privilege_stops_its_own_entity(deployment: Deployment) -> None:
    name = f"limited_{urlsplit(deployment.settings.database_url).path[1:]}"
    await deployment.database.execute(
        f"CREATE ROLE {name} LOGIN PASSWORD 'secret'; GRANT ALL ON ALL TABLES IN SCHEMA public TO {name};"
        f"REVOKE INSERT ON orders FROM {name}"
    )
    parts = urlsplit(deployment.settings.database_url)
    url = f"postgresql://{name}:secret@{parts.hostname}:{parts.port}{parts.path}"
    try:
        async with worker(deployment.settings, database_url=url) as running:
            stopped = await publish(deployment, order(1))
            other = await publish(deployment, CUSTOMER.format(key=1))
            await until(lambda: _stopped(running, "permission denied for table orders"))
            await until_status(deployment, other, "completed")
            await deployment.database.execute(f"GRANT INSERT ON orders TO {name}")
            row = await until_status(deployment, stopped, "completed")
        assert row["retry_count"] == 0
    finally:
        await deployment.database.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


async def test_locked_table_stops_its_own_entity(deployment: Deployment) -> None:
    other = await asyncpg.connect(deployment.settings.database_url)
    async with worker(deployment.settings, database_timeout=2.0) as running:
        async with other.transaction():
            await other.execute("LOCK TABLE orders")
            stopped = [await publish(deployment, order(key)) for key in range(5)]
            await until(lambda: _stopped(running, "locked"))
            free = await publish(deployment, CUSTOMER.format(key=1))
            await until_status(deployment, free, "completed")
        for each in stopped:
            assert (await until_status(deployment, each, "completed"))["retry_count"] == 0
    await other.close()


async def test_message_with_rows_of_a_stopped_entity_is_not_written_in_part(deployment: Deployment) -> None:
    await deployment.database.execute("ALTER TABLE lineitem RENAME TO archive")
    line = "OLI|1|789|1|100|123.45|0.05|0.07|N|O|2024-01-01|2024-01-02|2024-01-03|DELIVER|SHIP|test"
    async with worker(deployment.settings) as running:
        both = await publish(deployment, f"{order(1)}\n{line}")
        await until(lambda: _stopped(running, "lineitem"))
        alone = await publish(deployment, order(2))
        await until_status(deployment, alone, "completed")
        await asyncio.sleep(4)
        row = await status(deployment, both)
        assert row is None or (row["status"], row["retry_count"]) != ("completed", 0)
        assert await deployment.database.fetchval("SELECT count(*) FROM orders") == 1
        await deployment.database.execute("ALTER TABLE archive RENAME TO lineitem")
        await until_status(deployment, both, "completed")
    assert await deployment.database.fetchval("SELECT count(*) FROM lineitem") == 1
    assert await dead_letters(deployment) == []


async def test_unusable_status_table_is_one_outage_with_one_reason(deployment: Deployment) -> None:
    async with worker(deployment.settings) as running:
        await until(lambda: _ready(running))
        await deployment.database.execute("ALTER TABLE message_status RENAME TO elsewhere")
        message_id = await publish(deployment, order(1))
        reasons = set()
        metrics = set()
        await until(lambda: _outage(running))
        for _ in range(40):
            reasons.add(await _outage(running))
            metrics.add(await running.metric('outage{server="postgresql"}'))
            await asyncio.sleep(0.05)
        assert metrics == {1}
        assert len(reasons) == 1
        await deployment.database.execute("ALTER TABLE elsewhere RENAME TO message_status")
        row = await until_status(deployment, message_id, "completed")
        await until(lambda: _ready(running))
    assert row["retry_count"] == 0


async def _stopped(running: Running, reason: str):
    state = (await running.get("/ready")).json()
    return state if reason in (state["entities"]["reason"] or "") else None


async def _outage(running: Running) -> str | None:
    return (await running.get("/ready")).json()["database"]["reason"]


async def _ready(running: Running) -> bool:
    try:
        return (await running.get("/ready")).json()["status"] == "ready"
    except OSError:
        return False
