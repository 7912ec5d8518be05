"""``nomnom schema``: schema files, checked and described."""

from __future__ import annotations

from nomnom_cli.options import Json


def list_schemas(*, json: Json = False) -> None:
    """The schemas that come with nomnom."""
    from nomnom.schema import built_in_schemas, load_schema
    from nomnom_cli.output import Column, as_json, show_table

    found = [load_schema(name) for name in built_in_schemas()]
    if json:
        as_json([{"name": each.name, "title": each.title, "tags": [e.tag for e in each]} for each in found])
        return
    rows = [(each.name, each.title, " ".join(e.tag for e in each)) for each in found]
    show_table((Column("SCHEMA"), Column("TITLE"), Column("TAGS", grows=True)), rows, "none")


def show_schema(schema: str = "tpch", entity: str | None = None, /, *, json: Json = False) -> None:
    """A schema's entities, or one entity's fields.

    Parameters
    ----------
    schema
        tpch, ecommerce or a schema file.
    entity
        An entity's name or tag.
    """
    from nomnom.schema import load_schema
    from nomnom_cli.output import Column, as_json, show_table

    loaded = load_schema(schema)
    if json:
        as_json(loaded.describe())
        return
    if entity is None:
        columns = (Column("TAG"), Column("ENTITY"), Column("FIELDS", right=True), Column("PARENT"))
        rows = [
            (each.tag, each.name, str(len(each.fields)), each.parent.entity if each.parent else "", ", ".join(each.key))
            for each in loaded
        ]
        show_table((*columns, Column("KEY", grows=True)), rows, "no entities")
        return
    found = loaded.entity(entity)
    rows = [
        (str(at), each.name, each.type.column, "null" if each.nullable else "", "key" if each.name in found.key else "")
        for at, each in enumerate(found.fields, 1)
    ]
    columns = (Column("#", right=True), Column("FIELD"), Column("TYPE"), Column(""), Column("", grows=True))
    show_table(columns, rows, "no fields")


def check_schema(file: str, /, *, json: Json = False) -> None:
    """Whether a schema file is one; errors name the file, the line and the place.

    Parameters
    ----------
    file
        The schema file.
    """
    from nomnom.schema import load_schema
    from nomnom_cli.output import as_json, tell

    loaded = load_schema(file)
    tags = [each.tag for each in loaded]
    if json:
        as_json({"name": loaded.name, "title": loaded.title, "tags": tags})
    else:
        tell(f"{file} is a schema: {loaded.name}, {len(tags)} entities, {' '.join(tags)}")
