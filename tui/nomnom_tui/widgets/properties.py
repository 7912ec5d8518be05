"""Properties (group, label, value) as lines: each group under its heading, long values wrapped."""

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
"""Groups shown first: what changes matters more often than what is configured once."""


class TextTable(LiveTable[tuple[int, Line]]):
    """Lines that scroll with the keys of a table; only visible lines are drawn."""

    def __init__(self, *, id: str | None = None, empty: str = "") -> None:
        super().__init__(
            [Column("", lambda row: row[1], 10, share=1)], key=lambda row: row[0], id=id, empty=empty, header=False
        )

    @property
    def room(self) -> int:
        """The width of a line in columns."""
        return max(20, self.scrollable_content_region.width - 2)

    def show_lines(self, lines: Sequence[Line]) -> None:
        """Show these lines."""
        self.show(list(enumerate(lines)))


class PropertyTable(TextTable):
    """The properties of one object."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._properties: Sequence[Property] = ()

    def show_properties(self, properties: Sequence[Property]) -> None:
        """Show these properties."""
        self._properties = properties
        self.show_lines(property_lines(properties, self.room))

    def on_resize(self) -> None:
        """Rewrap the lines."""
        super().on_resize()
        self.show_properties(self._properties)


def property_lines(properties: Sequence[Property], room: int) -> list[Line]:
    """Return properties as lines of this width."""
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
    """Return a label and its value, wrapped to this width."""
    parts = wrapped(value, max(10, room - width - 2))
    return [
        [((f"  {label}" if at == 0 else "").ljust(width) + "  ", Style.MUTED), (part, style)]
        for at, part in enumerate(parts)
    ]


def wrapped(text: str, room: int) -> list[str]:
    """Wrap the text to this width, at spaces if possible."""
    if not text.isascii():
        return chop_cells(text, room)  # textwrap counts every character as one column
    return textwrap.wrap(text, room, break_on_hyphens=False) or [""]
