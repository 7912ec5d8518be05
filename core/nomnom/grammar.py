"""The record grammar: parses text into records and formats records as text.

A message is one record, or a parent and its children, one per line: ``TAG|field|…`` with the escapes ``\\|`` and
``\\\\`` and an optional trailing ``|``. A line is first matched as a whole by one compiled expression, which suffices
for nearly all lines; if it does not match, it is parsed field by field, to resolve escapes or report each problem.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from nomnom.errors import NomnomError
from nomnom.fields import Value, render
from nomnom.lines import escape, invalid_escape, split_line, unescape
from nomnom.schema import Entity, Field, Schema

_SHOWN = 60


class Problem(NamedTuple):
    """A problem with a message. ``line`` and ``position`` count from 1; the tag has position 0."""

    line: int
    field: str | None
    position: int | None
    expected: str
    found: str

    def __str__(self) -> str:
        where = f"line {self.line}"
        if self.field is not None:
            where += f", field {self.field}" + (f" ({self.position})" if self.position else "")
        elif self.position is not None:
            where += f", field {self.position}"
        return f"{where}: expected {self.expected}, found {self.found}"


class RecordError(NomnomError):
    """A message that does not match the schema, with all problems found."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(str(problem) for problem in self.problems))


class Record(msgspec.Struct, frozen=True, gc=False):
    """The values of one line in the order of the entity's fields, ready to bind."""

    entity: Entity
    values: tuple[Value, ...]

    @property
    def key(self) -> tuple[Value, ...] | None:
        """The values of the key, or None if the record has no key and is stored under its message ID."""
        key = tuple(self.values[at] for at in self.entity.key_indexes)
        return None if None in key else key

    def mapping(self) -> dict[str, Any]:
        """Values by field name, as native Python types."""
        return {each.name: each.type.native(value) for each, value in zip(self.entity.fields, self.values, strict=True)}


class _Line:
    """A compiled layout: one expression for the line, and the conversions of its groups."""

    def __init__(self, entity: Entity, layout: tuple[str, ...]) -> None:
        self.entity = entity
        self.fields = tuple(entity.fields[entity.index[name]] for name in layout)
        groups = "".join(rf"\|({each.type.pattern}{'|' if _may_be_empty(each) else ''})" for each in self.fields)
        self.match = re.compile(rf"{entity.tag}{groups}\|?", re.ASCII).fullmatch
        # Every line matches: one that is not valid in the other way, without its tag.
        self._find_all = re.compile(rf"^(?:({entity.tag}){groups}\|?|[^\n]*)$", re.ASCII | re.MULTILINE).findall
        self.conversions = [
            (at, converted) for at, each in enumerate(self.fields) if (converted := _conversion(each)) is not None
        ]
        positions = [entity.index[name] for name in layout]
        self.in_order = positions == list(range(len(entity.fields)))
        self.positions = positions
        self.width = len(entity.fields)

    def arrange(self, values: Sequence[Value]) -> tuple[Value, ...]:
        """The values in the order of the entity's fields, with None for fields that the layout omits."""
        if self.in_order:
            return tuple(values)
        arranged: list[Value] = [None] * self.width
        for position, value in zip(self.positions, values, strict=True):
            arranged[position] = value
        return tuple(arranged)

    def read(self, lines: Sequence[str]) -> Sequence[Record | None]:
        """The records of lines; None for those that do not match, have a value that is not valid, or are several."""
        text = "\n".join(lines)
        if text.count("\n") != len(lines) - 1:
            return [self._read(each) for each in lines]
        found: list[tuple[str, ...]] = self._find_all(text)
        valid = found if all(each[0] for each in found) else [each for each in found if each[0]]
        columns: list[Any] = list(zip(*valid, strict=True))[1:]
        try:
            for at, conversion in self.conversions if valid else ():
                columns[at] = _convert(self.fields[at], conversion, columns[at])
        except (ValueError, OverflowError):
            return [self._read(each) for each in lines]
        records = [Record(self.entity, self.arrange(row)) for row in zip(*columns, strict=True)]
        if len(records) == len(lines):
            return records
        rest = iter(records)
        return [next(rest) if each[0] else None for each in found]

    def _read(self, line: str) -> Record | None:
        matched = self.match(line)
        return None if matched is None else self.record(matched)

    def record(self, matched: re.Match[str]) -> Record | None:
        """The record of a line that matched, or None if a value is not valid."""
        try:
            return Record(self.entity, self.convert(matched.groups()))
        except (ValueError, OverflowError):
            return None

    def convert(self, texts: Sequence[str]) -> tuple[Value, ...]:
        """Convert fields with valid syntax to values; raises ValueError or OverflowError."""
        values: list[Value] = list(texts)
        for at, conversion in self.conversions:
            values[at] = conversion(texts[at])
        return self.arrange(values)


