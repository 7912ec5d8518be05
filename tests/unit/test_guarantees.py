"""docs/guarantees.md: every section of promises names tests, and they exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "guarantees.md").read_text()
UNTESTED = {"What is not promised"}
SECTIONS: dict[str, str] = dict(re.findall(r"^## (.+)\n((?:(?!^## ).*\n?)*)", TEXT, re.MULTILINE))
NAMED = re.findall(r"`(tests/\S+?)::(\w+)`", TEXT)


@cache
def functions_in(path: str) -> set[str]:
    """The names of the test functions in a file."""
    nodes = ast.walk(ast.parse((ROOT / path).read_text()))
    return {each.name for each in nodes if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("title", SECTIONS)
def test_section_ends_with_its_tests(title: str) -> None:
    _, mark, named = SECTIONS[title].partition("\nTests: ")
    assert bool(mark) is (title not in UNTESTED)
    assert bool(re.search(r"`tests/\S+::\w+`", named)) is bool(mark)


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_named_test_exists(path: str, name: str) -> None:
    assert name in functions_in(path)
