"""Facts (group, label, value) as lines, each group under its heading; long ones go on in the next line."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.cells import chop_cells

from nomnom_tui.table import Column, LiveTable
from nomnom_tui.tones import Line, Tone

if TYPE_CHECKING:
    from nomnom_control.rendering import Fact

LABEL = 24
_ORDER = ("State", "Cluster", "Sources", "Configuration")
"""Groups that come first: what changes is looked at more often than what was set once."""


class TextTable(LiveTable[tuple[int, Line]]):
    """Lines that are scrolled with the table's keys; any number, drawn when visible."""

    def __init__(self, *, id: str | None = None, empty: str = "") -> None:
        super().__init__(
            [Column("", lambda row: row[1], 10, share=1)], key=lambda row: row[0], id=id, empty=empty, header=False
        )

    @property
    def room(self) -> int:
        """Columns of the screen that a line has."""
        return max(20, self.scrollable_content_region.width - 2)

    def show_lines(self, lines: Sequence[Line]) -> None:
        """Show these lines from now on."""
        self.show(list(enumerate(lines)))


class FactTable(TextTable):
    """What is known of one thing."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._facts: Sequence[Fact] = ()

    def tell(self, facts: Sequence[Fact]) -> None:
        """Show these facts from now on."""
        self._facts = facts
        self.show_lines(fact_lines(facts, self.room))

    def on_resize(self) -> None:
        """Break the lines anew."""
        super().on_resize()
        self.tell(self._facts)


def fact_lines(facts: Sequence[Fact], room: int) -> list[Line]:
    """Facts as lines of this width."""
    groups: dict[str, list[Fact]] = {}
    for fact in facts:
        groups.setdefault(fact.group, []).append(fact)
    lines: list[Line] = []
    for name in sorted(groups, key=lambda each: _ORDER.index(each) if each in _ORDER else len(_ORDER)):
        lines += [*([""] if lines else []), (name, Tone.HEADING)]
        for fact in groups[name]:
            lines += labelled(fact.label, fact.value, room)
    return lines


def labelled(label: str, value: str, room: int, tone: Tone = Tone.PLAIN, width: int = LABEL) -> list[Line]:
    """A label and its value, broken where it is too long."""
    parts = broken(value, max(10, room - width - 2))
    return [
        [((f"  {label}" if at == 0 else "").ljust(width) + "  ", Tone.MUTED), (part, tone)]
        for at, part in enumerate(parts)
    ]


def broken(text: str, room: int) -> list[str]:
    """The text in lines of this width, at its spaces where it has any."""
    if not text.isascii():
        return chop_cells(text, room)  # textwrap takes every character for one column
    return textwrap.wrap(text, room, break_on_hyphens=False) or [""]
