"""``nomnom entities`` and ``rows``: the tables that workers write."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from nomnom_cli.options import Json, Where, open_pipeline


async def entities(*, json: Json = False, where: Where | None = None) -> None:
    """The entities with the rows and the size of their tables.

    The count of a table with 100,000 rows or more is an estimate.
    """
    from nomnom_cli.output import Column, as_json, show_table
    from nomnom_control.rendering import size

    async with open_pipeline(where) as pipeline:
        found = await pipeline.entities.reports()
    if json:
        as_json(
            [
                {
                    "entity": each.entity.name,
                    "tag": each.entity.tag,
                    "table": each.entity.table,
                    "rows": each.count.rows,
                    "exact": each.count.exact,
                    "bytes": each.bytes,
                }
                for each in found
            ]
        )
        return
    columns = (Column("TAG"), Column("ENTITY"), Column("ROWS", right=True), Column("SIZE", right=True))
    columns = (*columns, Column("KEY", grows=True))
    rows = [
        (each.entity.tag, each.entity.name, str(each.count), size(each.bytes), ", ".join(each.entity.key))
        for each in found
    ]
    show_table(columns, rows, "the schema has no entities")


async def rows(
    entity: str,
    /,
    *,
    limit: Annotated[int, Parameter(name=("--limit", "-n"), validator=Number(gte=1, lte=10_000))] = 20,
    after: Annotated[str | None, Parameter(show_default=False)] = None,
    before: Annotated[str | None, Parameter(show_default=False)] = None,
    json: Json = False,
    where: Where | None = None,
) -> None:
    """The rows of an entity's table, in the order of its key.

    Parameters
    ----------
    entity
        Its name or tag.
    limit
        How many.
    after
        The page after this cursor.
    before
        The page before this cursor.
    """
    from nomnom_cli.output import Column, as_json, say, show_table

    async with open_pipeline(where) as pipeline:
        page = await pipeline.entities.rows(entity, after=after, before=before, limit=limit)
    if json:
        as_json({"rows": [dict(each) for each in page.rows], "next": page.next, "previous": page.previous})
        return
    numeric = {each.name for each in page.entity.fields if each.type.numeric}
    # The last columns say who wrote the row: on a narrow terminal they are the first to go.
    columns = [Column(name, right=name in numeric, grows=at > 1) for at, name in enumerate(page.columns)]
    table = [["" if row[name] is None else str(row[name]) for name in page.columns] for row in page.rows]
    show_table(columns, table, f"{page.entity.name} has no rows", unfolds=True)
    if page.next:
        say(f"more: --after {page.next}", "dim")
