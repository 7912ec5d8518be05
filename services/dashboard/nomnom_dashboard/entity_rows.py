"""Rows of an entity's table, a page at a time: by its key, or by another column where an index or its size allows.

Each statement walks one index, or a table of bounded size. A filter that no index answers looks at a bounded number of
rows and says how far it came. Names come from the schema, where they are checked; values are always parameters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal

import asyncpg

from nomnom.fields import Value, render
from nomnom.schema import Entity, Field
from nomnom.tables import Table, quote
from nomnom_dashboard.answers import Row, Scalar
from nomnom_dashboard.errors import InvalidQueryError
from nomnom_dashboard.message_rows import SEARCHED

SORTED = 100_000
"""Up to this many rows a table can be sorted by any column."""
OPERATORS = {"eq": "=", "ne": "<>", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
FILTER_PATTERN = r"^[a-z_][a-z0-9_]*:(eq|ne|lt|lte|gt|gte|contains|is):.*$"
INDEXED = """
SELECT DISTINCT a.attname AS name
FROM pg_index i
JOIN pg_am m ON m.amname = 'btree'
JOIN pg_class c ON c.oid = i.indexrelid AND c.relam = m.oid
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
WHERE i.indrelid = to_regclass($1) AND i.indisvalid AND i.indpred IS NULL
"""
_EXACT = 2**53 - 1
_FILTER = re.compile(FILTER_PATTERN, re.DOTALL)
Region = Literal["values", "nulls", "keyless"]


@dataclass(frozen=True, slots=True)
class Condition:
    """One filter: a column, an operator and a value."""

    field: Field
    operator: str
    value: Value
    null: bool = False


@dataclass(frozen=True, slots=True)
class Order:
    """How rows are sorted. ``keys``: by the entity's key, unique and indexed; else by one column, then by place."""

    columns: tuple[Field, ...]
    descending: bool
    by_key: bool


class EntityTable:
    """The statements over one entity's table."""

    def __init__(self, entity: Entity) -> None:
        self.entity, self.table = entity, Table(entity)

    @property
    def counted(self) -> str:
        """Its rows, counted up to a number."""
        return f"SELECT count(*) AS rows FROM (SELECT FROM {self.table.name} LIMIT $1) AS few"  # noqa: S608

    @property
    def estimated(self) -> str:
        """The planner's estimate of its rows."""
        return f"EXPLAIN (FORMAT JSON) SELECT FROM {self.table.name}"

    @property
    def written_by(self) -> str:
        """The rows of one message: its time leads to them by a block-range index."""
        # Asking the text of the id keeps the planner from a partial index that holds rows without a key alone.
        return (
            f"SELECT * FROM {self.table.name} WHERE received_at = $1 AND message_id = $2"  # noqa: S608
            f" ORDER BY {self.table.key} LIMIT $3"
        )

    def order(self, text: str | None, allowed: Sequence[str]) -> Order:
        """The order that ``sort`` names (``column`` or ``-column``); raises InvalidQueryError, naming those allowed."""
        if text is None:
            return self._by_key(descending=False)
        descending, name = text.startswith("-"), text.removeprefix("-")
        if name not in allowed:
            what = (
                "is not a column"
                if name not in self.entity.index
                else "has no index, and the table is too large to sort"
            )
            raise InvalidQueryError(
                f"sort: {name!r} {what}; expected one of {', '.join(allowed)}, optionally prefixed with -",
                list(allowed),
            )
        if name == self.entity.key[0]:
            return self._by_key(descending=descending)
        return Order((self._field(name),), descending, by_key=False)

    def condition(self, text: str) -> Condition:
        """The condition of ``column:operator:value``; raises InvalidQueryError, naming what is allowed."""
        match = _FILTER.fullmatch(text)
        name, operator, value = text.split(":", 2) if match else ("", "", "")
        if match is None:
            expected = "column:operator:value with an operator of eq, ne, lt, lte, gt, gte, contains, is"
            raise InvalidQueryError(f"filter: expected {expected}, found {text[:60]!r}")
        if name not in self.entity.index:
            columns = list(self.entity.index)
            raise InvalidQueryError(f"filter: unknown column {name!r}; expected one of {', '.join(columns)}", columns)
        column = self._field(name)
        if operator == "is":
            if value not in ("null", "value"):
                raise InvalidQueryError(f"filter: {name}:is: expected null or value, found {value[:60]!r}")
            return Condition(column, operator, None, null=value == "null")
        if operator == "contains":
            if not column.type.textual:
                raise InvalidQueryError(f"filter: {name} has type {column.type.name}; contains requires a text column")
            return Condition(column, operator, value.replace("\0", ""))
        return Condition(column, operator, self._value(column, value))

    def regions(self, order: Order) -> tuple[Region, ...]:
        """The parts of the table that follow one another in this order: rows without a value come last."""
        if order.by_key:
            return ("values", "keyless") if self.entity.keyless_allowed else ("values",)
        return ("values", "nulls") if self.entity.column_nullable(order.columns[0]) else ("values",)

    def row(self, record: asyncpg.Record) -> Row:
        """A row as it is answered."""
        values = {each.name: _scalar(record[each.name]) for each in self.entity.fields}
        return Row(values, str(record["message_id"]), record["received_at"])

    def _by_key(self, *, descending: bool) -> Order:
        return Order(tuple(self._field(name) for name in self.entity.key), descending, by_key=True)

    def _field(self, name: str) -> Field:
        return self.entity.fields[self.entity.index[name]]

    def _value(self, column: Field, text: str) -> Value:
        kind = column.type
        if not re.fullmatch(kind.pattern, text):
            raise InvalidQueryError(f"filter: {column.name}: expected {kind.expected}, found {text[:60]!r}")
        try:
            return kind.convert(text) if kind.convert else text
        except (ValueError, OverflowError) as error:
            problem = f"filter: {column.name}: expected {kind.expected}, found {text[:60]!r}"
            raise InvalidQueryError(problem) from error


