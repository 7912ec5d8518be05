"""``nomnom schema``: schema files listed, described and validated."""

from __future__ import annotations

from nomnom_cli.options import Json


def list_schemas(*, json: Json = False) -> None:
    """List the built-in schemas."""
    from nomnom.schema import built_in_schemas, load_schema
    from nomnom_cli.output import Column, as_json, show_table

    found = [load_schema(name) for name in built_in_schemas()]
    if json:
        as_json([{"name": each.name, "title": each.title, "tags": [e.tag for e in each]} for each in found])
        return
    rows = [(each.name, each.title, " ".join(e.tag for e in each)) for each in found]
    show_table((Column("SCHEMA"), Column("TITLE"), Column("TAGS", grows=True)), rows, "none")


def show_schema(schema: str = "tpch", entity: str | None = None, /, *, json: Json = False) -> None:
    """Show the entities of a schema, or the fields of one entity.

    Parameters
    ----------
    schema
        tpch, ecommerce or a schema file (YAML).
    entity
        Entity name or tag.
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
    """Validate a schema file; errors name the file, line and position.

    Parameters
    ----------
    file
        Schema file (YAML).
    """
    from nomnom.schema import load_schema
    from nomnom_cli.output import as_json, print_result

    loaded = load_schema(file)
    tags = [each.tag for each in loaded]
    if json:
        as_json({"name": loaded.name, "title": loaded.title, "tags": tags})
    else:
        print_result(f"{file} is valid: {loaded.name}, {len(tags)} entities, {' '.join(tags)}")
