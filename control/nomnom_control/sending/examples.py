"""Example messages, generated from the schema."""

from __future__ import annotations

from nomnom.grammar import Grammar
from nomnom.schema import Entity, Field, Schema

_PLAIN = {
    "bigint": "1",
    "integer": "1",
    "date": "2024-01-01",
    "timestamp": "2024-01-01T12:00:00Z",
    "boolean": "true",
    "text": "text",
}


def example_message(schema: Schema, entity: Entity, grammar: Grammar | None = None) -> str:
    """A valid message: one record, followed by one child record of each type."""
    children = [each for each in schema if each.parent is not None and each.parent.entity == entity.name]
    text = "\n".join([_line(entity), *(_line(each, min(each.layouts, key=len)) for each in children)])
    (grammar or Grammar(schema)).parse(text)
    return text


def _line(entity: Entity, layout: tuple[str, ...] | None = None) -> str:
    names = layout or max(entity.layouts, key=len)
    return "|".join([entity.tag, *(_value(entity.fields[entity.index[name]]) for name in names)])


def _value(field: Field) -> str:
    kind = field.type
    if field.values is not None:
        return min(field.values)
    if field.minimum is not None:
        return str(field.minimum)
    if field.maximum is not None:
        return str(field.maximum)
    if kind.name == "decimal":
        assert kind.scale is not None
        assert kind.precision is not None
        return ("1" if kind.precision > kind.scale else "0") + ("." + "0" * kind.scale if kind.scale else "")
    if kind.textual and kind.length is not None:
        return "text"[: kind.length]
    return _PLAIN[kind.name]
