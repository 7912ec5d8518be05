"""The entity browser: which kinds of record there are, how many, and their rows a page at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from nomnom.schema import Entity, Schema
from nomnom_dashboard.answers import Column, Count, EntityList, EntityRows, EntitySummary, Row
from nomnom_dashboard.cursors import read_cursor, write_cursor
from nomnom_dashboard.database import Database
from nomnom_dashboard.entity_rows import INDEXED, SORTED, EntityTable, Order, Walk
from nomnom_dashboard.errors import InvalidQueryError, NotFoundError
from nomnom_dashboard.message_rows import COUNTED, SEARCHED


class _Position(msgspec.Struct, frozen=True):
    """Where a page ended: the order it had, the region of the table, and its last row's place there."""

    sort: str
    region: int
    place: list[str] | None


class Entities:
    """The queries over a schema's tables."""

    def __init__(self, database: Database, schema: Schema) -> None:
        self._database, self._schema = database, schema
        self._tables = {each.name: EntityTable(each) for each in schema}

    async def summaries(self) -> EntityList:
        """All entities with their numbers of rows."""
        entities = await asyncio.gather(*(self._summary(each) for each in self._tables.values()))
        return EntityList(self._schema.name, self._schema.title or self._schema.name, list(entities))

    def table(self, name: str) -> EntityTable:
        """The table of an entity; raises NotFoundError, naming those there are."""
        if found := self._tables.get(name):
            return found
        raise NotFoundError(f"unknown entity {name!r}; expected one of {', '.join(self._tables)}")

    async def rows(
        self, name: str, *, limit: int, cursor: str | None, sort: str | None, filters: Sequence[str]
    ) -> EntityRows:
        """One page of rows; raises InvalidQueryError, NotFoundError or UnavailableError."""
        table = self.table(name)
        conditions = [table.condition(each) for each in filters]
        summary, indexed = await asyncio.gather(self._summary(table), self._indexed(table))
        sortable = _sortable(table.entity, summary.rows.value, indexed)
        order = table.order(sort, sortable)
        walk = Walk(table, order, "values", None, conditions, indexed)
        rows, following, searched = await self._follow(walk, limit, cursor)
        columns = [
            Column(
                name=each.name,
                title=each.title or each.name.replace("_", " "),
                type=each.type.column,
                numeric=each.type.numeric,
                nullable=table.entity.column_nullable(each),
                key=each.name in table.entity.key,
                sortable=each.name in sortable,
            )
            for each in table.entity.fields
        ]
        return EntityRows(summary, columns, _name(order), rows, following, searched)

    async def _follow(self, start: Walk, limit: int, cursor: str | None) -> tuple[list[Row], str | None, int | None]:
        """The rows from the cursor on, region after region; where the next page begins; how many were searched."""
        sort = _name(start.order)
        at = read_cursor(cursor, _Position) if cursor else _Position(sort, 0, None)
        regions = start.table.regions(start.order)
        if at.sort != sort or at.region not in range(len(regions)):
            raise InvalidQueryError("cursor: expected `next` of an earlier page with the same sort order")
        rows: list[Row] = []
        place = at.place
        for region in range(at.region, len(regions)):
            walk = replace(start, region=regions[region], after=place)
            room = limit - len(rows)
            statement, values = walk.found(room + 1)
            records = await self._database.fetch(statement, *values)
            rows += [walk.table.row(each) for each in records[:room]]
            if len(records) > room:
                # With no room at all, the next page begins where this region does.
                last = walk.place(records[room - 1]) if room else place
                return rows, write_cursor(_Position(sort, region, last)), None
            if walk.searching:
                statement, values = walk.edge
                if edge := await self._database.fetch(statement, *values):
                    return rows, write_cursor(_Position(sort, region, walk.place(edge[0]))), SEARCHED
            place = None
        return rows, None, None

    async def _summary(self, table: EntityTable) -> EntitySummary:
        entity = table.entity
        return EntitySummary(
            name=entity.name,
            title=entity.title or entity.name.replace("_", " ").capitalize(),
            tag=entity.tag,
            table=entity.table,
            parent=entity.parent.entity if entity.parent else None,
            rows=await count(self._database, table.counted, table.estimated),
        )

    async def _indexed(self, table: EntityTable) -> frozenset[str]:
        return frozenset(row["name"] for row in await self._database.fetch(INDEXED, table.table.name))


async def count(database: Database, counted: str, estimated: str) -> Count:
    """The number of rows: exact while they are few, else the planner's estimate."""
    row = await database.fetch_row(counted, COUNTED + 1)
    rows = row["rows"] if row else 0
    if rows <= COUNTED:
        return Count(rows, exact=True)
    return Count(max(rows, await estimate(database, estimated)), exact=False)


async def estimate(database: Database, statement: str) -> int:
    """The planner's estimate for an EXPLAIN statement: what it knows of the table's density, times its size now."""
    row = await database.fetch_row(statement)
    plans: list[Mapping[str, Any]] = msgspec.json.decode(row[0]) if row else []
    return int(plans[0]["Plan"]["Plan Rows"]) if plans else 0


def _sortable(entity: Entity, rows: int, indexed: frozenset[str]) -> list[str]:
    by_index = {entity.key[0], *indexed}
    return [each.name for each in entity.fields if rows <= SORTED or each.name in by_index]


def _name(order: Order) -> str:
    return ("-" if order.descending else "") + order.columns[0].name
