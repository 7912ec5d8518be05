"""The tables of a schema's entities: how many rows, how many bytes, and the rows a page at a time.

Every method raises DatabaseUnavailable, NotSetUp or DatabaseRefused, and SchemaError for an unknown entity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import asyncpg
import msgspec

from nomnom.connections.postgres import Database
from nomnom.inspection.counts import SCANNED, Count, count_rows, table_states
from nomnom.inspection.cursors import CursorError, read_cursor, write_cursor
from nomnom.inspection.rows import EntityTable, Walk
from nomnom.schema import Entity, Schema
from nomnom.tables import Table

SORTED = 100_000
"""A table with at most this many rows can be sorted by any column."""


@dataclass(frozen=True)
class EntityReport:
    """An entity's table: its rows, its bytes with indexes and TOAST, and the columns that an index begins with."""

    entity: Entity
    count: Count
    bytes: int
    indexed: frozenset[str] = frozenset()

    @cached_property
    def sortable(self) -> list[str]:
        """The columns by which rows can be sorted at the table's present size."""
        by_index = {self.entity.key[0], *self.indexed}
        return [each.name for each in self.entity.fields if self.count.rows <= SORTED or each.name in by_index]


@dataclass(frozen=True, slots=True)
class RowPage:
    """Rows by column, in the order that ``sort`` names; those without a value there, or without a key, come last.

    ``columns`` are the entity's fields, then received_at and message_id. ``next`` and ``previous`` are cursors of the
    neighbouring pages, None at the ends. ``searched`` is how many rows a filter scanned if it found less than a page:
    ``next`` continues the search.
    """

    entity: Entity
    columns: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]
    next: str | None
    previous: str | None
    sort: str = ""
    searched: int | None = None


class _Position(msgspec.Struct, frozen=True):
    """The place of a row: its entity, the order, the region of the table, and where it is there."""

    entity: str
    sort: str
    region: int
    place: list[str]


class Entities:
    """The tables of one schema. ``entity`` is a name or a tag."""

    def __init__(self, database: Database, schema: Schema) -> None:
        self._database, self._schema = database, schema

    async def reports(self) -> list[EntityReport]:
        """All entities with their counts and sizes, in the schema's order."""
        return await self._reports(self._schema.entities)

    async def report(self, entity: str) -> EntityReport:
        """One entity with its count and size."""
        (report,) = await self._reports([self._schema.entity(entity)])
        return report

    async def rows(
        self,
        entity: str,
        *,
        after: str | None = None,
        before: str | None = None,
        limit: int = 50,
        sort: str | None = None,
        filters: Sequence[str] = (),
        report: EntityReport | None = None,
    ) -> RowPage:
        """A page of rows: the first, or the one after or before a cursor. Raises InvalidQuery.

        ``sort`` is a column, with - before it to begin with the greatest; by default rows are in the order of the key.
        ``filters`` are ``column:operator:value``. ``report`` spares a query to whoever has one.
        """
        table = EntityTable(self._schema.entity(entity))
        conditions = [table.condition(each) for each in filters]
        if report is None and (conditions or sort):
            report = await self.report(table.entity.name)
        order = table.order(sort, report.sortable if report else ())
        indexed = report.indexed if report else frozenset[str]()
        backward = before is not None
        walk = Walk(table, order, "values", None, conditions, indexed, backward)
        start = self._start(walk, before if backward else after)
        async with self._database.connection() as connection:
            found, onward, searched = await _follow(connection, walk, start, limit)
        if backward:
            found.reverse()
        ends = [write_cursor(found[at][0]) if found else None for at in (0, -1)]
        back = ends[-1 if backward else 0] if start is not None else None
        return RowPage(
            table.entity,
            table.columns,
            tuple(row for _, row in found),
            next=back if backward else onward,
            previous=onward if backward else back,
            sort=order.name,
            searched=searched,
        )

    def _start(self, walk: Walk, cursor: str | None) -> _Position | None:
        if cursor is None:
            return None
        start, entity = read_cursor(cursor, _Position), walk.table.entity
        if start.entity != entity.name:
            raise CursorError(f"this one is of a page of {start.entity}, not of {entity.name}")
        if start.sort != walk.order.name or start.region not in range(len(walk.table.regions(walk.order))):
            raise CursorError
        return start

    async def _reports(self, entities: Sequence[Entity]) -> list[EntityReport]:
        async with self._database.connection() as connection:
            states = await table_states(connection, [Table(each).name for each in entities])
            counts = await count_rows(connection, {name: each.estimate for name, each in states.items()})
        reports: list[EntityReport] = []
        for entity in entities:
            name = Table(entity).name
            reports.append(EntityReport(entity, counts[name], states[name].bytes, states[name].indexed))
        return reports


async def _follow(
    connection: asyncpg.Connection, walk: Walk, start: _Position | None, limit: int
) -> tuple[list[tuple[_Position, Mapping[str, Any]]], str | None, int | None]:
    """Rows from ``start`` on, region after region, each with its place; where the walk continues; rows searched."""
    entity, sort = walk.table.entity.name, walk.order.name
    regions = walk.table.regions(walk.order)
    numbers = range(len(regions) - 1, -1, -1) if walk.backward else range(len(regions))
    first = start.region if start else numbers[0]
    found: list[tuple[_Position, Mapping[str, Any]]] = []
    for number in numbers[numbers.index(first) :]:
        place = start.place if start and start.region == number else None
        step = replace(walk, region=regions[number], start=place)
        statement, values = step.rows(limit + 1 - len(found))
        records = await connection.fetch(statement, *values)
        found += [(_Position(entity, sort, number, step.place(each)), walk.table.row(each)) for each in records]
        if len(found) > limit:
            return found[:limit], write_cursor(found[limit - 1][0]), None
        if step.searching:
            statement, values = step.edge
            if edge := await connection.fetchrow(statement, *values):
                return found, write_cursor(_Position(entity, sort, number, step.place(edge))), SCANNED
    return found, None, None
