"""A payload laid out: which text is which field, with each problem at its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nomnom.grammar import Problem
from nomnom.lines import split_line, unescape
from nomnom.schema import Entity, Schema


@dataclass(frozen=True, slots=True)
class Cell:
    """One field of a line, escapes resolved. ``start`` and ``end`` are its character offsets in the line.

    ``position`` counts from 1 (the tag is 0), as problems do. ``field`` is None if the schema has no field there.
    """

    position: int
    field: str | None
    text: str
    start: int
    end: int
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a payload; the first cell is the tag. ``problems`` are those of the line that belong to no cell."""

    number: int
    text: str
    entity: Entity | None
    cells: tuple[Cell, ...]
    problems: tuple[Problem, ...] = ()


def lay_out(text: str, schema: Schema, problems: Sequence[Problem] = ()) -> tuple[Row, ...]:
    """The lines of a payload as fields, whether it follows the grammar or not. Empty lines are left out."""
    rows: list[Row] = []
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.removesuffix("\r")
        if line:
            rows.append(_row(number, line, schema, [each for each in problems if each.line == number]))
    return tuple(rows)


def _row(number: int, line: str, schema: Schema, problems: list[Problem]) -> Row:
    spans = split_line(line)
    entity = schema.by_tag(line[slice(*spans[0])])
    if len(spans) > 1 and spans[-1][0] == spans[-1][1] and not _exact(entity, len(spans) - 1):
        spans.pop()  # the bar that may end a line
    names = _names(entity, len(spans) - 1)
    cells: list[Cell] = []
    rest = list(problems)
    for position, (start, end) in enumerate(spans):
        name = "tag" if position == 0 else names[position - 1] if position <= len(names) else None
        problem = next((each for each in rest if _belongs(each, name, position)), None)
        if problem is not None:
            rest.remove(problem)
        cells.append(Cell(position, name, unescape(line[start:end]), start, end, problem))
    return Row(number, line, entity, tuple(cells), tuple(rest))


def _belongs(problem: Problem, name: str | None, position: int) -> bool:
    # A child's field that contradicts its parent is numbered among the columns, so the name decides.
    return problem.field == name if problem.field is not None and name is not None else problem.position == position


def _exact(entity: Entity | None, count: int) -> bool:
    return entity is not None and any(len(layout) == count for layout in entity.layouts)


def _names(entity: Entity | None, count: int) -> tuple[str, ...]:
    """The field names of the layout that fits this number of fields best."""
    if entity is None:
        return ()
    return min(entity.layouts, key=lambda layout: (abs(len(layout) - count), -len(layout)))