def _convert(each: Field, conversion: Callable[[str], Value], texts: Sequence[str]) -> Sequence[Value]:
    """Convert a column; raises ValueError or OverflowError."""
    if each.type.numeric and not each.nullable and not each.limited:
        numbers = list(map(int, texts))
        for extreme in (min(numbers), max(numbers)):
            conversion(str(extreme))
        return numbers
    values = {text: conversion(text) for text in set(texts)}
    return [values[text] for text in texts]


def _may_be_empty(each: Field) -> bool:
    return each.nullable and not each.type.textual


def _conversion(each: Field) -> Callable[[str], Value] | None:
    """The conversion from a text with valid syntax to the field's value, or None if the text is the value."""
    convert, nullable, limited = each.type.convert, each.nullable, each.limited
    if not nullable and not limited:
        return convert

    def checked(text: str) -> Value:
        if nullable and not text:
            return None
        value: Value = convert(text) if convert else text
        if limited:
            _check_limits(each, value)
        return value

    return checked


def _check_limits(each: Field, value: Value) -> None:
    measured: Any = each.type.native(value)
    if (
        (each.minimum is not None and measured < each.minimum)
        or (each.maximum is not None and measured > each.maximum)
        or (each.values is not None and value not in each.values)
    ):
        raise ValueError(value)


