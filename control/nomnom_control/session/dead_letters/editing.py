"""Validate, edit and compare payloads of dead letters."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from nomnom.grammar import Grammar, Problem, Record, RecordError
from nomnom.layout import Row, lay_out
from nomnom.lines import escape
from nomnom.schema import Schema
from nomnom_control.errors import ControlError


class EditError(ControlError):
    """An edit cannot be applied to a payload."""


@dataclass(frozen=True, slots=True)
class Validation:
    """A payload checked against the schema: its records, or every problem with its position."""

    text: str
    entity: str
    records: tuple[Record, ...]
    problems: tuple[Problem, ...]
    rows: tuple[Row, ...] = field(repr=False)

    @property
    def valid(self) -> bool:
        """Whether the payload matches the grammar."""
        return not self.problems


@dataclass(frozen=True, slots=True)
class Change:
    """A changed field."""

    line: int
    field: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Diff:
    """What an edit changed: field by field if both texts have the same fields, else only ``lines``.

    ``lines`` is a unified diff without file names.
    """

    changes: tuple[Change, ...] | None
    lines: tuple[str, ...]

    @property
    def empty(self) -> bool:
        """Whether both texts are equal."""
        return not self.lines

    def summary(self) -> str:
        """The changes in one line."""
        if self.changes is None:
            added = sum(each.startswith("+") for each in self.lines)
            return f"{sum(each.startswith('-') for each in self.lines)} lines replaced by {added}" if self.lines else ""
        return "; ".join(f"line {each.line}, {each.field}: {each.before!r} → {each.after!r}" for each in self.changes)


@dataclass(frozen=True, slots=True)
class Edit:
    """A change to payloads that can be applied to one dead letter or to thousands.

    ``payload`` replaces the whole text (of a single dead letter). ``fields`` sets fields by name (``o_orderdate``, or
    with the tag, ``O.o_orderdate``) on every line that has them. ``replacements`` are pairs of a regular expression and
    its replacement (as in :func:`re.sub`); they are applied before ``fields``.
    """

    payload: bytes | None = None
    fields: Mapping[str, str] = field(default_factory=dict[str, str])
    replacements: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        for pattern, replacement in self.replacements:
            try:
                # The empty alternative always matches, so this also finds references to groups that do not exist.
                re.compile(f"{pattern}|").sub(replacement, "")
            except (re.error, IndexError) as problem:
                raise EditError(f"cannot replace {pattern!r} by {replacement!r}: {problem}") from problem
        for name, value in self.fields.items():
            if set(value) & {"\n", "\r", "\0"}:
                raise EditError(f"the value of {name} must be a single line")

    def apply(self, payload: bytes, schema: Schema) -> bytes:
        """The edited payload. Raises EditError if it is not UTF-8, or no line has one of the fields."""
        if self.payload is not None:
            payload = self.payload
        if not self.fields and not self.replacements:
            return payload
        try:
            text = payload.decode()
        except UnicodeDecodeError as problem:
            raise EditError(f"the payload is not valid UTF-8: {problem}") from problem
        for pattern, replacement in self.replacements:
            text = re.sub(pattern, replacement, text)
        for name, value in self.fields.items():
            text = _set_field(text, schema, name, value)
        return text.encode()


def validate(payload: bytes | str, grammar: Grammar) -> Validation:
    """Parse a payload; every problem is assigned to its line and field."""
    problems: tuple[Problem, ...] = ()
    records: list[Record] = []
    if isinstance(payload, bytes):
        try:
            text = payload.decode()
        except UnicodeDecodeError as error:
            text = payload.decode("utf-8", errors="replace")
            line = payload.count(b"\n", 0, error.start) + 1
            problems = (Problem(line, None, None, "UTF-8 text", f"byte 0x{payload[error.start]:02x}"),)
    else:
        text = payload
    if not problems:
        try:
            records = grammar.parse(text)
        except RecordError as error:
            problems = error.problems
    entity = grammar.schema.entity_name(text)
    return Validation(text, entity, tuple(records), problems, lay_out(text, grammar.schema, problems))


def _set_field(text: str, schema: Schema, name: str, value: str) -> str:
    tag, dot, column = name.rpartition(".")
    found = False
    lines = text.split("\n")
    for row in lay_out(text, schema):
        if dot and (row.entity is None or row.entity.tag != tag):
            continue
        for cell in row.cells[1:]:
            if cell.field == column:
                line = lines[row.number - 1]
                lines[row.number - 1] = line[: cell.start] + escape(value) + line[cell.end :]
                found = True
                break
    if not found:
        raise EditError(f"no line of the payload has the field {name}")
    return "\n".join(lines)


def diff(before: bytes | str, after: bytes | str, schema: Schema) -> Diff:
    """The changes from one payload to another."""
    old, new = _text(before), _text(after)
    lines = list(difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=1))[2:]
    if not lines and old != new:
        lines = ["-" + repr(old)[1:-1], "+" + repr(new)[1:-1]]  # only the line endings differ
    old_rows, new_rows = lay_out(old, schema), lay_out(new, schema)
    if [_shape(each) for each in old_rows] != [_shape(each) for each in new_rows]:
        return Diff(None, tuple(lines))
    changes = [
        Change(row.number, was.field or f"field {was.position}", was.text, becomes.text)
        for row, other in zip(old_rows, new_rows, strict=True)
        for was, becomes in zip(row.cells, other.cells, strict=True)
        if was.text != becomes.text
    ]
    return Diff(tuple(changes) if changes or not lines else None, tuple(lines))


def _shape(row: Row) -> tuple[int, str, list[str | None]]:
    return row.number, row.entity.tag if row.entity else row.cells[0].text, [each.field for each in row.cells]


def _text(payload: bytes | str) -> str:
    return payload if isinstance(payload, str) else payload.decode("utf-8", errors="backslashreplace")
