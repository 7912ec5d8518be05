"""Entities and their rows as the query API returns them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from nomnom.inspection.entities import Entities, EntityReport
from nomnom.schema import Schema
from nomnom_dashboard.answers import Column, Count, EntityList, EntityRows, EntitySummary, Row, Scalar
from nomnom_dashboard.errors import NotFoundError

_EXACT = 2**53 - 1


async def list_entities(entities: Entities, schema: Schema) -> EntityList:
    """All entities with the rows and the size of their tables."""
    return EntityList(schema.name, schema.title, [_summary(each) for each in await entities.reports()])


async def list_rows(
    entities: Entities,
    schema: Schema,
    name: str,
    *,
    limit: int,
    cursor: str | None,
    sort: str | None,
    filters: Sequence[str],
) -> EntityRows:
    """One page of an entity's rows; raises NotFoundError, naming the entities there are."""
    names = [each.name for each in schema]
    if name not in names:
        raise NotFoundError(f"unknown entity {name!r}; expected one of {', '.join(names)}")
    report = await entities.report(name)
    page = await entities.rows(name, after=cursor, limit=limit, sort=sort, filters=filters, report=report)
    columns = [
        Column(
            name=each.name,
            title=each.title,
            type=each.type.column,
            numeric=each.type.numeric,
            nullable=report.entity.column_nullable(each),
            key=each.name in report.entity.key,
            sortable=each.name in report.sortable,
        )
        for each in report.entity.fields
    ]
    return EntityRows(_summary(report), columns, page.sort, [row(each) for each in page.rows], page.next, page.searched)


def row(values: Mapping[str, Any]) -> Row:
    """A row as it is returned."""
    fields = {name: _scalar(each) for name, each in values.items() if name not in ("received_at", "message_id")}
    return Row(fields, str(values["message_id"]), values["received_at"])


def _summary(report: EntityReport) -> EntitySummary:
    entity = report.entity
    return EntitySummary(
        name=entity.name,
        title=entity.title,
        tag=entity.tag,
        table=entity.table,
        parent=entity.parent.entity if entity.parent else None,
        rows=Count(report.count.rows, report.count.exact),
        bytes=report.bytes,
    )


def _scalar(value: Any) -> Scalar:
    if isinstance(value, date | datetime):
        return value.isoformat()
    if isinstance(value, Decimal) or (isinstance(value, int) and abs(value) > _EXACT):
        return str(value)
    return value