class Grammar:
    """Parses and formats the messages of one schema."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self._lines = {each.tag: [_Line(each, layout) for layout in each.layouts] for each in schema}
        self._patterns = {
            (each.name, one.name): re.compile(one.type.pattern, re.ASCII) for each in schema for one in each.fields
        }

    def parse(self, message: str) -> list[Record]:
        """Parse a message into records, a parent before its children; raises RecordError with all problems."""
        if "\n" not in message:
            record = self._read(message)
            if record is not None:
                return [record]
        return self._parse_lines(message)

    def read(self, messages: Sequence[str]) -> list[Record | None]:
        """The records of many messages at once, column by column: a fraction of the time of :meth:`parse`.

        None for a message that is not one valid line in the first layout of its entity, without escapes: it has to be
        parsed.
        """
        records: list[Record | None] = [None] * len(messages)
        groups: dict[str, list[int]] = {}
        for at, message in enumerate(messages):
            groups.setdefault(message[: message.find("|")], []).append(at)
        for tag, places in groups.items():
            if lines := self._lines.get(tag):
                whole = len(places) == len(messages)
                found = lines[0].read(messages if whole else [messages[at] for at in places])
                for at, record in zip(places, found, strict=True):
                    records[at] = record
        return records

    def write(self, records: Sequence[Record]) -> str:
        """Format records as a message, each in the longest layout of its entity that it has the fields for."""
        return "\n".join(self._write(record) for record in records)

    def _read(self, line: str) -> Record | None:
        """The record of a valid line without escapes, otherwise None."""
        for candidate in self._lines.get(line[: line.find("|")], ()):
            matched = candidate.match(line)
            if matched is not None:
                return candidate.record(matched)
        return None

    def _parse_lines(self, message: str) -> list[Record]:
        records: list[Record] = []
        problems: list[Problem] = []
        parent: Record | None = None
        first = True
        for number, raw in enumerate(message.split("\n"), start=1):
            line = raw.removesuffix("\r")
            if not line:
                continue
            entity = self.schema.by_tag(line[: line.find("|")])
            if entity is not None and not first and (problem := self._misplaced(entity, parent, number, line)):
                problems.append(problem)
                continue
            try:
                record = self._read(line) or self._parse_fields(line, number)
            except RecordError as error:
                problems.extend(error.problems)
            else:
                if first:
                    parent = record
                elif parent is not None:
                    record = self._adopt(record, parent, number, problems)
                records.append(record)
            first = False
        if first:
            problems.append(Problem(1, None, None, "a record", "nothing"))
        if problems:
            raise RecordError(problems)
        return records

    def _misplaced(self, entity: Entity, parent: Record | None, number: int, line: str) -> Problem | None:
        if parent is None:  # the first line is invalid, which has been reported
            return None
        if entity.parent is not None and entity.parent.entity == parent.entity.name:
            return None
        children = [each.tag for each in self.schema if each.parent and each.parent.entity == parent.entity.name]
        expected = f"a child of {parent.entity.tag} ({', '.join(children)})" if children else "no more lines"
        return Problem(number, "tag", 0, expected, _shown(line[: line.find("|")]))

    def _adopt(self, child: Record, parent: Record, number: int, problems: list[Problem]) -> Record:
        link = child.entity.parent
        if link is None:
            return child
        values = list(child.values)
        for mine, theirs in link.fields.items():
            at, given = child.entity.index[mine], parent.values[parent.entity.index[theirs]]
            if values[at] is None:
                values[at] = given
            elif values[at] != given:
                expected = f"{parent.entity.tag}'s {theirs}, {given}"
                problems.append(Problem(number, mine, at + 1, expected, _shown(str(values[at]))))
        return Record(child.entity, tuple(values))

    def _parse_fields(self, line: str, number: int) -> Record:
        """Parse a line field by field; raises RecordError with the problems of the best matching layout."""
        tag, separator, _ = line.partition("|")
        candidates = self._lines.get(tag)
        if candidates is None:
            expected = "one of the tags " + ", ".join(sorted(self._lines))
            raise RecordError([Problem(number, "tag", 0, expected, _shown(tag))])
        texts, problem = _split(line[len(tag) + 1 :] if separator else "", number)
        if problem:
            raise RecordError([problem])
        forms = [texts, texts[:-1]] if texts[-1] == "" else [texts]
        best: list[Problem] | None = None
        for form in forms:
            for candidate in candidates:
                if len(form) == len(candidate.fields):
                    found = self._problems(candidate, form, number)
                    if not found:
                        return Record(candidate.entity, candidate.convert(form))
                    best = found if best is None or len(found) < len(best) else best
        if best is None:
            counts = " or ".join(str(len(candidate.fields)) for candidate in candidates)
            best = [Problem(number, None, None, f"{counts} fields after {tag}", str(len(forms[-1])))]
        raise RecordError(best)

    def _problems(self, candidate: _Line, texts: Sequence[str], number: int) -> list[Problem]:
        found: list[Problem] = []
        for position, (each, text) in enumerate(zip(candidate.fields, texts, strict=True), start=1):
            if not self._fits(candidate.entity, each, text):
                found.append(Problem(number, each.name, position, each.expected, _shown(text)))
        return found

    def _fits(self, entity: Entity, each: Field, text: str) -> bool:
        if _may_be_empty(each) and not text:
            return True
        # Escapes are already resolved, so | and \ are ordinary characters of a text field.
        plain = text.replace("|", "_").replace("\\", "_") if each.type.textual else text
        if not self._patterns[entity.name, each.name].fullmatch(plain):
            return False
        conversion = _conversion(each)
        try:
            if conversion is not None:
                conversion(text)
        except (ValueError, OverflowError):
            return False
        return True

    def _write(self, record: Record) -> str:
        lines = self._lines[record.entity.tag]
        layout = max(
            (each for each in lines if all(record.values[at] is not None or f.nullable for at, f in _columns(each))),
            key=lambda each: len(each.fields),
            default=lines[0],
        )
        texts = (render(each.type, record.values[at]) for at, each in _columns(layout))
        line = "|".join([record.entity.tag, *map(escape, texts)])
        # An empty last field needs a trailing separator, or it would be parsed as a trailing separator itself.
        return line + "|" if line.endswith("|") else line


def _columns(line: _Line) -> list[tuple[int, Field]]:
    return list(zip(line.positions, line.fields, strict=True))


def _split(body: str, number: int) -> tuple[list[str], Problem | None]:
    """The fields of a line after its tag, with escapes resolved."""
    texts: list[str] = []
    for position, (start, end) in enumerate(split_line(body), start=1):
        text = body[start:end]
        if (found := invalid_escape(text)) is not None:
            return texts, Problem(number, None, position, r"\| or \\ after a backslash", _shown(found))
        texts.append(unescape(text))
    return texts, None


def _shown(text: str) -> str:
    if not text:
        return "nothing"
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")
