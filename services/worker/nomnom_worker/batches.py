"""Batches: the rows of several messages, arranged for as few statements per table as possible."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from operator import attrgetter, itemgetter
from typing import Any, TypeAlias, TypeVar

from nomnom.fields import Value
from nomnom.schema import Entity, Schema
from nomnom.tables import Table
from nomnom_worker.deliveries import Delivery

T = TypeVar("T")
Claims: TypeAlias = tuple[list[str], list[str], list[datetime], list[int], list[int]]
Row = tuple[Any, ...]
"""The values of a record, then those of SOURCE: the parameters of the statements of Table."""


class Writes:
    """Arranges the rows of one entity into statements."""

    def __init__(self, entity: Entity) -> None:
        self.table = Table(entity)
        self._key = _key_of(entity)
        self._optional = entity.keyless_allowed

    def arrange(self, rows: list[Row]) -> Iterable[tuple[str, list[Row]]]:
        """Statements with their rows: rows with a key, sorted and only the last accepted per key; then rows without.

        All workers lock rows in the order of keys, which prevents deadlocks; and a statement must not contain the same
        key twice.
        """
        keyed: dict[Any, Row] = {}
        keyless: list[Row] = []
        key = self._key
        for row in rows:
            name = key(row)
            if self._optional and (name is None or (isinstance(name, tuple) and None in name)):
                keyless.append(row)
            elif (other := keyed.get(name)) is None or not _is_earlier(row, other):
                keyed[name] = row
        if keyed:
            yield self.table.upsert, [keyed[name] for name in sorted(keyed)]
        if keyless:
            yield self.table.insert_keyless, sorted(keyless, key=_MESSAGE_ID)


class Statement:
    """One statement of a batch: its text and its columns."""

    __slots__ = ("columns", "keyed", "sql", "table")

    def __init__(self, table: Table, sql: str, rows: list[Row]) -> None:
        self.table, self.sql = table, sql
        self.keyed = sql is table.upsert
        self.columns: list[tuple[Any, ...]] = list(zip(*rows, strict=True))

    @property
    def parameters(self) -> list[Any]:
        """The parameters."""
        return self.table.parameters(self.columns)

    @property
    def no_rows(self) -> list[Any]:
        """The parameters with which it writes nothing."""
        return self.table.parameters([()] * len(self.columns))


class Batch:
    """Messages with distinct IDs, sorted by ID, and the statements that write them."""

    __slots__ = ("deliveries", "offered", "statements")

    def __init__(self, deliveries: Iterable[Delivery], writes: dict[Entity, Writes]) -> None:
        self.deliveries = sorted(deliveries, key=_ID)
        rows: dict[Entity, list[Row]] = {}
        offered = 0
        for delivery in self.deliveries:
            envelope = delivery.envelope
            source = (envelope.received_at, envelope.message_id, envelope.position)
            for record in delivery.records:
                row = (*record.values, *source)
                offered += 1
                if (others := rows.get(record.entity)) is None:
                    rows[record.entity] = [row]
                else:
                    others.append(row)
        self.offered = offered
        """Number of rows in the messages, before merging those with the same key."""
        self.statements = [
            Statement(write.table, sql, arranged)
            for entity, write in writes.items()
            if entity in rows
            for sql, arranged in write.arrange(rows[entity])
        ]

    @property
    def claims(self) -> Claims:
        """The parameters of CLAIM."""
        together: dict[tuple[str, datetime, int, int], list[str]] = {}
        for each in self.deliveries:
            envelope = each.envelope
            alike = (envelope.entity, envelope.received_at, envelope.replays, envelope.position)
            if (others := together.get(alike)) is None:
                together[alike] = [envelope.message_id]
            else:
                others.append(envelope.message_id)
        ids = [",".join(each) for each in together.values()]
        entities, times, replays, positions = map(list, zip(*together, strict=True)) if together else ([], [], [], [])
        return ids, entities, times, replays, positions

    @property
    def bounds(self) -> tuple[datetime, datetime]:
        """The earliest and the latest received_at."""
        return bounds_of(self.deliveries)


_ID = attrgetter("message_id")
_MESSAGE_ID = itemgetter(-2)


def claims_of(deliveries: Iterable[Delivery]) -> Claims:
    """The parameters that MARK and FAIL have in common: IDs, entities, received_at, replays, positions."""
    envelopes = [each.envelope for each in deliveries]
    return (
        [each.message_id for each in envelopes],
        [each.entity for each in envelopes],
        [each.received_at for each in envelopes],
        [each.replays for each in envelopes],
        [each.position for each in envelopes],
    )


def bounds_of(deliveries: Iterable[Delivery]) -> tuple[datetime, datetime]:
    """The earliest and the latest received_at of at least one delivery."""
    times = [each.envelope.received_at for each in deliveries]
    return min(times), max(times)


def _is_earlier(one: Row, other: Row) -> bool:
    """Whether the message of one row was accepted before that of another one; as Table.upsert decides."""
    if one[-1] and other[-1]:
        return (one[-1], one[-2]) < (other[-1], other[-2])
    return one[-3:-1] < other[-3:-1]


def writes_of(schema: Schema) -> dict[Entity, Writes]:
    """The writes of each entity, in the order of the schema."""
    return {entity: Writes(entity) for entity in schema}


def distinct(items: Sequence[T], name: Callable[[T], str]) -> tuple[Sequence[T], Sequence[T]]:
    """The first item of each name, and the rest; a message may be redelivered while it is in progress."""
    names = {name(each) for each in items}
    if len(names) == len(items):
        return items, ()
    firsts: list[T] = []
    rest: list[T] = []
    for each in items:
        if name(each) in names:
            names.remove(name(each))
            firsts.append(each)
        else:
            rest.append(each)
    return firsts, rest


def _key_of(entity: Entity) -> Callable[[Row], Any]:
    """A key function that compares like PostgreSQL: decimals are compared as numbers (1.0 equals 1.00)."""
    indexes = entity.key_indexes
    exact = [entity.fields[at].type.name == "decimal" for at in indexes]
    if not any(exact):
        return itemgetter(*indexes)

    def number(value: Value) -> Any:
        return Decimal(value) if isinstance(value, str) else value

    def key(row: Row) -> tuple[Any, ...]:
        return tuple(number(row[at]) if decimal else row[at] for at, decimal in zip(indexes, exact, strict=True))

    return key
