"""message_status on real servers: the conversion to a partitioned table while workers write, and its partitions."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from datetime import UTC, datetime, timedelta
from importlib.resources import files

import asyncpg
import pytest

from conftest import Deployment
from nomnom.database import migrate
from nomnom.envelope import idempotent_message_id
from nomnom.partitions import add_partitions, drop_partition, list_partitions, partition_tables
from nomnom.roles import Role, ensure_roles
from nomnom.schema import load_schema
from nomnom.setup import set_up

EARLIER = """
INSERT INTO message_status (message_id, entity_type, status, received_at, processed_at)
VALUES ($1, 'orders', 'completed', now(), now())
"""
FILL = """
INSERT INTO message_status (message_id, entity_type, status, received_at, processed_at)
SELECT gen_random_uuid(), 'orders', CASE WHEN n % 100 = 0 THEN 'dlq' ELSE 'completed' END,
       now() - n * interval '1 minute', now() - n * interval '1 minute'
FROM generate_series(1, 50000) AS n
"""
AUDIT = """
INSERT INTO nomnom_audit (event, run, at, actor, action, message_id, entity, result)
SELECT gen_random_uuid(), gen_random_uuid(), now() - n * interval '1 hour', 'someone', 'replay', gen_random_uuid(),
       'orders', 'replayed'
