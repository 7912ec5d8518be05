"""Schema files: those that come with nomnom, and every way in which one can be wrong."""

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
def test_what_comes_with_nomnom_describes_itself_whole(name: str) -> None:
    schema = load_schema(name)
    described = json.loads(json.dumps(schema.describe()))
    assert described["name"] == name
    assert [each["tag"] for each in described["entities"]] == [each.tag for each in schema]
    for entity, told in zip(schema, described["entities"], strict=True):
        assert [each["name"] for each in told["fields"]] == [each.name for each in entity.fields]
        assert set(told["key"]) <= {each["name"] for each in told["fields"]}


def test_tpch_is_tpch() -> None:
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
def test_a_message_is_of_the_entity_that_its_tag_names(message: str, entity: str) -> None:
    assert parse_schema(GOOD).entity_name(message) == entity


def _changed(before: str, after: str) -> str:
    assert before in GOOD
    return GOOD.replace(before, after, 1)


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("", None, "Expected `object`"),
        ("- a", 1, "Expected `object`"),
        ("schema: [", 1, "not YAML"),
        ("schema: s\nentities: []", 2, "at least one entity"),
        (_changed("schema: shop", "schema: Shop"), 1, "lower-case name"),
        (_changed("schema: shop", "schema: shop\nschema: twice"), 2, "given twice"),
        (_changed("schema: shop", "scheme: shop"), None, "scheme"),
        (_changed("tag: O", "tag: o"), 4, "capitals"),
        (_changed("tag: I", "tag: O"), 10, "taken"),
        (_changed("name: items", "name: orders"), 9, "taken"),
        (_changed("name: items", "name: unknown"), 9, "not 'unknown'"),
        (_changed("tag: O", "tag: O\n    table: message_status"), 5, "that nomnom does not use"),
        (_changed("tag: O", "tag: O\n    table: nomnom_migrations"), 5, "that nomnom does not use"),
        (_changed("tag: O", "tag: O\n    colour: red"), 3, "colour"),
        (_changed("key: [id]", "key: [ids]"), 5, "no field 'ids'"),
        (_changed("key: [id]", "key: []"), 5, "one or more"),
        (_changed("key: [id]", "key: [id, id]"), 5, "each once"),
        (_changed("type: bigint}", "type: bigint, nullable: true}"), 5, "nullable"),
        (_changed("type: bigint}", "type: bignum}"), 7, "one of bigint"),
        (_changed("type: bigint}", "kind: bigint}"), 7, "kind"),
        (_changed("type: bigint}", "type: 5}"), 7, "Expected `str`"),
        (_changed("name: id, type", "name: received_at, type"), 7, "nomnom's"),
        (_changed("name: total", "name: id"), 8, "declared twice"),
        (_changed("min: 0", "min: cheap"), 8, "decimal number"),
        (_changed("min: 0", "values: [a]"), 8, "is for text"),
        (_changed("nullable: true}", "min: 1}"), 17, "no limits"),
        (_changed("entity: orders", "entity: order"), 12, "no entity 'order'"),
        (_changed("entity: orders", "entity: items"), 12, "no entity"),
        (_changed("{order_id: id}", "{order_id: id, no_line: id}"), 12, "no field 'no_line'"),
        (_changed("{order_id: id}", "{order_id: number}"), 12, "no field 'number'"),
        (_changed("{order_id: id}", "{order_id: total}"), 12, "different types"),
        (_changed("[line, text]]", "[order_id, line, text]]"), 13, "different lengths"),
        (_changed("[line, text]]", "[line]]"), 13, "leaves out text"),
        (_changed("[line, text]]", "[line, line]]"), 13, "once"),
        (_changed("[line, text]]", "[line, texts]]"), 13, "found 'texts'"),
        ("a: &x [1]\nb: *x", 2, "aliases"),
        ("a: " + "[" * 2000 + "]" * 2000, 1, "nests deeper"),
        ("? [a]\n: b", 1, "a name as a key"),
        ("schema: \x07", None, "not YAML"),
    ],
)
def test_a_schema_file_that_is_wrong_is_refused_with_its_place(text: str, line: int | None, problem: str) -> None:
    assert parse_schema(GOOD)
    with pytest.raises(SchemaError) as caught:
        parse_schema(text, "shop.yaml")
    assert problem in str(caught.value)
    assert str(caught.value).startswith("shop.yaml")
    if line is not None:
        assert f"shop.yaml:{line}:" in str(caught.value)


def test_a_child_has_no_children() -> None:
    third = """\
  - name: parts
    tag: P
    key: [line]
    parent: {entity: items, fields: {line: line}}
    fields: [{name: line, type: integer}]
"""
    with pytest.raises(SchemaError, match="one level of children"):
        parse_schema(GOOD + third)


def test_a_file_that_cannot_be_read_names_what_there_is() -> None:
    with pytest.raises(SchemaError, match="ecommerce, tpch"):
        load_schema("nowhere.yaml")


def test_an_entity_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(SchemaError, match=r"orders \(O\), items \(I\)"):
        parse_schema(GOOD).entity("customers")
