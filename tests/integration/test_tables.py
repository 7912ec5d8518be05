"""The tables of a schema on a real PostgreSQL: they store all valid records, and the last received wins."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import permutations
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nomnom.database import MigrationError, migrate
from nomnom.grammar import Grammar, Record
from nomnom.message_status import FIND
from nomnom.partitions import partition_tables
from nomnom.schema import load_schema, parse_schema
from nomnom.tables import Table, quote
from nomnom_control.environments.local.servers import PostgresServer
from record_strategies import messages

AWKWARD = """\
schema: awkward
entities:
  - name: order
    tag: O
    table: user
    key: [select, group]
    fields:
      - {name: select, type: bigint}
      - {name: group, type: varchar(10)}
      - {name: table, type: "decimal(6,3)", nullable: true}
      - {name: from, type: timestamp, nullable: true}
      - {name: _where, type: text}
"""
SCHEMAS = {"tpch": load_schema("tpch"), "ecommerce": load_schema("ecommerce"), "awkward": parse_schema(AWKWARD)}
UNBOUNDED = (datetime.min, datetime.max)
TIME = datetime(2026, 1, 1, tzinfo=UTC)
PATIENT = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
async def database(postgres_server: PostgresServer) -> AsyncIterator[asyncpg.Connection]:
    """A new database without tables."""
    name = f"t{uuid.uuid4().hex[:12]}"
    admin = await asyncpg.connect(postgres_server.url)
    await admin.execute(f'CREATE DATABASE "{name}"')
    connection = await asyncpg.connect(postgres_server.url.rpartition("/")[0] + f"/{name}")
    yield connection
    await connection.close()
    await admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    await admin.close()


async def _write(
    database: asyncpg.Connection, record: Record, received_at: datetime, message_id: uuid.UUID, position: int = 0
) -> list[uuid.UUID]:
    table = Table(record.entity)
    statement = table.insert_keyless if record.key is None else table.upsert
    columns = [*([value] for value in record.values), [received_at], [str(message_id)], [position]]
    rows = await database.fetch(statement, *table.parameters(columns))
    return [row["message_id"] for row in rows]


async def _read(database: asyncpg.Connection, record: Record, message_id: uuid.UUID) -> dict[str, Any]:
    row = await database.fetchrow(f"SELECT * FROM {Table(record.entity).name} WHERE message_id = $1", message_id)
    assert row is not None
    found: dict[str, Any] = {}
    for each in record.entity.fields:
        value = row[each.name]
        if value in UNBOUNDED:  # asyncpg's representation, not what is stored: see test_extreme_values_of_every_type
            value = value.replace(tzinfo=UTC)
        # PostgreSQL returns char(n) with insignificant padding.
        found[each.name] = value.rstrip(" ") if each.type.name == "char" and value is not None else value
    return found


@pytest.mark.parametrize("name", sorted(SCHEMAS))
async def test_postgresql_stores_every_valid_record(database: asyncpg.Connection, name: str) -> None:
    schema = SCHEMAS[name]
    grammar = Grammar(schema)
    await migrate(database, schema)
    loop = asyncio.get_running_loop()

    async def check(records: list[Record]) -> None:
        async with database.transaction():
            for record in grammar.parse(grammar.write(records)):
                message_id = uuid.uuid4()
                await database.execute(f"DELETE FROM {Table(record.entity).name}")
                assert await _write(database, record, TIME, message_id) == [message_id]
                assert await _read(database, record, message_id) == record.mapping()

    @PATIENT
    @given(messages(schema))
    def run(records: list[Record]) -> None:
        asyncio.run_coroutine_threadsafe(check(records), loop).result(30)

    await asyncio.to_thread(run)


async def test_extreme_values_of_every_type(database: asyncpg.Connection) -> None:
    schema = parse_schema(
        "schema: s\nentities:\n  - name: t\n    tag: T\n    key: [a]\n    fields:\n"
        "      - {name: a, type: bigint}\n      - {name: b, type: integer}\n      - {name: c, type: 'decimal(5,2)'}\n"
        "      - {name: d, type: date}\n      - {name: e, type: timestamp}\n      - {name: f, type: char(4)}\n"
        "      - {name: g, type: varchar(3)}\n      - {name: h, type: 'decimal(3,3)'}\n"
        "      - {name: i, type: boolean}\n"
    )
    await migrate(database, schema)
    for text in (
        "T|-9223372036854775808|-2147483648|-999.99|0001-01-01|0001-01-01T00:00:00Z||😀é|-.999|false|",
        "T|9223372036854775807|2147483647|999.99|9999-12-31|9999-12-31T23:59:59.999999Z|a  b|'\"%|0.001|true|",
        "T|0|-0|-0.00|2000-02-29|2000-01-01 00:00:00+14:00|\\\\\\|| a |.5|true|",
    ):
        [record] = Grammar(schema).parse(text)
        message_id = uuid.uuid4()
        assert await _write(database, record, TIME, message_id) == [message_id]
        assert await _read(database, record, message_id) == record.mapping()
    # The maximum date often means "still valid": it must be stored as that date, not as infinity.
    rows = await database.fetch("SELECT d::text, isfinite(d) AND isfinite(e) AS finite FROM t ORDER BY a")
    assert [tuple(row) for row in rows] == [("0001-01-01", True), ("2000-02-29", True), ("9999-12-31", True)]


def _versions() -> list[tuple[datetime, uuid.UUID, str]]:
    """Four messages for one row; two have the same time and differ in their IDs."""
    ids = sorted(uuid.uuid4() for _ in range(4))
    moments = (TIME, TIME + timedelta(microseconds=1), TIME + timedelta(microseconds=1), TIME + timedelta(1))
    return [(moment, each, f"version {at}") for at, (moment, each) in enumerate(zip(moments, ids, strict=True))]


async def test_last_accepted_wins_in_any_order_of_delivery_whatever_the_clock_said(
    database: asyncpg.Connection,
) -> None:
    schema = load_schema("tpch")
    await migrate(database, schema)
    # The API's clock ran backwards by an hour each time.
    versions = [(position, TIME - timedelta(hours=position), uuid.uuid4()) for position in (1, 2, 3, 4)]
    for key, order in enumerate(permutations(versions)):
        greatest = 0
        for position, moment, message_id in order:
            record = Record(schema.entity("region"), (key, "name", f"version {position}"))
            wins = position > greatest
            assert await _write(database, record, moment, message_id, position) == ([message_id] if wins else [])
            greatest = max(position, greatest)
        assert await database.fetchval("SELECT r_comment FROM region WHERE r_regionkey = $1", key) == "version 4"


async def test_row_of_an_earlier_version_is_compared_by_received_at(database: asyncpg.Connection) -> None:
    schema = load_schema("tpch")
    await migrate(database, schema)
    region = schema.entity("region")
    before, after = uuid.uuid4(), uuid.uuid4()
    await _write(database, Record(region, (1, "name", "before")), TIME, before)
    outdated = Record(region, (1, "name", "outdated"))
    assert await _write(database, outdated, TIME - timedelta(seconds=1), uuid.uuid4(), 5) == []
    assert await _write(database, Record(region, (1, "name", "after")), TIME + timedelta(1), after, 6) == [after]
    assert await _write(database, outdated, TIME, uuid.uuid4()) == []


async def test_last_received_wins_if_positions_are_unknown(database: asyncpg.Connection) -> None:
    schema = load_schema("tpch")
    await migrate(database, schema)
    versions = _versions()
    for key, order in enumerate(permutations(versions)):
        greatest: tuple[datetime, uuid.UUID] | None = None
        for moment, message_id, comment in order:
            record = Record(schema.entity("region"), (key, "name", comment))
            wins = greatest is None or (moment, message_id) > greatest
            assert await _write(database, record, moment, message_id) == ([message_id] if wins else [])
            greatest = (moment, message_id) if wins else greatest
        # A redelivery is not applied again.
        assert await _write(database, Record(schema.entity("region"), (key, "again", "")), *versions[-1][:2]) == []
        row = await database.fetchrow("SELECT r_comment, message_id FROM region WHERE r_regionkey = $1", key)
        assert row is not None
        assert (row["r_comment"], row["message_id"]) == ("version 3", versions[-1][1])


async def test_row_without_key_is_stored_once_per_message(database: asyncpg.Connection) -> None:
    schema = load_schema("tpch")
    await migrate(database, schema)
    line = "OLI|1|789|1|100|123.45|0.05|0.07|N|O|2024-01-01|2024-01-02|2024-01-03|DELIVER|SHIP|test"
    [record] = Grammar(schema).parse(line)
    first, second = uuid.uuid4(), uuid.uuid4()
    assert await _write(database, record, TIME, first) == [first]
    assert await _write(database, record, TIME, second) == [second]
    assert await _write(database, record, TIME + timedelta(1), first) == []
    assert await database.fetchval("SELECT count(*) FROM lineitem WHERE l_orderkey IS NULL") == 2


UP_TO_DATE = ["tables: up to date"]
ONE = """\
schema: s
entities:
  - {name: t, tag: T, key: [a], fields: [{name: a, type: bigint}, {name: b, type: "%s"}]}
