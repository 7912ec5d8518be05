"""Payloads: validation, editing and diffs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import LINE, ORDER
from nomnom.grammar import Grammar
from nomnom.layout import lay_out
from nomnom.lines import escape
from nomnom.schema import load_schema
from nomnom_control.session.dead_letters.editing import Edit, EditError, diff, validate

SCHEMA = load_schema("tpch")
GRAMMAR = Grammar(SCHEMA)
TEXTS = st.text(alphabet="OLIC|\\\n\r 0123456789.-aé\0", max_size=60)


def test_problems_are_assigned_to_fields() -> None:
    text = ORDER.replace("2024-01-01", "2024-13-01").replace("|456|", "|x|") + "\n" + LINE
    found = validate(text, GRAMMAR)
    assert not found.valid
    invalid = [(row.number, cell.field, cell.text) for row in found.rows for cell in row.cells if cell.problem]
    assert invalid == [(1, "o_custkey", "x"), (1, "o_orderdate", "2024-13-01")]
    for row in found.rows:
        for cell in row.cells:
            assert row.text[cell.start : cell.end] == cell.text
    assert found.rows[1].cells[1].field == "l_linenumber"


def test_valid_payload_has_records_and_field_names() -> None:
    found = validate(f"{ORDER}\n{LINE}\n".encode(), GRAMMAR)
    assert (found.valid, found.entity, len(found.records)) == (True, "orders", 2)
    assert [each.field for each in found.rows[0].cells] == ["tag", *(each.name for each in SCHEMA.entity("O").fields)]


@pytest.mark.parametrize(
    ("text", "number", "expected"),
    [
        (ORDER + "|extra", 1, "9 fields"),
        ("X|1", 1, None),
        ("", 1, "a record"),
    ],
)
def test_problems_of_whole_lines_are_assigned_to_rows(text: str, number: int, expected: str | None) -> None:
    found = validate(text, GRAMMAR)
    assert not found.valid
    assert found.problems[0].line == number
    if expected:
        assert expected in found.problems[0].expected
    for row in found.rows:
        assigned = [each.problem for each in row.cells if each.problem] + list(row.problems)
        assert assigned == [each for each in found.problems if each.line == row.number]


def test_key_mismatch_is_assigned_to_the_child() -> None:
    full = "OLI|999|1|2|1|1|1|1|1|N|O|2024-01-01|2024-01-01|2024-01-01|a|b|c"
    found = validate(f"{ORDER}\n{full}", GRAMMAR)
    invalid = [(row.number, cell.field) for row in found.rows for cell in row.cells if cell.problem]
    assert invalid == [(2, "l_orderkey")]


def test_invalid_utf8_is_a_problem() -> None:
    found = validate(b"O|1\nC|\xff", GRAMMAR)
    assert [str(each) for each in found.problems] == ["line 2: expected UTF-8 text, found byte 0xff"]


@given(TEXTS)
def test_arbitrary_text_is_laid_out_completely(text: str) -> None:
    found = validate(text, GRAMMAR)
    for row in found.rows:
        assert "|".join(row.text[cell.start : cell.end] for cell in row.cells) in (row.text, row.text[:-1])
    assigned = [cell.problem for row in found.rows for cell in row.cells if cell.problem]
    assigned += [problem for row in found.rows for problem in row.problems]
    lines = {row.number for row in found.rows}
    assert sorted(map(str, assigned)) == sorted(str(each) for each in found.problems if each.line in lines)


@given(TEXTS, TEXTS)
def test_diff_is_empty_for_equal_texts_only(before: str, after: str) -> None:
    found = diff(before, after, SCHEMA)
    assert found.empty == (before == after)
    assert diff(before, before, SCHEMA).empty


def test_diff_of_the_same_lines_is_by_field() -> None:
    found = diff(ORDER, ORDER.replace("2024-01-01", "2024-02-01").replace("comment", r"a\|b"), SCHEMA)
    assert found.changes is not None
    assert [(each.line, each.field, each.before, each.after) for each in found.changes] == [
        (1, "o_orderdate", "2024-01-01", "2024-02-01"),
        (1, "o_comment", "comment", "a|b"),
    ]
    assert "o_orderdate: '2024-01-01' → '2024-02-01'" in found.summary()


def test_diff_of_different_lines_is_by_line() -> None:
    found = diff(ORDER, ORDER + "\n" + LINE, SCHEMA)
    assert found.changes is None
    assert [each for each in found.lines if each[0] == "+"] == [f"+{LINE}"]
    assert found.summary() == "0 lines replaced by 1"


def test_diff_escapes_invisible_characters() -> None:
    found = diff("O|1\n", "O|1\r\n", SCHEMA)
    assert not found.empty
    assert found.lines == (r"-O|1\n", r"+O|1\r\n")


def test_set_fields() -> None:
    payload = f"{ORDER}\n{LINE}\n{LINE}".encode()
    edited = Edit(fields={"OLI.l_comment": r"a|b\c", "o_comment": ""}).apply(payload, SCHEMA).decode()
    first, second, third = edited.split("\n")
    assert first == ORDER.removesuffix("comment")
    assert second == third == LINE.removesuffix("test") + r"a\|b\\c"
    with pytest.raises(EditError, match="no line of the payload has the field l_nothing"):
        Edit(fields={"l_nothing": "1"}).apply(payload, SCHEMA)
    with pytest.raises(EditError, match=r"has the field C\.o_comment"):
        Edit(fields={"C.o_comment": "1"}).apply(payload, SCHEMA)
    with pytest.raises(EditError, match="must be a single line"):
        Edit(fields={"o_comment": "a\nb"})
    with pytest.raises(EditError, match="not valid UTF-8"):
        Edit(fields={"o_comment": "a"}).apply(b"\xff", SCHEMA)


def test_replace_by_regular_expressions() -> None:
    edit = Edit(replacements=((r"(\d{4})/(\d\d)/(\d\d)", r"\1-\2-\3"), ("urgent", "1-URGENT")))
    assert edit.apply(ORDER.replace("2024-01-01", "2024/01/02").encode(), SCHEMA).decode() == ORDER.replace(
        "2024-01-01|urgent", "2024-01-02|1-URGENT"
    )
    with pytest.raises(EditError):
        Edit(replacements=(("(", ""),))


def test_empty_edit_changes_nothing() -> None:
    assert Edit().apply(b"\xff", SCHEMA) == b"\xff"
    assert Edit(payload=b"new").apply(b"old", SCHEMA) == b"new"


@given(st.text(alphabet=st.characters(exclude_characters="\n\r\0", exclude_categories=["Cs"]), max_size=30))
def test_set_field_is_parsed_back(value: str) -> None:
    edited = Edit(fields={"o_comment": value}).apply(ORDER.encode(), SCHEMA).decode()
    if not value:
        assert edited.endswith("|")
        return
    (row,) = lay_out(edited, SCHEMA)
    assert row.cells[9].text == value
    assert row.text.endswith(escape(value))
