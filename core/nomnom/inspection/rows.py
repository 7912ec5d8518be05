"""The SQL of an entity's rows, a page at a time in either direction: by the key, or by another column.

Each statement walks one index, or a table of bounded size. A filter that no index answers scans a bounded number of
rows and returns how far it came. Names come from the schema, where they are checked; values are always parameters.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import asyncpg

from nomnom.fields import Value, render
from nomnom.inspection.counts import SCANNED
from nomnom.inspection.cursors import CursorError, InvalidQuery
from nomnom.schema import Entity, Field
from nomnom.tables import Table, quote

OPERATORS = {"eq": "=", "ne": "<>", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
FILTER_PATTERN = r"^[a-z_][a-z0-9_]*:(eq|ne|lt|lte|gt|gte|contains|is):.*$"
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
    """How rows are sorted: ``by_key``, which is unique and indexed; or by one column, then by the row's location."""

    columns: tuple[Field, ...]
    descending: bool
    by_key: bool

    @property
    def name(self) -> str:
        """The order as ``sort`` names it."""
        return ("-" if self.descending else "") + self.columns[0].name


class EntityTable:
    """What can be asked of one entity's table."""

    def __init__(self, entity: Entity) -> None:
        self.entity, self.table = entity, Table(entity)
        self.columns = (*(each.name for each in entity.fields), "received_at", "message_id")
        self._padded = {each.name for each in entity.fields if each.type.name == "char"}

    @property
    def written_by(self) -> str:
        """The rows of one message: $1 its received_at, by which a block-range index finds them, $2 its id."""
        return (
            f"SELECT * FROM {self.table.name} WHERE received_at = $1 AND message_id = $2"  # noqa: S608
            f" ORDER BY {self.table.key} LIMIT $3"
        )

    def order(self, sort: str | None, sortable: Sequence[str]) -> Order:
        """The order that ``sort`` names (``column`` or ``-column``); raises InvalidQuery, naming the sortable ones."""
        descending = sort is not None and sort.startswith("-")
        name = self.entity.key[0] if sort is None else sort.removeprefix("-")
        if name == self.entity.key[0]:
            return Order(tuple(self._field(each) for each in self.entity.key), descending, by_key=True)
        if name not in sortable:
            known = name in self.entity.index
            reason = "has no index, and the table is too large to sort" if known else "is not a column"
            raise InvalidQuery(
                f"sort: {name!r} {reason}; expected one of {', '.join(sortable)}, optionally prefixed with -",
                list(sortable),
            )
        return Order((self._field(name),), descending, by_key=False)

    def condition(self, text: str) -> Condition:
        """The condition of ``column:operator:value``; raises InvalidQuery, naming what is allowed."""
        match = _FILTER.fullmatch(text)
        if match is None:
            expected = "column:operator:value with an operator of eq, ne, lt, lte, gt, gte, contains, is"
            raise InvalidQuery(f"filter: expected {expected}, found {text[:60]!r}")
        name, operator, value = text.split(":", 2)
        if name not in self.entity.index:
            columns = list(self.entity.index)
            raise InvalidQuery(f"filter: unknown column {name!r}; expected one of {', '.join(columns)}", columns)
        column = self._field(name)
        if operator == "is":
            if value not in ("null", "value"):
                raise InvalidQuery(f"filter: {name}:is: expected null or value, found {value[:60]!r}")
            return Condition(column, operator, None, null=value == "null")
        if operator == "contains":
            if not column.type.textual:
                raise InvalidQuery(f"filter: {name} has type {column.type.name}; contains requires a text column")
            return Condition(column, operator, value.replace("\0", ""))
        return Condition(column, operator, self._value(column, value))

    def regions(self, order: Order) -> tuple[Region, ...]:
        """The parts of the table that follow one another in this order: rows without a value come last."""
        if order.by_key:
            return ("values", "keyless") if self.entity.keyless_allowed else ("values",)
        return ("values", "nulls") if self.entity.column_nullable(order.columns[0]) else ("values",)

    def row(self, record: asyncpg.Record) -> Mapping[str, Any]:
        """The values by column, as Python counts with them; char(n) without the blanks that PostgreSQL adds."""
        values = {name: record[name] for name in self.columns}
        for name in self._padded:
            if isinstance(text := values[name], str):
                values[name] = text.rstrip(" ")
        return values

    def _field(self, name: str) -> Field:
        return self.entity.fields[self.entity.index[name]]

    def _value(self, column: Field, text: str) -> Value:
        kind = column.type
        problem = f"filter: {column.name}: expected {kind.expected}, found {text[:60]!r}"
        if not re.fullmatch(kind.pattern, text):
            raise InvalidQuery(problem)
        try:
            return kind.convert(text) if kind.convert else text
        except (ValueError, OverflowError) as error:
            raise InvalidQuery(problem) from error


