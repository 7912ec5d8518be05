"""What surrounds every view: the bar with breadcrumbs and state, the line of screens, the line of keys."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

from rich.cells import cell_len
from textual.content import Content
from textual.screen import Screen
from textual.widget import Widget

from nomnom.presentation import figures
from nomnom_tui.text.styles import MARKS, Style, content

if TYPE_CHECKING:
    from nomnom_tui.app.application import NomnomApp
    from nomnom_tui.screens import Place

Pieces = list[tuple[str, Style]]


@runtime_checkable
class Opening(Protocol):
    """A widget whose enter key does something that has a name."""

    opens: str


def _width(line: Iterable[tuple[str, Style]]) -> int:
    return sum(cell_len(text) for text, _ in line)


class Bar(Widget):
    """One line, drawn anew as a whole: cheaper than a widget for each word."""

    DEFAULT_CSS = """
    Bar { height: 1; width: 1fr; }
    """

    @property
    def nomnom(self) -> NomnomApp:
        """The app."""
        return cast("NomnomApp", self.app)

    def line(self) -> Pieces:
        """The line's text."""
        raise NotImplementedError

    def render(self) -> Content:
        """The line."""
        return content(self.line())


class TopBar(Bar):
    """Breadcrumbs left; health, lag, workers and the operation under way right."""

    DEFAULT_CSS = """
    TopBar { background: $panel; padding: 0 1; }
    """

    def on_mount(self) -> None:
        """Draw anew with each pulse."""
        self.nomnom.heartbeat_signal.subscribe(self, lambda _: self.refresh())

    def line(self) -> Pieces:
        """Breadcrumbs, and as much of the state as there is room for, the most important first."""
        left: Pieces = [("nomnom", Style.HEADING)]
        for at, crumb in enumerate(crumbs := self.nomnom.breadcrumbs):
            left += [(" › ", Style.FAINT), (crumb, Style.STRONG if at == len(crumbs) - 1 else Style.MUTED)]
        right: Pieces = []
        for part in self._state():
            if _width(left) + _width(right) + _width(part) + 3 > self.size.width:
                break
            right += [("   ", Style.PLAIN), *part] if right else part
        return [*left, (" " * max(1, self.size.width - _width(left) - _width(right)), Style.PLAIN), *right]

    def _state(self) -> list[Pieces]:
        app, heartbeat = self.nomnom, self.nomnom.heartbeat
        parts: list[Pieces] = []
        if app.session.readonly:
            parts.append([("read-only", Style.WARNING)])
        for operation in app.operations:
            if operation.running:
                now = f": {operation.now}" if operation.now else ""
                parts.append([("◐ ", Style.ACCENT), (f"{operation.title}{now}", Style.PLAIN)])
        if heartbeat.problem is not None:
            parts.append([("▲ ", Style.WARNING), ("no answer", Style.PLAIN)])
        elif heartbeat.health is not None:
            mark, style = MARKS[heartbeat.health]
            parts.append([(f"{mark} ", style), (heartbeat.health.value, Style.PLAIN)])
        if heartbeat.scaling is not None:
            parts.append([("lag ", Style.MUTED), (figures.count(heartbeat.scaling.lag), Style.PLAIN)])
            parts.append(
                [("workers ", Style.MUTED), (f"{heartbeat.scaling.ready}/{heartbeat.scaling.desired}", Style.PLAIN)]
                + ([(" ‖ paused", Style.WARNING)] if heartbeat.scaling.paused else [])
            )
        return parts


class Navigation(Bar):
    """The screens and their number keys; the present one stands out."""

    DEFAULT_CSS = """
    Navigation { background: $background; padding: 0 1; }
    """

    def line(self) -> Pieces:
        """Full titles where they fit, else short ones."""
        full = self._titles(lambda place: place.title, "   ")
        for line in (full, self._titles(lambda place: place.title, "  ")):
            if _width(line) <= self.size.width:
                return line
        return self._titles(lambda place: place.short, "  ")

    def _titles(self, name: Callable[[Place], str], gap: str) -> Pieces:
        line: Pieces = []
        for place in self.nomnom.places:
            present = place.name == self.nomnom.current_mode
            line += [(gap, Style.PLAIN)] if line else []
            line += [
                (place.key, Style.ACCENT),
                (" ", Style.PLAIN),
                (name(place), Style.STRONG if present else Style.MUTED),
            ]
        return line


class KeyBar(Bar):
    """The keys that matter now; as many as fit, and always help and the command line."""

    DEFAULT_CSS = """
    KeyBar { background: $panel; padding: 0 1; dock: bottom; }
    """

    def on_mount(self) -> None:
        """Draw anew when other keys apply."""
        self.screen.bindings_updated_signal.subscribe(self, self._changed)

    def _changed(self, screen: Screen[object]) -> None:
        if self.is_attached and screen is self.app.screen:
            self.refresh()

    def line(self) -> Pieces:
        """Keys of what has the focus first, then of the view."""
        always = [("?", "help"), (":", "command")]
        room = self.size.width - sum(cell_len(key) + cell_len(text) + 4 for key, text in always)
        line: Pieces = []
        seen: set[str] = set()
        for active in self.screen.active_bindings.values():
            binding = active.binding
            description = binding.description
            if binding.action == "choose" and isinstance(active.node, Opening):
                description = active.node.opens
            elif not binding.show:
                continue
            if not description or binding.action in seen or binding.system:
                continue
            seen.add(binding.action)
            key = self.app.get_key_display(binding)
            part: Pieces = [
                (key, Style.ACCENT if active.enabled else Style.FAINT),
                (f" {description}", Style.PLAIN if active.enabled else Style.FAINT),
                ("   ", Style.PLAIN),
            ]
            if _width(line) + _width(part) > room:
                break
            line += part
        line.append(
            (
                " " * max(0, self.size.width - _width(line) - sum(len(k) + len(t) + 4 for k, t in always) + 3),
                Style.PLAIN,
            )
        )
        for at, (key, text) in enumerate(always):
            line += [(key, Style.ACCENT), (f" {text}", Style.MUTED), ("   " if at == 0 else "", Style.PLAIN)]
        return line
