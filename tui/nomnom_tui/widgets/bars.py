"""The bars around every view: breadcrumbs and state, the screens, and the keys."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

from rich.cells import cell_len
from textual.content import Content
from textual.screen import Screen
from textual.widget import Widget

from nomnom.presentation import figures
from nomnom.presentation.terms import Term
from nomnom_tui.text.styles import MARKS, Style, content

if TYPE_CHECKING:
    from nomnom_tui.app.application import NomnomApp
    from nomnom_tui.screens import Route

Pieces = list[tuple[str, Style]]


@runtime_checkable
class Enterable(Protocol):
    """A widget whose enter key is labelled in the key bar."""

    enter_label: str


def _width(line: Iterable[tuple[str, Style]]) -> int:
    return sum(cell_len(text) for text, _ in line)


class Bar(Widget):
    """One line that is always redrawn as a whole, which is cheaper than a widget per word."""

    DEFAULT_CSS = """
    Bar { height: 1; width: 1fr; }
    """

    @property
    def nomnom(self) -> NomnomApp:
        """The app."""
        return cast("NomnomApp", self.app)

    def line(self) -> Pieces:
        """Return the text of the line."""
        raise NotImplementedError

    def render(self) -> Content:
        """Render the line."""
        return content(self.line())


class TopBar(Bar):
    """Breadcrumbs on the left; running operation, health, lag and workers on the right."""

    DEFAULT_CSS = """
    TopBar { background: $panel; padding: 0 1; }
    """

    def on_mount(self) -> None:
        """Redraw with each heartbeat."""
        self.nomnom.heartbeat_signal.subscribe(self, lambda _: self.refresh())

    def line(self) -> Pieces:
        """Return breadcrumbs and as much of the state as fits, most important first."""
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
                step = f": {operation.current_step}" if operation.current_step else ""
                parts.append([("◐ ", Style.ACCENT), (f"{operation.title}{step}", Style.PLAIN)])
        if heartbeat.problem is not None:
            parts.append([("▲ ", Style.WARNING), ("no response", Style.PLAIN)])
        elif heartbeat.health is not None:
            mark, style = MARKS[heartbeat.health]
            parts.append([(f"{mark} ", style), (heartbeat.health.value, Style.PLAIN)])
        if heartbeat.scaling is not None:
            parts.append([(f"{Term.STREAM_LAG} ", Style.MUTED), (figures.count(heartbeat.scaling.lag), Style.PLAIN)])
            parts.append(
                [("workers ", Style.MUTED), (f"{heartbeat.scaling.ready}/{heartbeat.scaling.desired}", Style.PLAIN)]
                + ([(" ‖ paused", Style.WARNING)] if heartbeat.scaling.paused else [])
            )
        return parts


class Navigation(Bar):
    """The screens and their number keys, the current one highlighted."""

    DEFAULT_CSS = """
    Navigation { background: $background; padding: 0 1; }
    """

    def line(self) -> Pieces:
        """Return full titles if they fit, otherwise short ones."""
        full = self._titles(lambda route: route.title, "   ")
        for line in (full, self._titles(lambda route: route.title, "  ")):
            if _width(line) <= self.size.width:
                return line
        return self._titles(lambda route: route.short, "  ")

    def _titles(self, name: Callable[[Route], str], gap: str) -> Pieces:
        line: Pieces = []
        for route in self.nomnom.routes:
            current = route.name == self.nomnom.current_mode
            line += [(gap, Style.PLAIN)] if line else []
            line += [
                (route.key, Style.ACCENT),
                (" ", Style.PLAIN),
                (name(route), Style.STRONG if current else Style.MUTED),
            ]
        return line


class KeyBar(Bar):
    """The available keys, as many as fit, and always help and the command line."""

    DEFAULT_CSS = """
    KeyBar { background: $panel; padding: 0 1; dock: bottom; }
    """

    def on_mount(self) -> None:
        """Redraw when the available keys change."""
        self.screen.bindings_updated_signal.subscribe(self, self._changed)

    def _changed(self, screen: Screen[object]) -> None:
        if self.is_attached and screen is self.app.screen:
            self.refresh()

    def line(self) -> Pieces:
        """Return the keys of the focused widget first, then those of the view."""
        always = [("?", "help"), (":", "command")]
        room = self.size.width - sum(cell_len(key) + cell_len(text) + 4 for key, text in always)
        line: Pieces = []
        seen: set[str] = set()
        for active in self.screen.active_bindings.values():
            binding = active.binding
            description = binding.description
            if binding.action == "choose" and isinstance(active.node, Enterable):
                description = active.node.enter_label
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