@dataclass(frozen=True)
class Walk:
    """A walk over one region of a table, from a place on, under conditions; ``backward`` is against the order."""

    table: EntityTable
    order: Order
    region: Region
    start: Sequence[str] | None
    conditions: Sequence[Condition]
    indexed: frozenset[str]
    backward: bool

    @property
    def searching(self) -> bool:
        """Whether some condition is answered by scanning rows."""
        return any(not self._is_indexed(each) for each in self.conditions)

    def rows(self, limit: int) -> tuple[str, list[object]]:
        """The statement of the rows, and its values. Columns ``place_n`` are the place of each row, as text."""
        values: list[object] = []
        inner = self._inner(values)
        if not self.searching:
            return f"{inner} LIMIT {_bind(values, limit)}", values
        inner += f" LIMIT {_bind(values, SCANNED)}"
        others = " AND ".join(_condition(each, values) for each in self.conditions if not self._is_indexed(each))
        # The limit within keeps the conditions out of the walk; the order is already there, so nothing is sorted.
        return f"SELECT * FROM ({inner}) AS scanned WHERE {others} {self._sort} LIMIT {_bind(values, limit)}", values  # noqa: S608

    @property
    def edge(self) -> tuple[str, list[object]]:
        """The statement of the last row that a search scans, if it scans as many as it may."""
        values: list[object] = []
        inner = self._inner(values)
        return f"{inner} OFFSET {_bind(values, SCANNED - 1)} LIMIT 1", values

    def place(self, record: asyncpg.Record) -> list[str]:
        """The place of a row in this walk."""
        return [record[f"place_{at}"] for at in range(len(self._place))]

    @property
    def _place(self) -> list[tuple[str, str]]:
        """The columns that say where a row is, with their types."""
        if self.region == "keyless":
            return [("message_id", "uuid")]
        fields = () if self.region == "nulls" else self.order.columns
        columns = [(quote(each.name), each.type.column) for each in fields]
        return columns if self.order.by_key else [*columns, ("ctid", "tid")]

    @property
    def _descending(self) -> bool:
        return self.order.descending != self.backward

    @property
    def _sort(self) -> str:
        direction = " DESC" if self._descending else ""
        return "ORDER BY " + ", ".join(f"{column}{direction}" for column, _ in self._place)

    def _inner(self, values: list[object]) -> str:
        shown = ", ".join(f"{column}::text AS place_{at}" for at, (column, _) in enumerate(self._place))
        conditions = [self._bounds(), self._beyond(values)]
        conditions += [_condition(each, values) for each in self.conditions if self._is_indexed(each)]
        where = " AND ".join(each for each in conditions if each) or "true"
        return f"SELECT *, ctid, {shown} FROM {self.table.table.name} WHERE {where} {self._sort}"  # noqa: S608

    def _bounds(self) -> str:
        nullable = [quote(each.name) for each in self.order.columns if self.table.entity.column_nullable(each)]
        if self.region == "values":
            return " AND ".join(f"{each} IS NOT NULL" for each in nullable)
        return " OR ".join(f"{each} IS NULL" for each in nullable).join("()")

    def _beyond(self, values: list[object]) -> str:
        if self.start is None:
            return ""
        if len(self.start) != len(self._place):
            raise CursorError
        columns = ", ".join(column for column, _ in self._place)
        bound = ", ".join(
            f"{_bind(values, text)}::text::{kind}" for text, (_, kind) in zip(self.start, self._place, strict=True)
        )
        return f"({columns}) {'<' if self._descending else '>'} ({bound})"

    def _is_indexed(self, condition: Condition) -> bool:
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
