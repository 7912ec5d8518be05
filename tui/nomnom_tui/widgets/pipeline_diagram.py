"""The pipeline drawn as it flows: api, stream, workers, database, and the dead letters beside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rich.cells import cell_len
from textual.content import Content
from textual.widget import Widget

from nomnom_control.environments import Component
from nomnom_tui.text.styles import MARKS, Style, content

_NODE = 15
_LONGEST_ARROW = 44


@dataclass(frozen=True, slots=True)
class Node:
    """A part of the drawing: its name, its component's health, and what is told below it."""

    title: str
    component: Component | None
    details: tuple[tuple[str, Style], ...] = ()

    @property
    def mark(self) -> tuple[str, Style]:
        """Its health, as a mark."""
        return ("·", Style.MUTED) if self.component is None else MARKS[self.component.health]


@dataclass(frozen=True, slots=True)
class Current:
    """What the drawing shows: four nodes, what flows between them, and the dead letters."""

    nodes: tuple[Node, Node, Node, Node]
    flows: tuple[str, str, str]
    moving: tuple[bool, bool, bool]
    dead: tuple[tuple[str, Style], ...]


class Flow(Widget):
    """The drawing, over the whole width."""

    DEFAULT_CSS = """
    Flow { height: 6; padding: 0 1; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._current: Current | None = None

    def show(self, current: Current) -> None:
        """Draw this from now on."""
        self._current = current
        self.refresh()

    def render(self) -> Content:
        """Rates over arrows over names over details."""
        current = self._current
        if current is None:
            return content("")
        arrow = max(5, min(_LONGEST_ARROW, (self.size.width - 4 * _NODE) // 3))
        above: list[tuple[str, Style]] = []
        names: list[tuple[str, Style]] = []
        for at, node in enumerate(current.nodes):
            mark, style = node.mark
            names += [(f"{mark} ", style), (_fit(node.title, _NODE - 3) + " ", Style.STRONG)]
            above.append((" " * _NODE, Style.PLAIN))
            if at < 3:
                flowing = current.moving[at]
                names.append(("─" * (arrow - 2) + "▶ ", Style.ACCENT if flowing else Style.FAINT))
                above.append((current.flows[at].center(arrow), Style.PLAIN if flowing else Style.MUTED))
        rows = [self._row(current, row, arrow) for row in range(max(len(each.details) for each in current.nodes))]
        # The dead letters leave the line of arrows at the workers.
        dead = [(" " * (2 * (_NODE + arrow)), Style.PLAIN), ("└▶ ", Style.FAINT), *current.dead]
        return content(above, names, *rows, dead)

    def _row(self, current: Current, row: int, arrow: int) -> list[tuple[str, Style]]:
        line: list[tuple[str, Style]] = []
        for at, node in enumerate(current.nodes):
            text, style = node.details[row] if row < len(node.details) else ("", Style.PLAIN)
            room = _NODE + arrow - 3 if at < 3 else max(1, self.size.width - 3 * (_NODE + arrow) - 2)
            line += [("  ", Style.PLAIN), (_fit(text, room), style), (" " if at < 3 else "", Style.PLAIN)]
        return line


def _fit(text: str, room: int) -> str:
    return (text if cell_len(text) <= room else text[: room - 1] + "…").ljust(room)


def find(components: Mapping[str, Component], *names: str) -> Component | None:
    """The component of the first of these names that there is."""
    return next((components[name] for name in names if name in components), None)
