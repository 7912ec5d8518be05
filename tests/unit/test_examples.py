"""Example messages are valid in the schema that they are generated from."""

from __future__ import annotations

import pytest
from test_grammar import EVERY

from nomnom.grammar import Grammar
from nomnom.schema import Schema, load_schema, parse_schema
from nomnom_control.sending.examples import example_message

LIMITS = parse_schema(
    "schema: s\nentities:\n  - name: t\n    tag: T\n    key: [a]\n    fields:\n"
    "      - {name: a, type: 'decimal(3,3)'}\n      - {name: b, type: date, min: '2030-01-01'}\n"
    "      - {name: c, type: char(1)}\n      - {name: d, type: integer, max: -4}\n"
    "      - {name: e, type: 'decimal(4,0)'}\n"
)


@pytest.mark.parametrize("schema", [load_schema("tpch"), load_schema("ecommerce"), EVERY, LIMITS], ids=lambda s: s.name)
def test_every_entity_has_a_valid_example(schema: Schema) -> None:
    for entity in schema:
        records = Grammar(schema).parse(example_message(schema, entity))
        assert records[0].entity is entity
        children = {each.name for each in schema if each.parent is not None and each.parent.entity == entity.name}
        assert {each.entity.name for each in records[1:]} == children