@dataclass(frozen=True)
class Walk:
    """A walk over one region of a table in one order, from a place on, under conditions."""

    table: EntityTable
    order: Order
    region: Region
    after: Sequence[str] | None
    conditions: Sequence[Condition]
    indexed: frozenset[str]

    @property
    def searching(self) -> bool:
        """Whether some condition is answered by looking at rows, one after another."""
        return any(not self._known(each) for each in self.conditions)

    def found(self, limit: int) -> tuple[str, list[object]]:
        """The statement of the rows, and its values. Columns ``place_n`` are where each row stands, as text."""
        values: list[object] = []
        inner = self._inner(values)
        if not self.searching:
            return f"{inner} LIMIT {_bind(values, limit)}", values
        inner += f" LIMIT {_bind(values, SEARCHED)}"
        others = " AND ".join(_condition(each, values) for each in self.conditions if not self._known(each))
        # The limit within keeps the conditions out of the walk; the order is already there, so nothing is sorted.
        return f"SELECT * FROM ({inner}) AS looked WHERE {others} {self._sort} LIMIT {_bind(values, limit)}", values  # noqa: S608

    @property
    def edge(self) -> tuple[str, list[object]]:
        """The statement of the last row that a search looked at, if it looked at as many as it may."""
        values: list[object] = []
        inner = self._inner(values)
        return f"{inner} OFFSET {_bind(values, SEARCHED - 1)} LIMIT 1", values

    def place(self, record: asyncpg.Record) -> list[str]:
        """Where a row stands in this walk."""
        return [record[f"place_{at}"] for at in range(len(self._place))]

    @property
    def _place(self) -> list[tuple[str, str]]:
        if self.region == "keyless":
            return [("message_id", "uuid")]
        columns = (
            [] if self.region == "nulls" else [(quote(each.name), each.type.column) for each in self.order.columns]
        )
        return columns if self.order.by_key else [*columns, ("ctid", "tid")]

    @property
    def _sort(self) -> str:
        direction = " DESC" if self.order.descending else ""
        return "ORDER BY " + ", ".join(f"{column}{direction}" for column, _ in self._place)

    def _inner(self, values: list[object]) -> str:
        place = self._place
        shown = ", ".join(f"{column}::text AS place_{at}" for at, (column, _) in enumerate(place))
        conditions = [self._bounds(), *self._after(values)]
        conditions += [_condition(each, values) for each in self.conditions if self._known(each)]
        where = " AND ".join(each for each in conditions if each) or "true"
        return f"SELECT *, ctid, {shown} FROM {self.table.table.name} WHERE {where} {self._sort}"  # noqa: S608

    def _bounds(self) -> str:
        nullable = [quote(each.name) for each in self.order.columns if self.table.entity.column_nullable(each)]
        if self.region == "values":
            return " AND ".join(f"{each} IS NOT NULL" for each in nullable)
        return " OR ".join(f"{each} IS NULL" for each in nullable).join("()")

    def _after(self, values: list[object]) -> list[str]:
        if self.after is None:
            return []
        if len(self.after) != len(self._place):
            raise InvalidQueryError("cursor: expected `next` of an earlier page with the same sort order")
        columns = ", ".join(column for column, _ in self._place)
        bound = ", ".join(
            f"{_bind(values, text)}::text::{kind}" for text, (_, kind) in zip(self.after, self._place, strict=True)
        )
        return [f"({columns}) {'<' if self.order.descending else '>'} ({bound})"]

    def _known(self, condition: Condition) -> bool:
        return condition.field.name in self.indexed and condition.operator not in ("contains", "ne", "is")


def _bind(values: list[object], value: object) -> str:
    values.append(value)
    return f"${len(values)}"


def _condition(condition: Condition, values: list[object]) -> str:
    column, kind = quote(condition.field.name), condition.field.type
    if condition.operator == "is":
        return f"{column} IS {'' if condition.null else 'NOT '}NULL"
    if condition.operator == "contains":
        return f"strpos(lower({column}), lower({_bind(values, condition.value)}::text)) > 0"
    bound = f"{_bind(values, render(kind, condition.value))}::text::{kind.column}"
    if condition.operator == "ne":
        return f"{column} IS DISTINCT FROM {bound}"
    return f"{column} {OPERATORS[condition.operator]} {bound}"


def _scalar(value: Any) -> Scalar:
    if isinstance(value, Decimal | date | datetime):
        return value.isoformat() if isinstance(value, date | datetime) else str(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > _EXACT:
        return str(value)
    return value.rstrip(" ") if isinstance(value, str) else value
