"""The entities screen on a real PostgreSQL: counts, paging of rows, one full row, hours and statuses."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from conftest import Deployment
from dashboard_process import running
from nomnom.envelope import Status
from nomnom.presentation import figures
from nomnom.schema import Entity, load_schema
from nomnom.tables import Table, quote
from nomnom_cli.commands import rows as rows_command
from nomnom_control.session.pipeline import Pipeline
from nomnom_tui.app.application import NomnomApp
from nomnom_tui.screens.entities import EntitiesView, Hour
from nomnom_tui.screens.entity_rows import EntityRowsView, RowView
from operator_session import open_session
from tui.test_shell import until
from tui.test_streams import TIMEOUT, opened, text_of

ORDERS = """
INSERT INTO orders (o_orderkey, o_custkey, o_orderstatus, o_totalprice, o_orderdate, o_orderpriority, o_clerk,
                    o_shippriority, o_comment, received_at, message_id)
SELECT key, key % 7, 'F', key * 1.5, date '2024-01-01', '1-URGENT', 'clerk', 0, 'comment ' || key,
       now(), gen_random_uuid()
FROM generate_series(1, $1::bigint) AS key
"""
STATUSES = """
INSERT INTO message_status (message_id, entity_type, status, received_at, processed_at, retry_count, error_message)
SELECT gen_random_uuid(), 'orders', $1, $2, $2, 0, CASE WHEN $1 = 'completed' THEN NULL ELSE 'wrong' END
FROM generate_series(1, $3::int)
"""


FILL = """
INSERT INTO {table} ({columns}) SELECT {values}, now(), gen_random_uuid() FROM generate_series(1, {rows}) AS n
"""
_VALUES = {"bigint": "n", "integer": "n", "decimal": "1", "date": "date '2024-01-01'"}


async def fill(database: asyncpg.Connection, entity: Entity, rows: int) -> None:
    """Add rows with their keys, of values that fit each column."""
    names = [*(each.name for each in entity.fields), "received_at", "message_id"]
    values = [_VALUES.get(each.type.name, "'x'") for each in entity.fields]
    await database.execute(
        FILL.format(table=entity.table, columns=", ".join(names), values=", ".join(values), rows=rows)
    )


async def entities_view(app: NomnomApp) -> EntitiesView:
    """Return the entities screen with its first data."""
    view = app.screen
    assert isinstance(view, EntitiesView)
    await until(lambda: view._entities.rows and view._statuses.rows and view._hours, TIMEOUT)
    return view


async def test_counts_by_entity_status_and_hour_are_live(deployment: Deployment) -> None:
    now = datetime.now(UTC).replace(minute=10, second=0, microsecond=0)
    await deployment.database.execute(ORDERS, 35)
    await deployment.database.execute(STATUSES, "completed", now, 30)
    await deployment.database.execute(STATUSES, "dlq", now, 4)
    await deployment.database.execute(STATUSES, "failed", now - timedelta(hours=3), 2)
    await deployment.database.execute(STATUSES, "completed", now - timedelta(hours=30), 5)
    async with opened(deployment, "9", size=(200, 60)) as (app, pilot):
        view = await entities_view(app)
        orders = next(each for each in view._entities.rows if each.entity.name == "orders")
        assert (orders.count.rows, orders.count.exact) == (35, True)
        assert {each.status: each.messages for each in view._statuses.rows} == {
            Status.PROCESSING: 0,
            Status.COMPLETED: 35,
            Status.FAILED: 2,
            Status.DLQ: 4,
        }
        assert len(view._hours) == 24
        found = {each.at: each for each in view._hours if each.total}
        this = now.replace(minute=0)
        assert found == {
            this: Hour(this, {Status.COMPLETED: 30, Status.DLQ: 4}, 0),
            this - timedelta(hours=3): Hour(this - timedelta(hours=3), {Status.FAILED: 2}, 0),
        }
        chart = str(view.query_one("#chart").render())
        assert "   34 " in chart
        await pilot.press("t")
        await until(lambda: len(view._hours) == 72, TIMEOUT)
        assert sum(each.total for each in view._hours) == 41
        await deployment.database.execute("DELETE FROM orders WHERE o_orderkey > 10")
        await until(lambda: "orders | O | 10 |" in text_of(view._entities), TIMEOUT)


async def test_each_table_has_its_own_count_and_size_everywhere(
    deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    database, schema = deployment.database, load_schema("tpch")
    # A plan of PostgreSQL's choice returns tables in any order: with these, by their number in the catalog.
    name = quote(await database.fetchval("SELECT current_database()"))
    for setting in ("enable_nestloop", "enable_hashjoin"):
        await database.execute(f"ALTER DATABASE {name} SET {setting} = off")
    first = Table(next(iter(schema)))
    await database.execute(f"DROP TABLE {first.name}; {first.create}")
    assert [each.name for each in schema] != sorted(each.name for each in schema)
    for number, entity in enumerate(schema):
        await fill(database, entity, 150 * (number * 5 % 8 + 1))
    expected = {
        each.name: (
            await database.fetchval(f"SELECT count(*) FROM {each.table}"),
            await database.fetchval("SELECT pg_total_relation_size($1::regclass)", each.table),
        )
        for each in schema
    }
    assert len(set(expected.values())) == len(expected)

    async with open_session(deployment, tmp_path) as pipeline:

        @asynccontextmanager
        async def this_pipeline(_: object) -> AsyncIterator[Pipeline]:
            yield pipeline

        monkeypatch.setattr(rows_command, "open_pipeline", this_pipeline)
        await rows_command.entities(json=True)
    printed = json.loads(capsys.readouterr().out)
    assert {each["entity"]: (each["rows"], each["bytes"]) for each in printed} == expected

    async with running(deployment.environment, tmp_path) as dashboard:
        listed = (await dashboard.get("/api/entities"))["entities"]
        pages = {name: (await dashboard.get(f"/api/entities/{name}", limit=1))["entity"] for name in expected}
    assert {each["name"]: (each["rows"]["value"], each["bytes"]) for each in listed} == expected
    assert {name: (each["rows"]["value"], each["bytes"]) for name, each in pages.items()} == expected

    async with opened(deployment, "9", size=(200, 60)) as (app, _):
        view = await entities_view(app)
        assert {each.entity.name: (each.count.rows, each.bytes) for each in view._entities.rows} == expected
        for name, (rows, size) in expected.items():
            line = next(each for each in text_of(view._entities).splitlines() if each.startswith(f"{name} |"))
            assert f"| {figures.count(rows)} | {figures.size(size)} |" in line


async def test_rows_are_paged_by_key_and_opened(deployment: Deployment) -> None:
    await deployment.database.execute(ORDERS, 250)
    async with opened(deployment, "9", size=(80, 24)) as (app, pilot):
        view = await entities_view(app)
        assert view._entities.move_to("orders")
        await pilot.press("enter")
        await until(lambda: isinstance(app.screen, EntityRowsView) and app.screen._page, TIMEOUT)
        rows = app.screen
        assert isinstance(rows, EntityRowsView)

        def keys() -> list[int]:
            return [each["o_orderkey"] for each in rows._table.rows]

        assert keys() == [*range(1, 101)]
        await pilot.press("G", "j")
        await until(lambda: keys() == [*range(101, 201)], TIMEOUT)
        assert rows._table.cursor == 0
        await pilot.press("right_square_bracket")
        await until(lambda: keys() == [*range(201, 251)], TIMEOUT)
        assert not rows._table.has_next
        await pilot.press("k")
        await until(lambda: keys() == [*range(101, 201)], TIMEOUT)
        assert rows._table.cursor == 99
        await pilot.press("left_square_bracket")
        await until(lambda: keys() == [*range(1, 101)], TIMEOUT)
        assert not rows._table.has_previous
        await pilot.press("right_square_bracket")
        await until(lambda: keys()[0] == 101, TIMEOUT)
        await pilot.press("f")
        await until(lambda: keys()[0] == 1, TIMEOUT)
        # The key column stays, the others scroll.
        titles = [each.title for each in rows._table.columns]
        await pilot.press("l", "l")
        assert [each.title for each in rows._table.columns] == [titles[0], *titles[3:]]
        await pilot.press("left", "h", "h")
        assert [each.title for each in rows._table.columns] == titles
        await pilot.press("g", "j", "enter")
        await until(lambda: isinstance(app.screen, RowView), TIMEOUT)
        row = app.screen
        assert isinstance(row, RowView)
        await until(lambda: "comment 2" in text_of(row._lines), TIMEOUT)
        identity = await deployment.database.fetchval("SELECT message_id FROM orders WHERE o_orderkey = 2")
        assert str(identity) in text_of(row._lines)
        assert app.breadcrumbs[-2:] == ["orders rows", "2"]
        await deployment.database.execute("DELETE FROM orders WHERE o_orderkey = 1")
        await pilot.press("escape", "r")
        await until(lambda: keys()[0] == 2, TIMEOUT)


async def test_null_keys_sort_last_and_null_differs_from_empty(deployment: Deployment) -> None:
    await deployment.database.execute(
        "INSERT INTO lineitem (l_orderkey, l_partkey, l_suppkey, l_linenumber, l_quantity, l_extendedprice, l_discount,"
        " l_tax, l_returnflag, l_linestatus, l_shipdate, l_commitdate, l_receiptdate, l_shipinstruct, l_shipmode,"
        " l_comment, received_at, message_id) SELECT nullif(key, 3), 1, 1, 1, 1, 1, 0, 0, 'N', 'O', now(), now(),"
        " now(), 'DELIVER', 'SHIP', '', now(), $1 FROM generate_series(1, 3) AS key",
        uuid.uuid4(),
    )
    async with opened(deployment, "9") as (app, pilot):
        view = await entities_view(app)
        assert view._entities.move_to("lineitem")
        await pilot.press("enter")
        await until(lambda: isinstance(app.screen, EntityRowsView) and app.screen._page, TIMEOUT)
        rows = app.screen
        assert isinstance(rows, EntityRowsView)
        assert [each["l_orderkey"] for each in rows._table.rows] == [1, 2, None]
        await pilot.press("G", "enter")
        await until(lambda: isinstance(app.screen, RowView), TIMEOUT)
        row = app.screen
        assert isinstance(row, RowView)
        assert row.crumb == "no key"
        await until(lambda: "''" in text_of(row._lines), TIMEOUT)
        assert "null" in text_of(row._lines)