FROM generate_series(1, 5000) AS n
"""
KEYED = idempotent_message_id("caller", "key")


@pytest.fixture
async def earlier(deployment: Deployment) -> Deployment:
    """A deployment with the tables of an earlier version, filled."""
    database = deployment.database
    await database.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    scripts = files("nomnom.migrations")
    await database.execute(
        "CREATE TABLE nomnom_migrations (name text PRIMARY KEY, checksum text NOT NULL,"
        " applied_at timestamptz NOT NULL DEFAULT clock_timestamp())"
    )
    for name in ("0001_message_status.sql", "0002_replay_audit.sql", "0003_message_status_processed.sql"):
        script = (scripts / name).read_text()
        await database.execute(script)
        checksum = hashlib.sha256(script.encode()).hexdigest()
        await database.execute("INSERT INTO nomnom_migrations (name, checksum) VALUES ($1, $2)", name, checksum)
    await database.execute(FILL)
    await database.execute(AUDIT)
    await database.execute(EARLIER, uuid.UUID(KEYED))
    return deployment


async def test_existing_table_becomes_the_first_partition(earlier: Deployment) -> None:
    done = await set_up(earlier.settings, wait=5)
    assert "table message_status: partitioned by day" in done
    present = {each.name: each for each in await list_partitions(earlier.database, "message_status")}
    assert present["message_status_before"].low is None
    assert present["message_status_before"].high is not None
    count = await earlier.database.fetchval("SELECT count(*) FROM message_status_before")
    assert count == await earlier.database.fetchval("SELECT count(*) FROM message_status") == 50_001
    assert await earlier.database.fetchval("SELECT message_id::text FROM nomnom_keys") == KEYED
    assert await set_up(earlier.settings, wait=5) == [
        "stream MESSAGES: up to date",
        "stream MESSAGESDLQ: up to date",
        "consumer workers: up to date",
        "tables: up to date",
    ]


async def test_writers_continue_during_the_conversion(earlier: Deployment) -> None:
    written: list[uuid.UUID] = []
    stop = asyncio.Event()

    async def write() -> None:
        connection = await asyncpg.connect(earlier.settings.database_url)
        try:
            while not stop.is_set():
                each = uuid.uuid4()
                await connection.execute(EARLIER, each)
                written.append(each)
        finally:
            await connection.close()

    writer = asyncio.create_task(write())
    try:
        await set_up(earlier.settings, wait=5)
    finally:
        stop.set()
        await writer
    assert written
    found = await earlier.database.fetchval(
        "SELECT count(*) FROM message_status WHERE message_id = ANY ($1::uuid[])", written
    )
    assert found == len(written)


async def test_conversion_waits_for_no_lock_and_keeps_no_writer_waiting(earlier: Deployment) -> None:
    await migrate(earlier.database, load_schema("tpch"))
    reader = await asyncpg.connect(earlier.settings.database_url)
    writer = await asyncpg.connect(earlier.settings.database_url)
    setup = await asyncpg.connect(earlier.settings.database_url)
    converting = None
    try:
        await partition_tables(setup)  # builds everything once, so that only the lock is left to wait for
        await setup.execute("SELECT nomnom_add_partition('message_status', '2100-01-01', '2100-01-02')")
        transaction = reader.transaction()
        await transaction.start()
        await reader.fetchval("SELECT count(*) FROM message_status WHERE status = 'dlq'")
        converting = asyncio.create_task(drop_partition(setup, "message_status", "message_status_21000101"))
        for _ in range(20):
            # A writer that had to queue after a waiting ALTER TABLE would time out.
            await writer.execute(EARLIER, uuid.uuid4(), timeout=2)
            await asyncio.sleep(0.02)
        assert not converting.done()
        await transaction.rollback()
        await asyncio.wait_for(converting, 20)
    finally:
        if converting is not None:
            converting.cancel()
        for each in (reader, writer, setup):
            await each.close()
    names = [each.name for each in await list_partitions(earlier.database, "message_status")]
    assert "message_status_21000101" not in names


async def test_interrupted_conversion_is_completed_by_the_next_setup(earlier: Deployment) -> None:
    await migrate(earlier.database, load_schema("tpch"))
    # As left by a connection lost while the index was built.
    await earlier.database.execute(
        "CREATE UNIQUE INDEX message_status_before_identity ON message_status (message_id, received_at)"
    )
    await earlier.database.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'message_status_before_identity'::regclass"
    )
    await earlier.database.execute(
        "ALTER TABLE message_status ADD CONSTRAINT message_status_before_cutoff"
        " CHECK (received_at < 'infinity') NOT VALID"
    )
    assert "table message_status: partitioned by day" in await set_up(earlier.settings, wait=5)
    assert await earlier.database.fetchval("SELECT count(*) FROM message_status") == 50_001


async def test_roles_keep_their_privileges(earlier: Deployment) -> None:
    role = Role("api", f"api_{uuid.uuid4().hex[:8]}", "secret")
    await earlier.database.execute(f"CREATE ROLE \"{role.name}\" LOGIN PASSWORD 'secret'")
    await earlier.database.execute(f'GRANT SELECT ON message_status TO "{role.name}"')
    await migrate(earlier.database, load_schema("tpch"))
    await partition_tables(earlier.database)
    assert await earlier.database.fetchval("SELECT has_table_privilege($1, 'message_status', 'SELECT')", role.name)
    await ensure_roles(earlier.database, load_schema("tpch"), [role])


async def test_row_of_a_time_without_partition_is_moved_into_its_partition(deployment: Deployment) -> None:
    far = datetime(2099, 5, 5, 12, tzinfo=UTC)
    message_id = uuid.uuid4()
    await deployment.database.execute(
        "INSERT INTO message_status (message_id, entity_type, status, received_at) VALUES ($1, 'orders', 'dlq', $2)",
        message_id,
        far,
    )
    assert await deployment.database.fetchval("SELECT count(*) FROM message_status_default") == 1
    await add_partitions(deployment.database, "message_status", far - timedelta(days=1), ahead=1)
    assert await deployment.database.fetchval("SELECT count(*) FROM message_status_default") == 0
    assert await deployment.database.fetchval("SELECT count(*) FROM message_status_20990505") == 1


async def test_only_partitions_can_be_dropped(deployment: Deployment) -> None:
    for name in ("orders", "message_status_default"):
        with pytest.raises(asyncpg.RaiseError, match="is not a partition"):
            await deployment.database.execute("SELECT nomnom_drop_partition('message_status', $1)", name)


async def test_existing_audit_log_becomes_the_first_partition(earlier: Deployment) -> None:
    database = earlier.database
    before = await database.fetch("SELECT * FROM nomnom_audit ORDER BY id")
    writer = Role("operator", f"operator_{uuid.uuid4().hex[:12]}", "password")
    await database.execute(f"CREATE ROLE {writer.name}; GRANT USAGE ON SCHEMA public TO {writer.name}")
    await database.execute(f"GRANT SELECT, INSERT ON nomnom_audit TO {writer.name}")
    try:
        done = await set_up(earlier.settings, wait=5)
        assert "table nomnom_audit: partitioned by month" in done
        assert [dict(row) for row in await database.fetch("SELECT * FROM nomnom_audit ORDER BY id")] == [
            dict(row) for row in before
        ]
        await database.execute(f"SET ROLE {writer.name}")
        await database.execute(AUDIT.replace("- n * interval '1 hour'", "+ n * interval '1 minute'"))
        await database.execute("RESET ROLE")
        assert await database.fetchval("SELECT min(id) FROM nomnom_audit WHERE at > now()") == before[-1]["id"] + 1
        partitions = {
            row[0] for row in await database.fetch("SELECT DISTINCT tableoid::regclass::text FROM nomnom_audit")
        }
        assert partitions <= {each.name for each in await list_partitions(database, "nomnom_audit")}
        assert not [line for line in await set_up(earlier.settings, wait=5) if line.startswith("table ")]
    finally:
        await database.execute(f"RESET ROLE; DROP OWNED BY {writer.name}; DROP ROLE {writer.name}")


async def test_audit_log_is_written_while_it_is_partitioned(earlier: Deployment) -> None:
    """Entries of the present version, before and after the swap, and of one that waits for it."""
    writing, written = True, 0
    other = await asyncpg.connect(earlier.settings.database_url)

    async def write() -> None:
        nonlocal written
        while writing:
            await other.execute(AUDIT.replace("5000", "1"))
            written += 1

    task = asyncio.create_task(write())
    try:
        await migrate(earlier.database, load_schema("tpch"))
        await partition_tables(earlier.database)
    finally:
        writing = False
        await task
        await other.close()
    assert written > 0
    assert await earlier.database.fetchval("SELECT count(*) FROM nomnom_audit") == 5000 + written
    assert await earlier.database.fetchval("SELECT count(DISTINCT id) FROM nomnom_audit") == 5000 + written
