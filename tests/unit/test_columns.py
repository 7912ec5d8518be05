"""Columns as parameters: the SQL and the text agree about how many elements there are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nomnom.columns import array, column

TEXTS = st.text(st.characters(exclude_characters="\n\r\0", exclude_categories=["Cs"]))


def taken_apart(text: str) -> list[str | None]:
    """What PostgreSQL's string_to_array and the slice make of the text (PostgreSQL, 9.4)."""
    elements = text.split("\n") if text else []
    return [None if each == "\r" else each for each in elements[1:]]


@given(st.lists(st.none() | TEXTS | st.integers()))
def test_elements_are_those_given(values: list[str | int | None]) -> None:
    assert taken_apart(column(values)) == [None if each is None else str(each) for each in values]


@pytest.mark.parametrize("values", [["a\nb"], ["a", "\n"], [None, "a\nb", 1]])
def test_line_breaks_are_rejected(values: list[str | int | None]) -> None:
    with pytest.raises(ValueError, match="line break"):
        column(values)


def test_array_has_the_type_of_its_elements() -> None:
    assert array(3, "bigint") == "(string_to_array($3::text, E'\\n', E'\\r'))[2:]::bigint[]"
    assert "::text[]" not in array(3, "text")
