"""A diagram of the pipeline: API, stream, workers, database, and the dead letters."""

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
    """A part of the diagram: its title, its component, and the details below it."""

    title: str
    component: Component | None
    details: tuple[tuple[str, Style], ...] = ()

    @property
    def mark(self) -> tuple[str, Style]:
        """The mark of its health."""
        return ("·", Style.MUTED) if self.component is None else MARKS[self.component.health]


@dataclass(frozen=True, slots=True)
class DiagramState:
    """The contents of the diagram: four nodes, the rates between them, and the dead letters."""

    nodes: tuple[Node, Node, Node, Node]
    rates: tuple[str, str, str]
    active: tuple[bool, bool, bool]
    dead: tuple[tuple[str, Style], ...]


class PipelineDiagram(Widget):
    """Draws the pipeline over the full width."""

    DEFAULT_CSS = """
    PipelineDiagram { height: 6; padding: 0 1; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._state: DiagramState | None = None

    def show(self, state: DiagramState) -> None:
        """Draw this state."""
        self._state = state
        self.refresh()

    def render(self) -> Content:
        """Render rates above names and arrows above details."""
        state = self._state
        if state is None:
            return content("")
        arrow = max(5, min(_LONGEST_ARROW, (self.size.width - 4 * _NODE) // 3))
        above: list[tuple[str, Style]] = []
        names: list[tuple[str, Style]] = []
        for at, node in enumerate(state.nodes):
            mark, style = node.mark
            names += [(f"{mark} ", style), (_fit(node.title, _NODE - 3) + " ", Style.STRONG)]
            above.append((" " * _NODE, Style.PLAIN))
            if at < 3:
                active = state.active[at]
                names.append(("─" * (arrow - 2) + "▶ ", Style.ACCENT if active else Style.FAINT))
                above.append((state.rates[at].center(arrow), Style.PLAIN if active else Style.MUTED))
        rows = [self._row(state, row, arrow) for row in range(max(len(each.details) for each in state.nodes))]
        # The dead letters branch off at the workers.
        dead = [(" " * (2 * (_NODE + arrow)), Style.PLAIN), ("└▶ ", Style.FAINT), *state.dead]
        return content(above, names, *rows, dead)

    def _row(self, state: DiagramState, row: int, arrow: int) -> list[tuple[str, Style]]:
        line: list[tuple[str, Style]] = []
        for at, node in enumerate(state.nodes):
            text, style = node.details[row] if row < len(node.details) else ("", Style.PLAIN)
            room = _NODE + arrow - 3 if at < 3 else max(1, self.size.width - 3 * (_NODE + arrow) - 2)
            line += [("  ", Style.PLAIN), (_fit(text, room), style), (" " if at < 3 else "", Style.PLAIN)]
        return line


def _fit(text: str, room: int) -> str:
    return (text if cell_len(text) <= room else text[: room - 1] + "…").ljust(room)


def find_component(components: Mapping[str, Component], *names: str) -> Component | None:
    """Return the component with the first of these names that exists, or None."""
    return next((components[name] for name in names if name in components), None)
