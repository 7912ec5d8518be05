"""The rows that messages became: an entity's table, by pages of its key, and how many rows there are."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg
import msgspec

from nomnom.presentation.figures import approximate_count
from nomnom.schema import Entity, Schema
from nomnom.tables import Table, quote
from nomnom_control.errors import ControlError
from nomnom_control.session.connections import Database

EXACT_BELOW = 100_000
"""Tables that PostgreSQL takes to be smaller are counted row by row; larger ones are estimated."""
COUNT_TIMEOUT = 2.0

ESTIMATES = """
SELECT given.name, coalesce(class.reltuples, -1)::bigint AS rows,
       coalesce(pg_total_relation_size(class.oid), 0) AS bytes
FROM unnest($1::text[]) AS given (name) LEFT JOIN pg_class AS class ON class.oid = to_regclass(given.name)
"""


class CursorError(ControlError):
    """A page's cursor that is not one of this entity's."""


@dataclass(frozen=True, slots=True)
class Count:
    """A number of rows; an estimate is PostgreSQL's (``pg_class.reltuples``, as of the last analyze)."""

    rows: int
    exact: bool

    def __str__(self) -> str:
        return approximate_count(self.rows, exact=self.exact)


@dataclass(frozen=True, slots=True)
class EntityReport:
    """An entity's table: how many rows, how many bytes with its indexes."""

    entity: Entity
    count: Count
    bytes: int


@dataclass(frozen=True, slots=True)
class RowPage:
    """Rows in the order of the key; those stored under their message id (without a key) come last.

    ``columns`` are the entity's fields, then received_at and message_id. ``next`` and ``previous`` are cursors of the
    neighbouring pages, None at the ends.
    """

    entity: Entity
    columns: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]
    next: str | None
    previous: str | None


class Entities:
    """The tables of one schema. Every method raises DatabaseUnavailable, NotSetUp or DatabaseRefused."""

    def __init__(self, database: Database, schema: Schema) -> None:
        self._database, self._schema = database, schema

    async def reports(self) -> list[EntityReport]:
        """All entities with their counts, in the schema's order."""
        tables = [Table(each) for each in self._schema]
        async with self._database.connection(COUNT_TIMEOUT) as connection:
            rows = await connection.fetch(ESTIMATES, [each.name for each in tables])
            return [
                EntityReport(table.entity, await _count(connection, table, row["rows"]), row["bytes"])
                for table, row in zip(tables, rows, strict=True)
            ]

    async def count(self, entity: str) -> Count:
        """How many rows an entity has."""
        table = Table(self._schema.entity(entity))
        async with self._database.connection(COUNT_TIMEOUT) as connection:
            row = await connection.fetchrow(ESTIMATES, [table.name])
            return await _count(connection, table, row["rows"] if row else -1)

    async def rows(
        self, entity: str, *, after: str | None = None, before: str | None = None, limit: int = 50
    ) -> RowPage:
        """A page of rows: the first, or those behind or in front of a cursor. Raises CursorError on a foreign one."""
        table = Table(self._schema.entity(entity))
        backward = before is not None
        cursor = _read_cursor(before if backward else after, table.entity)
        async with self._database.connection() as connection:
            found = await _page(connection, table, cursor, limit + 1, backward=backward)
        more = len(found) > limit
        rows = found[:limit]
        if backward:
            rows.reverse()
        onward, back = (cursor is not None, more) if backward else (more, cursor is not None)
        return RowPage(
            table.entity,
            (*(each.name for each in table.entity.fields), "received_at", "message_id"),
            tuple(rows),
            _cursor(table.entity, rows[-1]) if rows and onward else None,
            _cursor(table.entity, rows[0]) if rows and back else None,
        )


class _Cursor(msgspec.Struct, array_like=True):
    entity: str
    keyed: bool
    values: list[str]


async def _count(connection: asyncpg.Connection, table: Table, estimate: int) -> Count:
    if estimate >= EXACT_BELOW:
        return Count(estimate, exact=False)
    try:
        rows = await connection.fetchval(f"SELECT count(*) FROM {table.name}")  # noqa: S608
        return Count(int(rows or 0), exact=True)
    except asyncpg.QueryCanceledError:
        # It has grown since PostgreSQL last looked.
        return Count(max(estimate, EXACT_BELOW), exact=False)


