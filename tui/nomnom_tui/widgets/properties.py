"""Facts (group, label, value) as lines, each group under its heading; long ones go on in the next line."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.cells import chop_cells

from nomnom_tui.text.styles import Line, Style
from nomnom_tui.widgets.table import Column, LiveTable

if TYPE_CHECKING:
    from nomnom.presentation.figures import Property

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


class PropertyTable(TextTable):
    """What is known of one thing."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._properties: Sequence[Property] = ()

    def tell(self, properties: Sequence[Property]) -> None:
        """Show these facts from now on."""
        self._properties = properties
        self.show_lines(property_lines(properties, self.room))

    def on_resize(self) -> None:
        """Break the lines anew."""
        super().on_resize()
        self.tell(self._properties)


def property_lines(properties: Sequence[Property], room: int) -> list[Line]:
    """Facts as lines of this width."""
    groups: dict[str, list[Property]] = {}
    for prop in properties:
        groups.setdefault(prop.group, []).append(prop)
    lines: list[Line] = []
    for name in sorted(groups, key=lambda each: _ORDER.index(each) if each in _ORDER else len(_ORDER)):
        lines += [*([""] if lines else []), (name, Style.HEADING)]
        for prop in groups[name]:
            lines += labelled(prop.label, prop.value, room)
    return lines


def labelled(label: str, value: str, room: int, style: Style = Style.PLAIN, width: int = LABEL) -> list[Line]:
    """A label and its value, broken where it is too long."""
    parts = broken(value, max(10, room - width - 2))
    return [
        [((f"  {label}" if at == 0 else "").ljust(width) + "  ", Style.MUTED), (part, style)]
        for at, part in enumerate(parts)
    ]


def broken(text: str, room: int) -> list[str]:
    """The text in lines of this width, at its spaces where it has any."""
    if not text.isascii():
        return chop_cells(text, room)  # textwrap takes every character for one column
    return textwrap.wrap(text, room, break_on_hyphens=False) or [""]
