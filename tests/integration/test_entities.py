"""Entities as control and the dashboard read them: the same rows, pages, counts and sizes, in both directions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from conftest import Deployment
from dashboard_process import Dashboard, running
from nomnom.inspection.cursors import CursorError, InvalidQuery
from nomnom.inspection.entities import RowPage
from nomnom_control.session.pipeline import Pipeline
from operator_session import open_session

LINES = """
INSERT INTO lineitem
SELECT nullif(o, 0), n % 4, 1, n, n % 5, n * 1.25, 0, 0, 'N', 'O', date '2024-01-01' + n % 3,
       '2024-01-01', '2024-01-01', 'NONE', 'AIR', 'note ' || n % 6, now(), gen_random_uuid()
FROM generate_series(1, 12) AS n, (VALUES (0), (7), (3)) AS given (o)
"""
LISTINGS: list[tuple[str | None, list[str]]] = [
    (None, []),
    ("-l_orderkey", []),
    ("l_orderkey", ["l_quantity:gte:2"]),
    ("l_partkey", []),
    ("-l_shipdate", ["l_comment:contains:NOTE 1"]),
    ("-l_partkey", ["l_orderkey:eq:7"]),
    ("l_quantity", ["l_orderkey:is:null", "l_linenumber:ne:4"]),
]
"""Orders and filters, of a table that also has rows without a key."""


@pytest.fixture
async def session(deployment: Deployment, tmp_path: Path) -> AsyncIterator[Pipeline]:
    async with open_session(deployment, tmp_path) as opened:
        yield opened


@pytest.fixture
async def dashboard(deployment: Deployment, tmp_path: Path) -> AsyncIterator[Dashboard]:
    async with running(deployment.environment, tmp_path) as started:
        yield started


def shown(page: RowPage) -> list[tuple[str, dict[str, Any]]]:
    """The rows of a page as JSON holds them."""
    return [
        (str(row["message_id"]), {name: _plain(row[name]) for name in page.columns if name.startswith("l_")})
        for row in page.rows
    ]


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, int | str) else str(value)


@pytest.mark.parametrize(("sort", "filters"), LISTINGS)
async def test_control_and_dashboard_return_the_same_pages(
    deployment: Deployment, session: Pipeline, dashboard: Dashboard, sort: str | None, filters: list[str]
) -> None:
    await deployment.database.execute(LINES)
    pages: list[RowPage] = []
    cursor: str | None = None
    while True:
        page = await session.entities.rows("lineitem", after=cursor, limit=5, sort=sort, filters=filters)
        given = (
            {"limit": 5, "filter": filters} | ({"sort": sort} if sort else {}) | ({"cursor": cursor} if cursor else {})
        )
        answer = await dashboard.get("/api/entities/lineitem", **given)
        assert [(row["message_id"], row["values"]) for row in answer["rows"]] == shown(page)
        assert (answer["sort"], answer["next"]) == (page.sort, page.next)
        pages.append(page)
        if page.next is None:
            break
        # A cursor of one is a cursor of the other.
        cursor = answer["next"]
    everything = [row for page in pages for row in page.rows]
    assert len({row["message_id"] for row in everything}) == len(everything) > 5
    if sort and not filters:
        assert len(everything) == 36
    back = [pages[-1]]
    while (before := back[-1].previous) is not None:
        back.append(await session.entities.rows("lineitem", before=before, limit=5, sort=sort, filters=filters))
    assert [page.rows for page in reversed(back)] == [page.rows for page in pages]


async def test_control_refuses_what_the_dashboard_refuses(
    deployment: Deployment, session: Pipeline, dashboard: Dashboard
) -> None:
    await deployment.database.execute(LINES)
    page = await session.entities.rows("lineitem", limit=1)
    for given in ({"sort": "price"}, {"filters": ["l_quantity:like:1"]}, {"sort": "l_partkey", "after": page.next}):
        with pytest.raises(InvalidQuery) as caught:
            await session.entities.rows("lineitem", **given)  # pyright: ignore[reportArgumentType]
        names = {"filters": "filter", "after": "cursor"}
        problem = await dashboard.client.get(
            "/api/lineitem", params={names.get(name, name): value for name, value in given.items()}
        )
        assert problem.status_code == 400
        assert caught.value.allowed is None or problem.json()["allowed"] == caught.value.allowed
    with pytest.raises(CursorError, match="of a page of lineitem"):
        await session.entities.rows("orders", after=page.next)
    answer = await dashboard.refusal(400, "/api/orders", {"cursor": page.next})
    assert "of a page of lineitem" in answer["detail"]


async def test_control_and_dashboard_return_the_same_counts(
    deployment: Deployment, session: Pipeline, dashboard: Dashboard
) -> None:
    database = deployment.database
    insert = "INSERT INTO region SELECT n, 'a', 'b', now(), gen_random_uuid() FROM generate_series(1, 120000) AS n"
    await database.execute(insert)
    await database.execute(LINES)
    statuses = """
    INSERT INTO message_status (message_id, entity_type, status, received_at)
    SELECT gen_random_uuid(), 'orders', status, now()
    FROM (VALUES ('completed', 9), ('failed', 4), ('dlq', 3), ('processing', 2)) AS given (status, many),
         generate_series(1, many)
    """
    await database.execute(statuses)
    await database.execute("ANALYZE region")
    counts = {each.entity.name: (each.count.rows, each.count.exact) for each in await session.entities.reports()}
    answer = await dashboard.get("/api/entities")
    assert {each["name"]: (each["rows"]["value"], each["rows"]["exact"]) for each in answer["entities"]} == counts
    assert (counts["lineitem"], counts["orders"], counts["region"][1]) == ((36, True), (0, True), False)
    assert abs(counts["region"][0] - 120_000) < 6_000
    found = {each.status.value: each.messages for each in await session.statuses.counts() if each.messages}
    assert found == {"completed": 9, "failed": 4, "dlq": 3, "processing": 2}
    stats = await dashboard.until(
        "/api/stats", lambda stats: (stats["counts"] or {}).get("total", {}).get("value") == 18
    )
    assert {name: stats["counts"][name]["value"] for name in ("completed", "failed", "dlq")} == {
        name: found[name] for name in ("completed", "failed", "dlq")
    }