async def _page(
    connection: asyncpg.Connection, table: Table, cursor: _Cursor | None, limit: int, *, backward: bool
) -> list[dict[str, Any]]:
    """Rows with a key by their key, then those without by their message id; from the end where ``backward``."""
    parts = [True, False] if table.entity.keyless_allowed else [True]
    if backward:
        parts.reverse()
    if cursor is not None:
        parts = parts[parts.index(cursor.keyed) :]
    found: list[dict[str, Any]] = []
    for keyed in parts:
        here = cursor is not None and cursor.keyed == keyed
        statement = page_statement(table, keyed=keyed, bounded=here, backward=backward)
        values = cursor.values if here and cursor is not None else []
        try:
            rows = await connection.fetch(statement, limit - len(found), *values)
        except asyncpg.DataError as error:
            raise CursorError(f"this page's cursor does not fit {table.entity.name}: {error}") from error
        found += [dict(row) for row in rows]
        if len(found) >= limit:
            break
    return found


def page_statement(table: Table, *, keyed: bool, bounded: bool, backward: bool) -> str:
    """A page's SQL: $1 is its length, the others the bounds. Names are the schema's, checked to be identifiers."""
    entity = table.entity
    names = list(entity.key) if keyed else ["message_id"]
    types = [entity.fields[entity.index[each]].type.column for each in entity.key] if keyed else ["uuid"]
    conditions: list[str] = []
    if entity.keyless_allowed:
        missing = " OR ".join(f"{quote(each)} IS NULL" for each in entity.key if each in entity.optional_on_wire)
        conditions.append(f"NOT ({missing})" if keyed else f"({missing})")
    key = ", ".join(quote(each) for each in names)
    if bounded:
        bounds = ", ".join(f"${at}::text::{kind}" for at, kind in enumerate(types, start=2))
        conditions.append(f"({key}) {'<' if backward else '>'} ({bounds})")
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    order = ", ".join(f"{quote(each)} {'DESC' if backward else 'ASC'}" for each in names)
    columns = ", ".join(quote(each) for each in (*(each.name for each in entity.fields), "received_at", "message_id"))
    return f"SELECT {columns} FROM {table.name} {where} ORDER BY {order} LIMIT $1"  # noqa: S608


def _cursor(entity: Entity, row: Mapping[str, Any]) -> str:
    values = [row[each] for each in entity.key]
    keyed = None not in values
    cursor = _Cursor(entity.name, keyed, [str(each) for each in values] if keyed else [str(row["message_id"])])
    return base64.urlsafe_b64encode(msgspec.json.encode(cursor)).decode().rstrip("=")


def _read_cursor(text: str | None, entity: Entity) -> _Cursor | None:
    if text is None:
        return None
    try:
        cursor = msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=_Cursor)
    except (msgspec.DecodeError, binascii.Error, ValueError) as error:
        raise CursorError(f"{text!r} is no cursor of a page") from error
    expected = len(entity.key) if cursor.keyed else 1
    if cursor.entity != entity.name or len(cursor.values) != expected:
        raise CursorError(f"this cursor is of a page of {cursor.entity}, not of {entity.name}")
    return cursor


def newer_statement(table: Table) -> str:
    """Which of these keys (an array a column, then the ordinals) have a row written by a later message.

    Parameters after the key's arrays: received_at[], message_id[].
    """
    entity = table.entity
    fields = [entity.fields[entity.index[each]] for each in entity.key]
    arrays = [*(each.type.parameter for each in fields), "timestamptz", "uuid"]
    names = [*(quote(each.name) for each in fields), "given_at", "given_id"]
    unnested = ", ".join(f"${at}::{kind}[]" for at, kind in enumerate(arrays, start=1))
    same = " AND ".join(f"kept.{quote(each.name)} = given.{quote(each.name)}::{each.type.column}" for each in fields)
    return (
        f"SELECT given.ordinality - 1 AS position FROM unnest({unnested}) WITH ORDINALITY "  # noqa: S608
        f"AS given ({', '.join(names)}, ordinality) JOIN {table.name} AS kept ON {same} "
        "WHERE (kept.received_at, kept.message_id) >= (given.given_at, given.given_id)"
    )
