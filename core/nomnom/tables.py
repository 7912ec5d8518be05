"""The tables of a schema's entities: definitions and upserts, as SQL generated from the schema.

Names are validated as plain identifiers when the schema is loaded; values are always parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from nomnom.columns import array, column
from nomnom.schema import Entity, Field

SOURCE = {
    "received_at": "timestamptz NOT NULL",
    "message_id": "uuid NOT NULL",
    "stream_position": "bigint NOT NULL DEFAULT 0",
}
"""The columns of every table that say which message last wrote a row, with their definitions."""
_SOURCE_TYPES = [definition.split()[0] for definition in SOURCE.values()]
_EARLIER = (
    "CASE WHEN {one}.stream_position = 0 OR {other}.stream_position = 0 "
    "THEN ({one}.received_at, {one}.message_id) < ({other}.received_at, {other}.message_id) "
    "ELSE ({one}.stream_position, {one}.message_id) < ({other}.stream_position, {other}.message_id) END"
)
"""Whether one message was accepted before another. Earlier versions recorded no positions, only the API's time. The
messages of a segment have one position; their IDs are in their order.
"""


@dataclass(frozen=True)
class Table:
    """The SQL of one entity."""

    entity: Entity

    @cached_property
    def create(self) -> str:
        """CREATE TABLE, with columns that identify the message that last wrote a row, and its position."""
        columns = [f"{quote(each.name)} {self.column_type(each)}" for each in self.entity.fields]
        columns += [f"{name} {definition}" for name, definition in SOURCE.items()]
        if not self.entity.keyless_allowed:
            columns.append(f"PRIMARY KEY ({self.key})")
        body = ",\n    ".join(columns)
        return f"CREATE TABLE {self.name} (\n    {body}\n)"

    @cached_property
    def indexes(self) -> tuple[str, ...]:
        """CREATE INDEX statements: to find the rows of a message, and, if records may lack a key, for uniqueness.

        Rows are inserted roughly in the order of ``received_at``, so a BRIN index finds them at almost no cost
        (measured: no difference in the time per batch).
        """
        table = self.entity.table
        received = (
            f"CREATE INDEX {quote(f'{table}_received')} ON {self.name} USING brin (received_at) "
            "WITH (pages_per_range = 32, autosummarize = on)"
        )
        if not self.entity.keyless_allowed:
            return (received,)
        return (
            received,
            f"CREATE UNIQUE INDEX {quote(f'{table}_key')} ON {self.name} ({self.key})",
            f"CREATE UNIQUE INDEX {quote(f'{table}_keyless')} ON {self.name} (message_id) WHERE {self._keyless}",
        )

    @cached_property
    def upsert(self) -> str:
        """Upsert rows with a key; the last accepted wins. Takes :meth:`parameters`; returns message IDs written."""
        others = [each for each in self.columns if each not in self.entity.key]
        changes = ", ".join(f"{quote(each)} = excluded.{quote(each)}" for each in others)
        return (
            f"{self._insert}\nON CONFLICT ({self.key}) DO UPDATE SET {changes}\n"
            f"WHERE {_EARLIER.format(one='kept', other='excluded')}\n"
            "RETURNING kept.message_id"
        )

    @cached_property
    def insert_keyless(self) -> str:
        """Insert rows without a key, once per message ID. As ``upsert``."""
        return f"{self._insert}\nON CONFLICT (message_id) WHERE {self._keyless} DO NOTHING\nRETURNING kept.message_id"

    @cached_property
    def newer(self) -> str:
        """Which of these keys (an array per column) have a row that a later message wrote, as positions from 0.

        Parameters after the key's arrays: those of SOURCE.
        """
        fields = [self.entity.fields[at] for at in self.entity.key_indexes]
        names = [*(f"key_{at}" for at in range(len(fields))), *SOURCE]
        kinds = [*(each.type.parameter for each in fields), *_SOURCE_TYPES]
        arrays = ", ".join(f"${at}::{kind}[]" for at, kind in enumerate(kinds, start=1))
        same = " AND ".join(
            f"kept.{quote(each.name)} = given.key_{at}::{each.type.column}" for at, each in enumerate(fields)
        )
        return (
            f"SELECT given.ordinality - 1 AS position FROM unnest({arrays}) WITH ORDINALITY "  # noqa: S608
            f"AS given ({', '.join(names)}, ordinality) JOIN {self.name} AS kept ON {same} "
            f"WHERE NOT ({_EARLIER.format(one='kept', other='given')})"
        )

    def parameters(self, columns: Sequence[Sequence[Any]]) -> list[Any]:
        """The parameters of ``upsert`` and ``insert_keyless``, given the values of each of :attr:`columns`.

        Raises ValueError for a value that no field may have.
        """
        times = len(self.entity.fields)
        return [values if at == times else column(values) for at, values in enumerate(columns)]

    @property
    def name(self) -> str:
        """The table's name, quoted."""
        return quote(self.entity.table)

    @property
    def key(self) -> str:
        """The key columns, quoted."""
        return ", ".join(quote(each) for each in self.entity.key)

    def column_type(self, each: Field) -> str:
        """The type of a column, with NOT NULL if it is not nullable."""
        return each.type.column + ("" if self.entity.column_nullable(each) else " NOT NULL")

    @property
    def columns(self) -> list[str]:
        """The columns that the statements write."""
        return [*(each.name for each in self.entity.fields), *SOURCE]

    @cached_property
    def _insert(self) -> str:
        parameters = [each.type.parameter for each in self.entity.fields] + _SOURCE_TYPES
        columns = ", ".join(quote(each) for each in self.columns)
        arrays = ", ".join(
            # Equal times of a segment's messages are one object: as an array they cost less than their texts.
            f"${at}::{kind}[]" if kind == "timestamptz" else array(at, kind)
            for at, kind in enumerate(parameters, start=1)
        )
        casts = ", ".join(
            quote(each.name) if each.type.parameter == each.type.column else f"{quote(each.name)}::{each.type.column}"
            for each in self.entity.fields
        )
        return (
            f"INSERT INTO {self.name} AS kept ({columns})\nSELECT {casts}, {', '.join(SOURCE)}\n"
            f"FROM unnest({arrays}) AS given ({columns})"
        )

    @property
    def _keyless(self) -> str:
        missing = [each for each in self.entity.key if each in self.entity.optional_on_wire]
        return " OR ".join(f"{quote(each)} IS NULL" for each in missing)


def quote(identifier: str) -> str:
    """Quote an SQL identifier."""
    return '"' + identifier.replace('"', '""') + '"'