"""


async def _changed(database: asyncpg.Connection, before: str, after: str, text: str) -> list[str]:
    await migrate(database, parse_schema(ONE % before))
    [record] = Grammar(parse_schema(ONE % before)).parse(text)
    await _write(database, record, TIME, uuid.uuid4())
    return await migrate(database, parse_schema(ONE % after))


@pytest.mark.parametrize(
    ("before", "after", "value"),
    [
        ("integer", "bigint", "7"),
        ("varchar(5)", "varchar(6)", "abcde"),
        ("varchar(5)", "text", "abcde"),
        ("decimal(5,2)", "decimal(7,2)", "123.45"),
        ("decimal(5,2)", "decimal(8,4)", "123.45"),
    ],
)
async def test_column_is_widened_and_keeps_its_values(
    database: asyncpg.Connection, before: str, after: str, value: str
) -> None:
    assert await _changed(database, before, after, f"T|1|{value}") == ["table t: 1 change"]
    kept = await database.fetchval("SELECT b FROM t")
    assert kept == Decimal(value) if isinstance(kept, Decimal) else str(kept) == value
    assert await migrate(database, parse_schema(ONE % after)) == UP_TO_DATE


@pytest.mark.parametrize(
    ("before", "after", "value"),
    [
        ("bigint", "integer", "7"),
        ("varchar(6)", "varchar(5)", "abc"),
        ("text", "varchar(5)", "abc"),
        ("decimal(7,2)", "decimal(5,2)", "1.00"),
        ("decimal(7,2)", "decimal(7,3)", "1.00"),
        ("date", "timestamp", "2024-01-01"),
        ("bigint", "text", "7"),
    ],
)
async def test_column_change_that_loses_values_is_rejected(
    database: asyncpg.Connection, before: str, after: str, value: str
) -> None:
    with pytest.raises(MigrationError, match=r"\bt\b.*\bb\b"):
        await _changed(database, before, after, f"T|1|{value}")
    assert await migrate(database, parse_schema(ONE % before)) == UP_TO_DATE


async def test_status_queries_use_indexes(database: asyncpg.Connection) -> None:
    await migrate(database, load_schema("tpch"))
    await partition_tables(database)
    await database.execute(
        "INSERT INTO message_status (message_id, entity_type, status, received_at, retry_count)"
        " SELECT gen_random_uuid(), 'orders', CASE WHEN n % 500 = 0 THEN 'dlq' ELSE 'completed' END,"
        " now() - n * interval '1 second', 0 FROM generate_series(1, 20000) AS n"
    )
    await database.execute("ANALYZE message_status")
    # Otherwise PostgreSQL reads an empty partition without its indexes.
    await database.execute("SET enable_seqscan = off")
    queries: Sequence[tuple[str, Sequence[Any]]] = (
        (FIND, [uuid.uuid4(), TIME, TIME + timedelta(1)]),
        ("SELECT * FROM message_status ORDER BY received_at DESC, message_id DESC LIMIT 20", []),
        ("SELECT * FROM message_status WHERE status = 'dlq' ORDER BY received_at DESC, message_id DESC LIMIT 20", []),
    )
    for query, values in queries:
        generic = "EXPLAIN " + query
        plan = "\n".join(row[0] for row in await database.fetch(generic, *values))
        assert "Seq Scan" not in plan, plan


def test_identifiers_are_quoted() -> None:
    table = Table(SCHEMAS["awkward"].entity("order"))
    for statement in (table.create, table.upsert):
        assert '"user"' in statement
        assert '"select"' in statement


@given(st.text())
def test_quoting_arbitrary_identifiers(name: str) -> None:
    quoted = quote(name)
    assert quoted[0] == quoted[-1] == '"'
    assert quoted[1:-1].replace('""', "") == name.replace('"', "")
