"""Hypothesis strategies for the records of any schema."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

from hypothesis import strategies as st

from nomnom.fields import FieldType, Value
from nomnom.grammar import Record
from nomnom.schema import Entity, Field, Schema

CHARACTERS = st.characters(exclude_categories=("Cs",), exclude_characters="\n\r\0")


def field_values(each: Field) -> st.SearchStrategy[Value]:
    """Valid values of a field, as the grammar binds them."""
    if each.values is not None:
        return st.sampled_from(sorted(each.values))
    # In a nullable field, empty text is null.
    return st.none() | _values(each).filter(lambda value: value != "") if each.nullable else _values(each)


def _values(each: Field) -> st.SearchStrategy[Value]:
    kind = each.type
    if kind.name in ("bigint", "integer"):
        bits = 63 if kind.name == "bigint" else 31
        low = each.minimum if isinstance(each.minimum, int) else -(2**bits)
        high = each.maximum if isinstance(each.maximum, int) else 2**bits - 1
        return st.integers(low, high)
    if kind.name == "decimal":
        return _decimals(kind, each.minimum, each.maximum)
    if kind.name == "date":
        first = each.minimum if isinstance(each.minimum, date) else date.min
        return st.dates(first, date.max).map(date.isoformat)
    if kind.name == "timestamp":
        return st.datetimes(datetime.min, datetime.max, timezones=st.just(UTC)).map(
            lambda time: time.isoformat().replace("+00:00", "Z")
        )
    if kind.name == "boolean":
        return st.booleans()
    texts = st.text(CHARACTERS, max_size=min(kind.length or 200, 200))
    return texts.map(lambda text: text.rstrip(" ")) if kind.name == "char" else texts


def _decimals(kind: FieldType, minimum: Value, maximum: Value) -> st.SearchStrategy[Value]:
    assert kind.precision is not None
    assert kind.scale is not None
    greatest = Decimal(10) ** (kind.precision - kind.scale) - Decimal(10) ** -kind.scale
    low = minimum if isinstance(minimum, Decimal) else -greatest
    high = maximum if isinstance(maximum, Decimal) else greatest
    return st.decimals(low, high, places=kind.scale).map(lambda number: f"{number:f}")


def records(entity: Entity) -> st.SearchStrategy[Record]:
    """Complete records of an entity."""
    return st.tuples(*(field_values(each) for each in entity.fields)).map(lambda values: Record(entity, values))


@st.composite
def messages(draw: st.DrawFn, schema: Schema) -> list[Record]:
    """A record, or a parent with children that refer to it."""
    entity = draw(st.sampled_from(schema.entities))
    first = draw(records(entity))
    kinds = [each for each in schema if each.parent is not None and each.parent.entity == entity.name]
    if not kinds:
        return [first]
    children: list[Record] = []
    for kind in draw(st.lists(st.sampled_from(kinds), max_size=4)):
        child = draw(records(kind))
        assert kind.parent is not None
        values = list(child.values)
        for mine, theirs in kind.parent.fields.items():
            values[kind.index[mine]] = first.values[entity.index[theirs]]
        children.append(Record(kind, tuple(values)))
    return [first, *children]
