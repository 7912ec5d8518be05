"""``nomnom entities`` and ``nomnom rows``: the tables and their rows."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from nomnom.presentation import figures
from nomnom_cli.options import Json, Target, open_pipeline


async def entities(*, json: Json = False, target: Target | None = None) -> None:
    """List entities with the row count and size of their tables.

    The row count of a table with 100,000 rows or more is an estimate.
    """
    from nomnom_cli.output import Column, as_json, show_table

    async with open_pipeline(target) as pipeline:
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
        (each.entity.tag, each.entity.name, str(each.count), figures.size(each.bytes), ", ".join(each.entity.key))
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
    target: Target | None = None,
) -> None:
    """List the rows of an entity in key order.

    Parameters
    ----------
    entity
        Entity name or tag.
    limit
        Maximum number of rows.
    after
        The page after this cursor.
    before
        The page before this cursor.
    """
    from nomnom_cli.output import Column, as_json, print_note, show_table

    async with open_pipeline(target) as pipeline:
        page = await pipeline.entities.rows(entity, after=after, before=before, limit=limit)
    if json:
        as_json({"rows": [dict(each) for each in page.rows], "next": page.next, "previous": page.previous})
        return
    numeric = {each.name for each in page.entity.fields if each.type.numeric}
    # The last columns name the message that wrote the row; a narrow terminal drops them first.
    columns = [Column(name, right=name in numeric, grows=at > 1) for at, name in enumerate(page.columns)]
    table = [["" if row[name] is None else str(row[name]) for name in page.columns] for row in page.rows]
    show_table(columns, table, f"{page.entity.name} has no rows", unfolds=True)
    if page.next:
        print_note(f"next page: --after {page.next}", "dim")
