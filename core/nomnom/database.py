"""Migrations: the tables of nomnom itself, from SQL files, and the tables of the schema's entities.

Each step is recorded in ``nomnom_migrations``; an advisory lock serializes concurrent runs.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from importlib.resources import files

import asyncpg

from nomnom.errors import NomnomError
from nomnom.schema import Entity, Field, Schema
from nomnom.tables import SOURCE, Table, quote

LOCK = 0x6E6F6D6E6F6D  # "nomnom"
"""The advisory lock of ``nomnom setup``."""
_LEDGER = """
CREATE TABLE IF NOT EXISTS nomnom_migrations (
    name       text PRIMARY KEY,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
)
"""
_COLUMNS = """
SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull AS filled
FROM pg_attribute a
WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped
"""
_WIDENING = {("integer", "bigint"), ("character varying", "text"), ("character", "text")}
_SPELLED = re.compile(r"([a-z ]+?)(?:\((\d+)(?:,(\d+))?\))?")


class MigrationError(NomnomError):
    """A database that cannot be migrated to the schema without losing data."""


async def migrate(connection: asyncpg.Connection, schema: Schema) -> list[str]:
    """Migrate the database to this version and schema, in one transaction; returns what was done.

    Raises MigrationError if a change would lose data; then nothing is changed.
    """
    done: list[str] = []
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", LOCK)
        await connection.execute(_LEDGER)
        applied = {row["name"]: row["checksum"] for row in await connection.fetch("TABLE nomnom_migrations")}
        done += await _apply_files(connection, applied)
        for entity in schema:
            done += await _migrate_entity(connection, entity)
    return done or ["tables: up to date"]


async def _apply_files(connection: asyncpg.Connection, applied: Mapping[str, str]) -> list[str]:
    done: list[str] = []
    scripts = {each.name: each.read_text() for each in files("nomnom.migrations").iterdir() if each.name[0].isdigit()}
    if unknown := [name for name in applied if name[0].isdigit() and name not in scripts]:
        raise MigrationError(f"the database was migrated by a newer version (migration {unknown[0]}); upgrade nomnom")
    for name in sorted(scripts):
        checksum = hashlib.sha256(scripts[name].encode()).hexdigest()
        if name not in applied:
            await connection.execute(scripts[name])
            await _record(connection, name, checksum)
            done.append(f"migration {name}: applied")
        elif applied[name] != checksum:
            raise MigrationError(
                f"checksum mismatch for migration {name}: it was applied by another build of nomnom; use that one"
            )
    return done


async def _migrate_entity(connection: asyncpg.Connection, entity: Entity) -> list[str]:
    table = Table(entity)
    present = {row["name"]: row for row in await connection.fetch(_COLUMNS, table.name)}
    if not present:
        steps = [table.create, *table.indexes]
    else:
        if missing := {"received_at", "message_id"} - present.keys():
            raise MigrationError(
                f"table {entity.table} has no column {missing.pop()}; rename it, or change the schema's table"
            )
        steps = [
            f"ALTER TABLE {table.name} ADD COLUMN {name} {definition}"
            for name, definition in SOURCE.items()
            if name not in present
        ]
        steps += [step for each in entity.fields for step in _column_steps(table, each, present.get(each.name))]
        if gone := present.keys() - entity.index.keys() - SOURCE.keys():
            blocking = sorted(name for name in gone if present[name]["filled"])
            steps += [f"ALTER TABLE {table.name} ALTER COLUMN {quote(each)} DROP NOT NULL" for each in blocking]
    for step in steps:
        try:
            await connection.execute(step)
        except asyncpg.PostgresError as error:
            raise MigrationError(f"table {entity.table}: {error} (while running: {step})") from error
        await _record(connection, f"{entity.table}: {step}", hashlib.sha256(step.encode()).hexdigest())
    what = "created" if not present else f"{len(steps)} change{'s' if len(steps) > 1 else ''}"
    return [f"table {entity.table}: {what}"] if steps else []


def _column_steps(table: Table, each: Field, present: asyncpg.Record | None) -> list[str]:
    nullable = table.entity.column_nullable(each)
    alter = f"ALTER TABLE {table.name}"
    if present is None:
        # If the table has rows and the column is NOT NULL, PostgreSQL raises an error that says so.
        return [f"{alter} ADD COLUMN {quote(each.name)} {table.column_type(each)}"]
    steps: list[str] = []
    change = _type_change(present["type"], each.type.column)
    if change is None:
        raise MigrationError(
            f"table {table.entity.table}, column {each.name}: type is {present['type']}, the schema requires "
            f"{each.type.column}; only widening is automatic: change the column manually, or change the schema"
        )
    if change:
        steps.append(f"{alter} ALTER COLUMN {quote(each.name)} TYPE {each.type.column}")
    if nullable and present["filled"] and each.name not in table.entity.key:
        steps.append(f"{alter} ALTER COLUMN {quote(each.name)} DROP NOT NULL")
    elif not nullable and not present["filled"]:
        steps.append(f"{alter} ALTER COLUMN {quote(each.name)} SET NOT NULL")
    return steps


def _type_change(present: str, target: str) -> bool | None:
    """Whether the type has to change; None if the change could lose data."""
    was, becomes = _spelled(present), _spelled(target)
    if was == becomes:
        return False
    (old, old_size, old_scale), (new, new_size, new_scale) = was, becomes
    if (old, new) in _WIDENING:
        return True
    if old == new == "numeric":
        return True if new_scale >= old_scale and new_size - new_scale >= old_size - old_scale else None
    return True if old == new and new_size >= old_size else None


def _spelled(text: str) -> tuple[str, int, int]:
    names = {"varchar": "character varying", "char": "character", "timestamptz": "timestamp with time zone"}
    match = _SPELLED.fullmatch(text)
    if match is None:
        return text, 0, 0
    return names.get(match[1], match[1]), int(match[2] or 0), int(match[3] or 0)


async def _record(connection: asyncpg.Connection, name: str, checksum: str) -> None:
    await connection.execute(
        "INSERT INTO nomnom_migrations (name, checksum) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING", name, checksum
    )
