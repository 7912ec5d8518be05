"""One dead letter."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from nomnom_tui.app.dead_letter_changes import Targets, delete_change, replay_change
from nomnom_tui.app.view import View
from nomnom_tui.text.styles import Style
from nomnom_tui.widgets.dead_letter_pane import DeadLetterPane
from nomnom_tui.widgets.panel import Panel

if TYPE_CHECKING:
    from nomnom.inspection.dead_letters import DeadLetter


class DeadLetterView(View):
    """Shows why it failed, its fields and its origin; edits, dry-runs, replays and deletes it."""

    CHANGES = frozenset({"replay", "delete"})
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("e", "edit", "Edit", id="letter.edit"),
        Binding("d", "dry_run", "Dry run", id="letter.dry_run"),
        Binding("p", "replay", "Replay", id="letter.replay"),
        Binding("v", "toggle_text", "Text/record", id="letter.look"),
        Binding("x", "delete", "Delete", show=False, id="letter.delete"),
        Binding("y", "copy", "Copy payload", show=False, id="letter.copy"),
    ]

    def __init__(self, sequence: int) -> None:
        super().__init__()
        self.sequence = sequence
        self._dead_letter: DeadLetter | None = None
        self._pane = DeadLetterPane(id="pane")

    @property
    def crumb(self) -> str:
        """The sequence."""
        return f"{self.sequence:,}"

    def content(self) -> ComposeResult:
        """The dead letter."""
        yield Panel(f"Dead letter {self.sequence:,}", self._pane, id="letter", loading_text="loading the dead letter")

    def begin(self) -> None:
        """Reload it regularly: it may be replayed or deleted."""
        self._pane.focus()
        self.subscribe("letter", 2.0, self._load, self._show, self.query_one("#letter", Panel))

    async def _load(self) -> DeadLetter | None:
        pipeline = await self.session.pipeline()
        self._pane.grammar = pipeline.grammar
        return await pipeline.dead_letters.dead_letter(self.sequence)

    def _show(self, dead_letter: DeadLetter | None) -> None:
        gone = dead_letter is None
        self._dead_letter = dead_letter or self._dead_letter
        self._pane.show_dead_letter(self._dead_letter)
        beside = [("  ○ no longer a dead letter", Style.WARNING)] if gone else []
        self.query_one("#letter", Panel).retitle(f"Dead letter {self.sequence:,}", *beside)

    def action_toggle_text(self) -> None:
        """Show the payload as text or as a record."""
        self._pane.plain = not self._pane.plain
        self._pane.show_dead_letter(self._dead_letter)

    def action_copy(self) -> None:
        """Copy the payload to the clipboard via the terminal (OSC 52)."""
        if self._dead_letter is not None:
            self.nomnom.copy_to_clipboard(self._dead_letter.text)
            self.nomnom.notify(f"copied {self._dead_letter.size:,} bytes, if the terminal supports OSC 52")

    def action_edit(self) -> None:
        """Open the editor."""
        from nomnom_tui.screens.dead_letter_editor import DeadLetterEditorView

        self.nomnom.push_screen(DeadLetterEditorView(self.sequence))

    def action_dry_run(self) -> None:
        """Open a dry run of its replay."""
        from nomnom_tui.screens.dry_run import DryRunView

        self.nomnom.push_screen(DryRunView(Targets([self.sequence], 1)))

    def action_replay(self) -> None:
        """Replay it."""
        self.nomnom.perform(replay_change(self.session, Targets([self.sequence], 1)))

    def action_delete(self) -> None:
        """Delete it permanently."""
        self.nomnom.perform(delete_change(self.session, Targets([self.sequence], 1)))
