"""A message as lines: its metadata, its headers, and its payload in one of three formats."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from rich.cells import chop_cells

from nomnom.envelope import FAILED_AT, RECEIVED_AT, from_microseconds
from nomnom.presentation import figures
from nomnom_tui.text.styles import Line, Style
from nomnom_tui.widgets.properties import LABEL, labelled
from nomnom_tui.widgets.table import Column, LiveTable

if TYPE_CHECKING:
    from nomnom.grammar import Grammar
    from nomnom.inspection.jetstream import StoredMessage
    from nomnom.layout import Cell, Row

_BYTES = 16
MAX_RECORD_BYTES = 64 * 1024
"""Largest payload in bytes that is parsed as a record; larger ones are shown as text."""


class PayloadFormat(StrEnum):
    """The format in which a payload is shown."""

    RECORD = "record"
    TEXT = "text"
    HEX = "hex"


class MessagePane(LiveTable["tuple[int, Line | int]"]):
    """One message. A line given as a number is an offset of the hex dump, rendered when it is drawn."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(
            [Column("", self._cell, 10, share=1)], key=lambda row: row[0], id=id, empty="no message", header=False
        )
        self.format = PayloadFormat.RECORD
        self.grammar: Grammar | None = None
        """Parses the payload; needed to show it as a record."""
        self._message: StoredMessage | None = None
        self._rendered: tuple[object, ...] = ()

    def show_message(self, message: StoredMessage | None) -> None:
        """Show this message in the current format."""
        rendered = (message, self.format, self.grammar, self.size.width)
        if rendered == self._rendered:
            return
        self._rendered = rendered
        self._message = message
        room = max(20, self.scrollable_content_region.width - 2)
        lines: list[Line | int] = [] if message is None else self._describe(message, room)
        self.show(list(enumerate(lines)))

    def next_format(self) -> None:
        """Switch to the next payload format."""
        formats = list(PayloadFormat)
        self.format = formats[(formats.index(self.format) + 1) % len(formats)]

    def on_resize(self) -> None:
        """Rewrap the lines."""
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
            *labelled("stored", figures.when(message.stored_at), room),
            *labelled("size", f"{message.size:,} bytes", room),
            "",
            [("Payload", Style.HEADING), (f" as {self.format.value}", Style.MUTED)],
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
        match self.format:
            case PayloadFormat.HEX:
                return range(0, len(payload), _BYTES)
            case PayloadFormat.TEXT:
                return text_lines(payload, room)
            case PayloadFormat.RECORD:
                return self._record(payload, room)

    def _record(self, payload: bytes, room: int) -> list[Line]:
        if self.grammar is None:
            return [("  loading the schema; press v to show text", Style.MUTED)]
        if len(payload) > MAX_RECORD_BYTES:
            size = figures.size(len(payload))
            return [(f"  too large to parse ({size}); shown as text:", Style.MUTED), *text_lines(payload, room)]
        return record_lines(payload, self.grammar, room)


def record_lines(payload: bytes, grammar: Grammar, room: int) -> list[Line]:
    """Return the fields of each line by name; an invalid field is followed by what was expected."""
    from nomnom_control.session.dead_letters.editing import validate

    found = validate(payload, grammar)
    lines: list[Line] = []
    for at, row in enumerate(found.rows):
        lines += [*([""] if at else []), *_row_lines(row, room)]
    shown_problems = {id(cell.problem) for row in found.rows for cell in row.cells if cell.problem}
    shown_problems |= {id(each) for row in found.rows for each in row.problems}
    lines += [
        [("  ✕ ", Style.BAD), (str(each), Style.PLAIN)] for each in found.problems if id(each) not in shown_problems
    ]
    return lines


def _row_lines(row: Row, room: int) -> list[Line]:
    name = row.entity.name if row.entity else "no entity with this tag"
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
    """Return the payload's lines, numbered and wrapped."""
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
    """Return sixteen bytes in the format of ``hexdump -C``."""
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
        return ""  # the raw value is shown
    return f"  ({figures.moment(at)})"
