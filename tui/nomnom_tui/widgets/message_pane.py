"""A message as lines: where it is, its headers, and its payload in one of three looks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from rich.cells import chop_cells

from nomnom.envelope import FAILED_AT, RECEIVED_AT, from_microseconds
from nomnom_tui.text import figures
from nomnom_tui.text.styles import Line, Style
from nomnom_tui.widgets.properties import LABEL, labelled
from nomnom_tui.widgets.table import Column, LiveTable

if TYPE_CHECKING:
    from nomnom.grammar import Grammar
    from nomnom.inspection.jetstream import StoredMessage
    from nomnom_control.session.dead_letters.editing import Cell, Row

_BYTES = 16
MOST_RECORD = 64 * 1024
"""Bytes up to which a payload is taken apart as it is shown; a larger one is shown as text first."""


class Look(StrEnum):
    """How a payload is shown."""

    RECORD = "record"
    TEXT = "text"
    HEX = "hex"


class MessagePane(LiveTable["tuple[int, Line | int]"]):
    """One message; scrolls. A line that is a number is a line of the hex dump, made when it is drawn."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(
            [Column("", self._cell, 10, share=1)], key=lambda row: row[0], id=id, empty="no message", header=False
        )
        self.look = Look.RECORD
        self.grammar: Grammar | None = None
        """What takes a payload apart; without it there is no record to show."""
        self._message: StoredMessage | None = None
        self._told: tuple[object, ...] = ()

    def show_message(self, message: StoredMessage | None) -> None:
        """Show this message, in the present look."""
        told = (message, self.look, self.grammar, self.size.width)
        if told == self._told:
            return
        self._told = told
        self._message = message
        room = max(20, self.scrollable_content_region.width - 2)
        lines: list[Line | int] = [] if message is None else self._describe(message, room)
        self.show(list(enumerate(lines)))

    def next_look(self) -> None:
        """The next of the three looks."""
        looks = list(Look)
        self.look = looks[(looks.index(self.look) + 1) % len(looks)]

    def on_resize(self) -> None:
        """Break the lines anew."""
        super().on_resize()
        self.show_message(self._message)

    def _cell(self, row: tuple[int, Line | int]) -> Line:
        line = row[1]
        if not isinstance(line, int):
            return line
        return [] if self._message is None else hex_line(self._message.payload, line)

    def _describe(self, message: StoredMessage, room: int) -> list[Line | int]:
        lines: list[Line | int] = [
            *labelled("subject", message.subject, room),
            *labelled("stored", f"{figures.moment(message.stored_at)}, {figures.age(message.stored_at)} ago", room),
            *labelled("size", f"{message.size:,} bytes", room),
            "",
            [("Payload", Style.HEADING), (f" as {self.look.value}", Style.MUTED)],
            *self._payload(message.payload, room),
            "",
            ("Headers", Style.HEADING),
        ]
        for name, value in message.headers.items():
            lines += labelled(name, value + _as_moment(name, value), room)
        if not message.headers:
            lines.append(("  none", Style.MUTED))
        return lines

    def _payload(self, payload: bytes, room: int) -> Sequence[Line | int]:
        if not payload:
            return [("  empty", Style.MUTED)]
        match self.look:
            case Look.HEX:
                return range(0, len(payload), _BYTES)
            case Look.TEXT:
                return text_lines(payload, room)
            case Look.RECORD:
                return self._record(payload, room)

    def _record(self, payload: bytes, room: int) -> list[Line]:
        if self.grammar is None:
            return [("  waiting for the schema; v shows it as text", Style.MUTED)]
        if len(payload) > MOST_RECORD:
            size = figures.size(len(payload))
            return [(f"  {size} are too much to take apart; as text:", Style.MUTED), *text_lines(payload, room)]
        return record_lines(payload, self.grammar, room)


def record_lines(payload: bytes, grammar: Grammar, room: int) -> list[Line]:
    """Each line's fields by name; what is wrong stands at its field, with what was expected."""
    from nomnom_control.session.dead_letters.editing import validate

    found = validate(payload, grammar)
    lines: list[Line] = []
    for at, row in enumerate(found.rows):
        lines += [*([""] if at else []), *_row_lines(row, room)]
    placed = {id(cell.problem) for row in found.rows for cell in row.cells if cell.problem}
    placed |= {id(each) for row in found.rows for each in row.problems}
    lines += [[("  ✕ ", Style.BAD), (str(each), Style.PLAIN)] for each in found.problems if id(each) not in placed]
    return lines


def _row_lines(row: Row, room: int) -> list[Line]:
    name = row.entity.name if row.entity else "no entity has this tag"
    lines: list[Line] = [
        [
            (f"  line {row.number}  ", Style.MUTED),
            (row.cells[0].text if row.cells else "", Style.STRONG),
            (f"  {name}", Style.MUTED),
        ]
    ]
    for cell in row.cells[1:] if row.entity else row.cells:
        lines += _cell_lines(cell, room)
    lines += [
        [("  ✕ ", Style.BAD), (f"expected {each.expected}, found {each.found}", Style.PLAIN)] for each in row.problems
    ]
    if row.cells and row.cells[0].problem and row.entity:
        lines += _problem(row.cells[0])
    return lines


def _cell_lines(cell: Cell, room: int) -> list[Line]:
    label = f"{cell.position:>4}  {cell.field or '?'}"
    style = Style.FIELD if cell.problem else Style.PLAIN if cell.field else Style.WARNING
    if not cell.text:
        return [
            [(f"{label:<{LABEL}}    ", Style.MUTED), ("empty", Style.FIELD if cell.problem else Style.FAINT)],
            *_problem(cell),
        ]
    parts = chop_cells(cell.text, max(10, room - LABEL - 4))
    lines: list[Line] = [
        [
            ((label if at == 0 else "").ljust(LABEL) + "  ", Style.MUTED),
            ("✕ " if cell.problem and at == 0 else "  ", Style.BAD),
            (part, style),
        ]
        for at, part in enumerate(parts)
    ]
    return [*lines, *_problem(cell)]


def _problem(cell: Cell) -> list[Line]:
    if cell.problem is None:
        return []
    return [[(" " * (LABEL + 4), Style.PLAIN), ("expected ", Style.MUTED), (cell.problem.expected, Style.WARNING)]]


def text_lines(payload: bytes, room: int) -> list[Line]:
    """The payload's lines, numbered, broken where they are too long."""
    lines: list[Line] = []
    raw = payload.decode("utf-8", errors="replace").split("\n")
    width = max(2, len(str(len(raw))))
    for number, each in enumerate(raw, start=1):
        if number == len(raw) and not each:
            break
        for at, part in enumerate(chop_cells(each, max(10, room - width - 4)) or [""]):
            lines.append([(f"  {number if at == 0 else '':>{width}}  ", Style.MUTED), (part, Style.PLAIN)])
    return lines


def hex_line(payload: bytes, offset: int) -> Line:
    """Sixteen bytes, as hexdump -C shows them."""
    part = payload[offset : offset + _BYTES]
    left, right = part[:8].hex(" "), part[8:].hex(" ")
    plain = "".join(chr(each) if 32 <= each < 127 else "·" for each in part)
    return [(f"  {offset:08x}  ", Style.MUTED), (f"{left:<23}  {right:<23}  ", Style.PLAIN), (plain, Style.ACCENT)]


def _as_moment(name: str, value: str) -> str:
    if name not in (RECEIVED_AT, FAILED_AT):
        return ""
    try:
        at: datetime = from_microseconds(int(value))
    except (ValueError, OverflowError):
        return ""  # it is shown as it stands
    return f"  ({figures.moment(at)})"
