"""Schema files: the built-in ones, and the errors of invalid ones."""

from __future__ import annotations

import json

import pytest

from nomnom.schema import SchemaError, built_in_schemas, load_schema, parse_schema

GOOD = """\
schema: shop
entities:
  - name: orders
    tag: O
    key: [id]
    fields:
      - {name: id, type: bigint}
      - {name: total, type: "decimal(10,2)", min: 0}
  - name: items
    tag: I
    key: [order_id, line]
    parent: {entity: orders, fields: {order_id: id}}
    layouts: [[order_id, line, text], [line, text]]
    fields:
      - {name: order_id, type: bigint}
      - {name: line, type: integer}
      - {name: text, type: varchar(20), nullable: true}
"""


@pytest.mark.parametrize("name", sorted(built_in_schemas()))
def test_built_in_schemas_are_described_completely(name: str) -> None:
    schema = load_schema(name)
    described = json.loads(json.dumps(schema.describe()))
    assert described["name"] == name
    assert [each["tag"] for each in described["entities"]] == [each.tag for each in schema]
    for entity, description in zip(schema, described["entities"], strict=True):
        assert [each["name"] for each in description["fields"]] == [each.name for each in entity.fields]
        assert set(description["key"]) <= {each["name"] for each in description["fields"]}


def test_tpch_schema_matches_the_specification() -> None:
    """TPC-H 3.0.1, clause 1.4: eight tables, 61 columns."""
    schema = load_schema("tpch")
    assert {each.tag: len(each.fields) for each in schema} == {
        "R": 3, "N": 4, "S": 7, "C": 8, "P": 9, "PS": 5, "O": 9, "OLI": 16,
    }  # fmt: skip
    assert sum(len(each.fields) for each in schema) == 61


@pytest.mark.parametrize(
    ("message", "entity"),
    [
        ("O|1|2.00", "orders"),
        ("I|1", "items"),
        ("\n\nO|1", "orders"),
        ("OX", "unknown"),
        ("O", "orders"),
        ("", "unknown"),
    ],
)
def test_entity_of_a_message_is_determined_by_its_tag(message: str, entity: str) -> None:
    assert parse_schema(GOOD).entity_name(message) == entity


def _changed(before: str, after: str) -> str:
    assert before in GOOD
    return GOOD.replace(before, after, 1)


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("", None, "Expected `object`"),
        ("- a", 1, "Expected `object`"),
        ("schema: [", 1, "invalid YAML"),
        ("schema: s\nentities: []", 2, "at least one entity"),
        (_changed("schema: shop", "schema: Shop"), 1, "lowercase name"),
        (_changed("schema: shop", "schema: shop\nschema: twice"), 2, "duplicate key"),
        (_changed("schema: shop", "scheme: shop"), None, "scheme"),
        (_changed("tag: O", "tag: o"), 4, "uppercase"),
        (_changed("tag: I", "tag: O"), 10, "already used"),
        (_changed("name: items", "name: orders"), 9, "already used"),
        (_changed("name: items", "name: unknown"), 9, "other than 'unknown'"),
        (_changed("tag: O", "tag: O\n    table: message_status"), 5, "reserved by nomnom"),
        (_changed("tag: O", "tag: O\n    table: nomnom_migrations"), 5, "reserved by nomnom"),
        (_changed("tag: O", "tag: O\n    colour: red"), 3, "colour"),
        (_changed("key: [id]", "key: [ids]"), 5, "unknown field 'ids'"),
        (_changed("key: [id]", "key: []"), 5, "one or more"),
        (_changed("key: [id]", "key: [id, id]"), 5, "distinct"),
        (_changed("type: bigint}", "type: bigint, nullable: true}"), 5, "nullable"),
        (_changed("type: bigint}", "type: bignum}"), 7, "one of bigint"),
        (_changed("type: bigint}", "kind: bigint}"), 7, "kind"),
        (_changed("type: bigint}", "type: 5}"), 7, "Expected `str`"),
        (_changed("name: id, type", "name: received_at, type"), 7, "other than message_id or received_at"),
        (_changed("name: total", "name: id"), 8, "duplicate field"),
        (_changed("min: 0", "min: cheap"), 8, "decimal number"),
        (_changed("min: 0", "values: [a]"), 8, "require a text type"),
        (_changed("nullable: true}", "min: 1}"), 17, "does not support min and max"),
        (_changed("entity: orders", "entity: order"), 12, "unknown entity 'order'"),
        (_changed("entity: orders", "entity: items"), 12, "unknown entity"),
        (_changed("{order_id: id}", "{order_id: id, no_line: id}"), 12, "unknown field 'no_line'"),
        (_changed("{order_id: id}", "{order_id: number}"), 12, "unknown field 'number'"),
        (_changed("{order_id: id}", "{order_id: total}"), 12, "different types"),
        (_changed("[line, text]]", "[order_id, line, text]]"), 13, "differ in their number of fields"),
        (_changed("[line, text]]", "[line]]"), 13, "omits text"),
        (_changed("[line, text]]", "[line, line]]"), 13, "duplicate field 'line'"),
        (_changed("[line, text]]", "[line, texts]]"), 13, "field 'texts'"),
        ("a: &x [1]\nb: *x", 2, "aliases"),
        ("a: " + "[" * 2000 + "]" * 2000, 1, "nested more than"),
        ("? [a]\n: b", 1, "a string as key"),
        ("schema: \x07", None, "invalid YAML"),
    ],
)
def test_invalid_schema_files_are_rejected_with_the_place(text: str, line: int | None, problem: str) -> None:
    assert parse_schema(GOOD)
    with pytest.raises(SchemaError) as caught:
        parse_schema(text, "shop.yaml")
    assert problem in str(caught.value)
    assert str(caught.value).startswith("shop.yaml")
    if line is not None:
        assert f"shop.yaml:{line}:" in str(caught.value)


def test_nested_children_are_rejected() -> None:
    third = """\
  - name: parts
    tag: P
    key: [line]
    parent: {entity: items, fields: {line: line}}
    fields: [{name: line, type: integer}]
"""
    with pytest.raises(SchemaError, match="one level of children"):
        parse_schema(GOOD + third)


def test_unreadable_schema_file_error_lists_built_in_schemas() -> None:
    with pytest.raises(SchemaError, match="ecommerce, tpch"):
        load_schema("nowhere.yaml")


def test_unknown_entity_error_lists_known_entities() -> None:
    with pytest.raises(SchemaError, match=r"orders \(O\), items \(I\)"):
        parse_schema(GOOD).entity("customers")
