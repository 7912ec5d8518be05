"""What surrounds every view: the bar with breadcrumbs and state, the line of screens, the line of keys."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

from rich.cells import cell_len
from textual.content import Content
from textual.screen import Screen
from textual.widget import Widget

from nomnom_tui import figures
from nomnom_tui.tones import MARKS, Tone, content

if TYPE_CHECKING:
    from nomnom_tui.application import NomnomApp
    from nomnom_tui.screens import Place

Pieces = list[tuple[str, Tone]]


@runtime_checkable
class Opening(Protocol):
    """A widget whose enter key does something that has a name."""

    opens: str


def _width(line: Iterable[tuple[str, Tone]]) -> int:
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
        self.nomnom.pulse_signal.subscribe(self, lambda _: self.refresh())

    def line(self) -> Pieces:
        """Breadcrumbs, and as much of the state as there is room for, the most important first."""
        left: Pieces = [("nomnom", Tone.HEADING)]
        for at, crumb in enumerate(crumbs := self.nomnom.breadcrumbs):
            left += [(" › ", Tone.FAINT), (crumb, Tone.STRONG if at == len(crumbs) - 1 else Tone.MUTED)]
        right: Pieces = []
        for part in self._state():
            if _width(left) + _width(right) + _width(part) + 3 > self.size.width:
                break
            right += [("   ", Tone.PLAIN), *part] if right else part
        return [*left, (" " * max(1, self.size.width - _width(left) - _width(right)), Tone.PLAIN), *right]

    def _state(self) -> list[Pieces]:
        app, pulse = self.nomnom, self.nomnom.pulse
        parts: list[Pieces] = []
        if app.session.readonly:
            parts.append([("read-only", Tone.WARNING)])
        for operation in app.operations:
            if operation.running:
                now = f": {operation.now}" if operation.now else ""
                parts.append([("◐ ", Tone.ACCENT), (f"{operation.title}{now}", Tone.PLAIN)])
        if pulse.trouble is not None:
            parts.append([("▲ ", Tone.WARNING), ("no answer", Tone.PLAIN)])
        elif pulse.health is not None:
            mark, tone = MARKS[pulse.health]
            parts.append([(f"{mark} ", tone), (pulse.health.value, Tone.PLAIN)])
        if pulse.scaling is not None:
            parts.append([("lag ", Tone.MUTED), (figures.count(pulse.scaling.lag), Tone.PLAIN)])
            parts.append(
                [("workers ", Tone.MUTED), (f"{pulse.scaling.ready}/{pulse.scaling.desired}", Tone.PLAIN)]
                + ([(" ‖ paused", Tone.WARNING)] if pulse.scaling.paused else [])
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
            line += [(gap, Tone.PLAIN)] if line else []
            line += [(place.key, Tone.ACCENT), (" ", Tone.PLAIN), (name(place), Tone.STRONG if present else Tone.MUTED)]
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
                (key, Tone.ACCENT if active.enabled else Tone.FAINT),
                (f" {description}", Tone.PLAIN if active.enabled else Tone.FAINT),
                ("   ", Tone.PLAIN),
            ]
            if _width(line) + _width(part) > room:
                break
            line += part
        line.append(
            (" " * max(0, self.size.width - _width(line) - sum(len(k) + len(t) + 4 for k, t in always) + 3), Tone.PLAIN)
        )
        for at, (key, text) in enumerate(always):
            line += [(key, Tone.ACCENT), (f" {text}", Tone.MUTED), ("   " if at == 0 else "", Tone.PLAIN)]
        return line
