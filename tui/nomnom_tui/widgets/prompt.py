"""The command line: ``:`` opens it over the line of keys, with what the text could become above it."""

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
    """Asks for a command. ``tab`` and the arrows choose among the completions; answers with the line typed."""

    DEFAULT_CSS = """
    Prompt { background: $background 0%; align: left bottom; }
    Prompt > Vertical { dock: bottom; height: auto; background: $raised; border-top: solid $accent; }
    Prompt #offers { height: auto; padding: 0 1; }
    Prompt Horizontal { height: 1; background: $panel; padding: 0 1; }
    Prompt #sign { width: 2; color: $accent; text-style: bold; }
    Prompt Input { height: 1; border: none; padding: 0; background: $panel; }
    Prompt Input:focus { border: none; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Leave", id="prompt.leave"),
        Binding("tab,down,ctrl+n", "choose(1)", "Next", id="prompt.next", priority=True),
        Binding("shift+tab,up,ctrl+p", "choose(-1)", "Previous", id="prompt.previous", priority=True),
    ]

    def __init__(self, commands: Sequence[Command]) -> None:
        super().__init__()
        self._commands = commands
        self._offers: list[Completion] = []
        self._chosen: int | None = None

    def compose(self) -> ComposeResult:
        """The completions, and the line."""
        with Vertical():
            yield Static(id="offers")
            with Horizontal():
                yield Static(":", id="sign")
                yield Input(id="line")

    def on_mount(self) -> None:
        """Offer everything to begin with."""
        self._offer("")

    def action_leave(self) -> None:
        """Leave without a command."""
        self.dismiss(None)

    def action_choose(self, by: int) -> None:
        """Take the next or previous completion into the line."""
        if not self._offers:
            return
        first = 0 if by > 0 else -1
        self._chosen = (first if self._chosen is None else self._chosen + by) % len(self._offers)
        line = self.query_one(Input)
        with line.prevent(Input.Changed):
            line.value = self._offers[self._chosen].text
        line.cursor_position = len(line.value)
        self._draw()

    @on(Input.Changed)
    def _changed(self, event: Input.Changed) -> None:
        self._offer(event.value)

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value.strip())

    def _offer(self, typed: str) -> None:
        self._offers = completions(typed, self._commands)
        self._chosen = None
        self._draw()

    def _draw(self) -> None:
        first = max(0, min((self._chosen or 0) - _SHOWN + 1, len(self._offers) - _SHOWN))
        shown = self._offers[first : first + _SHOWN]
        width = max((len(each.shown) for each in shown), default=0) + 3
        lines: list[Line] = []
        for at, each in enumerate(shown, start=first):
            chosen = at == self._chosen
            lines.append(
                [
                    ("› " if chosen else "  ", Style.ACCENT),
                    (each.shown.ljust(width), Style.HEADING if chosen else Style.PLAIN),
                    (each.summary, Style.MUTED),
                ]
            )
        if not shown:
            lines.append(("  no such command", Style.MUTED))
        elif len(self._offers) > len(shown):
            lines.append((f"  {len(self._offers) - len(shown)} more: type, or tab through them", Style.MUTED))
        self.query_one("#offers", Static).update(content(*lines))
