"""docs/guarantees.md: every section of promises ends with the tests that hold them, and these tests exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "guarantees.md").read_text()
UNTESTED = {"What each setting changes", "What is not promised"}
SECTIONS: dict[str, str] = dict(re.findall(r"^## (.+)\n((?:(?!^## ).*\n?)*)", TEXT, re.MULTILINE))
TESTS = re.compile(r"Tests: (`tests/[\w/]+\.py::test_\w+`( \(a control\))?(,\n|$))+")
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@cache
def functions_in(path: str) -> frozenset[str]:
    """The names of the functions of a module."""
    nodes = ast.parse((ROOT / path).read_text()).body
    return frozenset(each.name for each in nodes if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))


def find_tests(section: str) -> list[tuple[str, str]]:
    """The paths and names of the tests in the last paragraph; empty if it is not a list of tests."""
    last = section.strip().rpartition("\n\n")[2]
    return NAMED.findall(last) if TESTS.fullmatch(last) else []


def missing(named: list[tuple[str, str]]) -> list[str]:
    """Those of the tests that do not exist."""
    return [f"{path}::{name}" for path, name in named if not (ROOT / path).exists() or name not in functions_in(path)]


@pytest.mark.parametrize("title", sorted(SECTIONS.keys() - UNTESTED))
def test_section_ends_with_existing_tests(title: str) -> None:
    named = find_tests(SECTIONS[title])
    assert named, "expected a last paragraph of the form Tests: `PATH::NAME`, with one test on each line"
    assert len(named) == len(set(named))
    assert not missing(named)


def test_all_promises_are_in_sections() -> None:
    assert SECTIONS.keys() > UNTESTED
    assert TEXT.count("\nTests: ") == len(SECTIONS) - len(UNTESTED) >= 10
    assert not any("Tests: " in SECTIONS[each] for each in UNTESTED)


def test_promise_without_tests_is_detected() -> None:
    for text in (
        "Nothing is lost.\n",
        "Nothing is lost.\n\nTests: many\n",
        "Tests: `tests/a.py::test_a`\n\nAll is kept.",
    ):
        assert not find_tests(text)


def test_test_that_does_not_exist_is_detected() -> None:
    here = "tests/unit/test_guarantees.py"
    assert missing([(here, "test_of_nothing")]) == [f"{here}::test_of_nothing"]
    assert missing([("tests/unit/test_of_nothing.py", "test_a")])
    assert not missing([(here, "test_test_that_does_not_exist_is_detected")])
