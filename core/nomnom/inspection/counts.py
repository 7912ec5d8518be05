"""Numbers of rows: counted if they are few, estimated if they are many; and the sizes of tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg
import msgspec

from nomnom.presentation.figures import approximate_count

EXACT_BELOW = 100_000
"""A number of rows that is estimated to be smaller is counted."""
COUNTED = 1_000_000
"""Rows that are counted at most: a table that nothing has analyzed yet has no estimate."""
SCANNED = 50_000
"""Rows that one request scans at most, for a filter that no index answers."""

# The estimate is the planner's own: the density at the last analyze, times the size now. PostgreSQL has none for a
# partitioned table: it is the sum of its partitions; one that was never analyzed has the density of the others.
_TABLES = """
SELECT given.name,
       (parts.analyzed + coalesce(parts.other_pages * parts.density, 0))::bigint AS estimate,
       coalesce(parts.bytes, 0) AS bytes,
       ARRAY(
           SELECT DISTINCT attribute.attname::text
           FROM pg_index AS index
           JOIN pg_class AS named ON named.oid = index.indexrelid
           JOIN pg_am AS method ON method.oid = named.relam AND method.amname = 'btree'
           JOIN pg_attribute AS attribute
             ON attribute.attrelid = index.indrelid AND attribute.attnum = index.indkey[0]
           WHERE index.indrelid = class.oid AND index.indisvalid AND index.indpred IS NULL
       ) AS indexed
FROM unnest($1::text[]) AS given (name)
LEFT JOIN pg_class AS class ON class.oid = to_regclass(given.name)
LEFT JOIN LATERAL (
    SELECT sum(pg_total_relation_size(oid))::bigint AS bytes,
           sum(reltuples / relpages * pages) FILTER (WHERE known) AS analyzed,
           sum(reltuples) FILTER (WHERE known) / sum(relpages) FILTER (WHERE known) AS density,
           sum(pages) FILTER (WHERE NOT known) AS other_pages
    FROM (
        SELECT part.oid, part.reltuples, part.relpages, part.reltuples >= 0 AND part.relpages > 0 AS known,
               pg_relation_size(part.oid) / current_setting('block_size')::bigint AS pages
        FROM (
            SELECT class.oid AS relid WHERE class.relkind <> 'p'
            UNION ALL
            SELECT relid FROM pg_partition_tree(class.oid) WHERE isleaf AND class.relkind = 'p'
        ) AS leaves
        JOIN pg_class AS part ON part.oid = leaves.relid
    ) AS sizes
) AS parts ON true
"""


@dataclass(frozen=True, slots=True)
class Count:
    """A number of rows; one that is not exact is an estimate of PostgreSQL."""

    rows: int
    exact: bool

    def __str__(self) -> str:
        return approximate_count(self.rows, exact=self.exact)


@dataclass(frozen=True, slots=True)
class TableState:
    """What PostgreSQL's catalog says of a table: an estimate of its rows (None: never analyzed), its bytes with indexes
    and TOAST, and the columns that an index begins with.
    """

    estimate: int | None
    bytes: int
    indexed: frozenset[str]


async def table_states(connection: asyncpg.Connection, tables: Sequence[str]) -> Mapping[str, TableState]:
    """The state of each table by its quoted name. A table that does not exist has no bytes."""
    rows = await connection.fetch(_TABLES, tables)
    return {row["name"]: TableState(row["estimate"], row["bytes"], frozenset(row["indexed"])) for row in rows}


async def count_rows(
    connection: asyncpg.Connection, estimates: Mapping[str, int | None], others: Mapping[str, str] | None = None
) -> dict[str, Count]:
    """The number of rows of each table, by its quoted name, given its estimate.

    ``others`` are counted at the same moment: by a name of their own, each a ``table WHERE ...`` without values.
    """
    counts = {name: Count(rows, exact=False) for name, rows in estimates.items() if rows and rows >= EXACT_BELOW}
    sources = {name: name for name in estimates if name not in counts} | dict(others or {})
    if not sources:
        return counts
    statement = " UNION ALL ".join(
        f"SELECT ${at}::text AS name, count(*) AS rows FROM (SELECT FROM {source} LIMIT $1) AS few"  # noqa: S608
        for at, source in enumerate(sources.values(), start=2)
    )
    for row in await connection.fetch(statement, COUNTED + 1, *sources):
        name, rows = row["name"], row["rows"]
        if rows > COUNTED:
            rows = max(rows, await _planned(connection, sources[name]))
        counts[name] = Count(rows, exact=row["rows"] <= COUNTED)
    return counts


async def _planned(connection: asyncpg.Connection, source: str) -> int:
    """The planner's estimate of the rows of a source."""
    plan = await connection.fetchval(f"EXPLAIN (FORMAT JSON) SELECT FROM {source}")
    plans: list[Mapping[str, Any]] = msgspec.json.decode(str(plan))
    return int(plans[0]["Plan"]["Plan Rows"])
