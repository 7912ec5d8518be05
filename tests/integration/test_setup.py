"""``nomnom setup`` on real servers: first run, repeated and concurrent runs, schema migrations."""

import asyncio
from importlib.resources import files

import asyncpg
import pytest

from conftest import Deployment
from nomnom.database import MigrationError, migrate
from nomnom.schema import parse_schema
from nomnom.setup import set_up

ONE = "schema: s\nentities:\n  - {name: t, tag: T, key: [a], fields: [{name: a, type: bigint}, {name: b, type: %s}%s]}"


async def test_second_run_changes_nothing(deployment: Deployment) -> None:
    done = await set_up(deployment.settings, wait=5)
    assert done == [
        "stream MESSAGES: up to date",
        "stream MESSAGESDLQ: up to date",
        "consumer workers: up to date",
        "tables: up to date",
    ]


async def test_concurrent_runs_are_safe(deployment: Deployment) -> None:
    await deployment.database.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    results = await asyncio.gather(*(set_up(deployment.settings, wait=10) for _ in range(5)))
    assert sum("table orders: created" in done for done in results) == 1
    applied = await deployment.database.fetchval("SELECT count(*) FROM nomnom_migrations WHERE name LIKE '0%'")
    assert applied == sum(each.name[0].isdigit() for each in files("nomnom.migrations").iterdir())


async def test_message_status_has_its_documented_columns(deployment: Deployment) -> None:
    rows = await deployment.database.fetch(
        "SELECT column_name AS name, data_type AS type FROM information_schema.columns"
        " WHERE table_name = 'message_status'"
    )
    types = {row["name"]: row["type"] for row in rows}
    assert (
        types.items()
        >= {
            "message_id": "uuid",
            "entity_type": "text",
            "status": "text",
            "received_at": "timestamp with time zone",
            "processed_at": "timestamp with time zone",
            "retry_count": "integer",
            "error_message": "text",
        }.items()
    )


async def test_compatible_schema_changes_are_migrated(deployment: Deployment) -> None:
    await migrate(deployment.database, parse_schema(ONE % ("varchar(5)", "")))
    await deployment.database.execute("INSERT INTO t VALUES (1, 'x', now(), gen_random_uuid())")
    done = await migrate(
        deployment.database, parse_schema(ONE % ("varchar(9)", ", {name: c, type: date, nullable: true}"))
    )
    assert done == ["table t: 2 changes"]
    await deployment.database.execute("UPDATE t SET b = 'nine char', c = '2024-01-01'")


async def test_schema_change_that_loses_data_is_rejected_completely(deployment: Deployment) -> None:
    await migrate(deployment.database, parse_schema(ONE % ("varchar(9)", "")))
    with pytest.raises(
        MigrationError, match=r"table t, column b: type is character varying\(9\), the schema requires varchar\(5\)"
    ):
        await migrate(deployment.database, parse_schema(ONE % ("varchar(5)", ", {name: c, type: date}")))
    columns = await deployment.database.fetch("SELECT * FROM t")
    assert columns == []
    with pytest.raises(asyncpg.UndefinedColumnError):
        await deployment.database.fetch("SELECT c FROM t")


async def test_required_column_cannot_be_added_to_a_table_with_rows(deployment: Deployment) -> None:
    await migrate(deployment.database, parse_schema(ONE % ("date", "")))
    await deployment.database.execute("INSERT INTO t VALUES (1, '2024-01-01', now(), gen_random_uuid())")
    with pytest.raises(MigrationError, match='table t: column "c" of relation "t" contains null values'):
        await migrate(deployment.database, parse_schema(ONE % ("date", ", {name: c, type: date}")))


async def test_tables_of_a_newer_version_are_rejected(deployment: Deployment) -> None:
    await deployment.database.execute("INSERT INTO nomnom_migrations (name, checksum) VALUES ('9999_later.sql', 'x')")
    with pytest.raises(
        MigrationError, match=r"migrated by a newer version \(migration 9999_later.sql\); upgrade nomnom"
    ):
        await set_up(deployment.settings, wait=5)
