"""The command line: ``:`` opens it over the key bar, with completions above it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from nomnom_tui.app.commands import Command, Completion, completions
from nomnom_tui.text.styles import Line, Style, content

_SHOWN = 8


class Prompt(ModalScreen[str]):
    """Prompts for a command. ``tab`` and the arrow keys select a completion; the result is the typed line."""

    DEFAULT_CSS = """
    Prompt { background: $background 0%; align: left bottom; }
    Prompt > Vertical { dock: bottom; height: auto; background: $raised; border-top: solid $accent; }
    Prompt #completions { height: auto; padding: 0 1; }
    Prompt Horizontal { height: 1; background: $panel; padding: 0 1; }
    Prompt #prompt { width: 2; color: $accent; text-style: bold; }
    Prompt Input { height: 1; border: none; padding: 0; background: $panel; }
    Prompt Input:focus { border: none; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Cancel", id="prompt.leave"),
        Binding("tab,down,ctrl+n", "choose(1)", "Next", id="prompt.next", priority=True),
        Binding("shift+tab,up,ctrl+p", "choose(-1)", "Previous", id="prompt.previous", priority=True),
    ]

    def __init__(self, commands: Sequence[Command]) -> None:
        super().__init__()
        self._commands = commands
        self._completions: list[Completion] = []
        self._selected: int | None = None

    def compose(self) -> ComposeResult:
        """The completions and the input line."""
        with Vertical():
            yield Static(id="completions")
            with Horizontal():
                yield Static(":", id="prompt")
                yield Input(id="line")

    def on_mount(self) -> None:
        """Show all commands initially."""
        self._complete("")

    def action_leave(self) -> None:
        """Close without a command."""
        self.dismiss(None)

    def action_choose(self, by: int) -> None:
        """Put the next or previous completion into the line."""
        if not self._completions:
            return
        first = 0 if by > 0 else -1
        self._selected = (first if self._selected is None else self._selected + by) % len(self._completions)
        line = self.query_one(Input)
        with line.prevent(Input.Changed):
            line.value = self._completions[self._selected].text
        line.cursor_position = len(line.value)
        self._draw()

    @on(Input.Changed)
    def _changed(self, event: Input.Changed) -> None:
        self._complete(event.value)

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value.strip())

    def _complete(self, typed: str) -> None:
        self._completions = completions(typed, self._commands)
        self._selected = None
        self._draw()

    def _draw(self) -> None:
        first = max(0, min((self._selected or 0) - _SHOWN + 1, len(self._completions) - _SHOWN))
        shown = self._completions[first : first + _SHOWN]
        width = max((len(each.shown) for each in shown), default=0) + 3
        lines: list[Line] = []
        for at, each in enumerate(shown, start=first):
            selected = at == self._selected
            lines.append(
                [
                    ("› " if selected else "  ", Style.ACCENT),
                    (each.shown.ljust(width), Style.HEADING if selected else Style.PLAIN),
                    (each.summary, Style.MUTED),
                ]
            )
        if not shown:
            lines.append(("  no matching command", Style.MUTED))
        elif len(self._completions) > len(shown):
            lines.append((f"  {len(self._completions) - len(shown)} more: keep typing, or press tab", Style.MUTED))
        self.query_one("#completions", Static).update(content(*lines))
