"""One dead letter."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType

from nomnom_tui.app.dead_letter_changes import Chosen, delete_change, replay_change
from nomnom_tui.app.view import View
from nomnom_tui.text.styles import Style
from nomnom_tui.widgets.dead_letter_pane import DeadLetterPane
from nomnom_tui.widgets.panel import Panel

if TYPE_CHECKING:
    from nomnom.inspection.dead_letters import DeadLetter


class DeadLetterView(View):
    """Why it failed, its fields with the wrong one, where it comes from; edit, try out, replay, delete."""

    CHANGES = frozenset({"replay", "delete"})
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("e", "edit", "Edit", id="letter.edit"),
        Binding("d", "dry_run", "Dry run", id="letter.dry_run"),
        Binding("p", "replay", "Replay", id="letter.replay"),
        Binding("v", "look", "As text", id="letter.look"),
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
        """Its sequence."""
        return f"{self.sequence:,}"

    def content(self) -> ComposeResult:
        """All of it, in one place that scrolls."""
        yield Panel(f"Letter {self.sequence:,}", self._pane, id="letter", awaits="reading the letter")

    def begin(self) -> None:
        """Ask now and then whether it is still there."""
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
        beside = [("  ○ no dead letter any more", Style.WARNING)] if gone else []
        self.query_one("#letter", Panel).retitle(f"Letter {self.sequence:,}", *beside)

    def action_look(self) -> None:
        """The payload as text, or as a record."""
        self._pane.plain = not self._pane.plain
        self._pane.show_dead_letter(self._dead_letter)

    def action_copy(self) -> None:
        """Put the payload on the clipboard, by way of the terminal."""
        if self._dead_letter is not None:
            self.nomnom.copy_to_clipboard(self._dead_letter.text)
            self.nomnom.notify(f"{self._dead_letter.size:,} bytes copied, as far as this terminal takes it")

    def action_edit(self) -> None:
        """Edit its payload."""
        from nomnom_tui.screens.dead_letter_editor import DeadLetterEditorView

        self.nomnom.push_screen(DeadLetterEditorView(self.sequence))

    def action_dry_run(self) -> None:
        """What a replay would come to."""
        from nomnom_tui.screens.dry_run import DryRunView

        self.nomnom.push_screen(DryRunView(Chosen([self.sequence], 1)))

    def action_replay(self) -> None:
        """Send it to the workers again."""
        self.nomnom.perform(replay_change(self.session, Chosen([self.sequence], 1)))

    def action_delete(self) -> None:
        """Remove it for good."""
        self.nomnom.perform(delete_change(self.session, Chosen([self.sequence], 1)))
