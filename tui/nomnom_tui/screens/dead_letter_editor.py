"""The editor of a dead letter's payload, with validation while typing and a diff."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.timer import Timer
from textual.widgets import TextArea

from nomnom.presentation import figures
from nomnom_tui.app.dead_letter_changes import Targets, replay_change
from nomnom_tui.app.view import View
from nomnom_tui.text.styles import Line, Style
from nomnom_tui.widgets.message_pane import record_lines
from nomnom_tui.widgets.panel import Panel
from nomnom_tui.widgets.properties import TextTable

if TYPE_CHECKING:
    from nomnom.inspection.dead_letters import DeadLetter
    from nomnom_control.session.dead_letters import Diff
    from nomnom_control.session.pipeline import Pipeline

_MAX_SIZE = 256 * 1024
_DEBOUNCE = 0.15
"""Seconds without a key press before the text is validated, so that typing stays responsive."""


class DeadLetterEditorView(View):
    """The payload as text, its parsed fields, and the difference from the original."""

    CHANGES = frozenset({"replay"})
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "replay", "Replay edited", priority=True, id="letter_editor.replay"),
        Binding("ctrl+t", "dry_run", "Dry run", priority=True, id="letter_editor.dry_run"),
        Binding("ctrl+r", "revert", "Revert", priority=True, id="letter_editor.revert"),
        Binding("escape", "app.back", "Back", show=False, priority=True, id="letter_editor.leave"),
    ]
    DEFAULT_CSS = """
    DeadLetterEditorView TextArea, DeadLetterEditorView TextArea:focus {
        height: 1fr; border: none; padding: 0 1; background: $background;
    }
    DeadLetterEditorView #payload { height: 1fr; min-height: 5; }
    DeadLetterEditorView #difference { height: 1fr; min-height: 4; }
    DeadLetterEditorView.-wide #left { width: 1fr; }
    DeadLetterEditorView #checked { width: 1fr; }
    DeadLetterEditorView.-narrow Horizontal { layout: vertical; }
    """

    def __init__(self, sequence: int) -> None:
        super().__init__()
        self.sequence = sequence
        self._dead_letter: DeadLetter | None = None
        self._pipeline: Pipeline | None = None
        self._text = TextArea("", id="text", soft_wrap=True, show_line_numbers=True, tab_behavior="focus")
        self._text.cursor_blink = False
        self._checked = TextTable(id="fields")
        self._difference = TextTable(id="changes", empty="no changes")
        self._valid = False
        self._soon: Timer | None = None

    @property
    def crumb(self) -> str:
        """The sequence."""
        return f"edit {self.sequence:,}"

    @property
    def payload(self) -> bytes:
        """The edited payload."""
        return self._text.text.encode()

    def content(self) -> ComposeResult:
        """The text, its changes, and the parsed record."""
        with Horizontal():
            with Vertical(id="left"):
                yield Panel("Payload", self._text, id="payload", loading_text="loading the dead letter")
                yield Panel("Changes", self._difference, id="difference")
            yield Panel("As a record", self._checked, id="checked")

    def begin(self) -> None:
        """Load the dead letter once."""
        self._text.focus()
        self.subscribe("letter", 3600.0, self._load, self._begin, self.query_one("#payload", Panel))

    async def _load(self) -> DeadLetter | None:
        self._pipeline = await self.session.pipeline()
        return await self._pipeline.dead_letters.dead_letter(self.sequence)

    def _begin(self, dead_letter: DeadLetter | None) -> None:
        if self._dead_letter is not None:
            return  # do not overwrite the user's edits
        if dead_letter is None:
            self.nomnom.notify(f"dead letter {self.sequence:,} no longer exists", severity="warning")
            self.nomnom.pop_screen()
            return
        if dead_letter.size > _MAX_SIZE:
            self.nomnom.notify(f"too large to edit ({dead_letter.size:,} bytes)", severity="warning")
            self.nomnom.pop_screen()
            return
        self._dead_letter = dead_letter
        if "\ufffd" in dead_letter.text:
            self.nomnom.notify("bytes that are not valid UTF-8 are shown as \ufffd and would be replayed as \ufffd")
        self._text.load_text(dead_letter.text)
        self._check()

    @on(TextArea.Changed)
    def _changed(self) -> None:
        if self._soon is not None:
            self._soon.stop()
        self._soon = self.set_timer(_DEBOUNCE, self._check, name="check")

    def _check(self) -> None:
        pipeline, dead_letter = self._pipeline, self._dead_letter
        if pipeline is None or dead_letter is None:
            return
        found = pipeline.dead_letters.validate(self.payload)
        self._valid = found.valid
        self._checked.show_lines(record_lines(self.payload, pipeline.grammar, self._checked.room))

        state = (
            ("  ✓ matches the schema ", Style.GOOD)
            if found.valid
            else (f"  ✕ {figures.counted(len(found.problems), 'problem')} ", Style.BAD)
        )
        self.query_one("#checked", Panel).retitle("As a record", state)
        difference = pipeline.dead_letters.diff(dead_letter.payload or b"", self.payload)
        self._difference.show_lines(difference_lines(difference))
        self.query_one("#difference", Panel).retitle("Changes", *([] if difference.empty else [difference.summary()]))

    def action_revert(self) -> None:
        """Restore the original payload."""
        if self._dead_letter is not None:
            self._text.load_text(self._dead_letter.text)

    def action_dry_run(self) -> None:
        """Open a dry run of the edited dead letter."""
        from nomnom_control.session.dead_letters import Edit
        from nomnom_tui.screens.dry_run import DryRunView

        if self._dead_letter is not None:
            self.nomnom.push_screen(DryRunView(Targets([self.sequence], 1), Edit(payload=self.payload)))

    def action_replay(self) -> None:
        """Replay the edited dead letter."""
        from nomnom_control.session.dead_letters import Edit

        if self._dead_letter is None:
            return
        self._check()
        change = replay_change(self.session, Targets([self.sequence], 1), Edit(payload=self.payload))
        if not self._valid:
            from dataclasses import replace

            warning = "the message does not match the schema: it will become a dead letter again"
            change = replace(change, plan=(warning,))
        self.nomnom.perform(change, self._leave)

    def _leave(self, done: bool) -> None:
        if done and self.nomnom.screen is self:
            self.nomnom.pop_screen()


def difference_lines(difference: Diff) -> list[Line]:
    """Return the changes by field or, if the payload cannot be parsed, by line."""
    if difference.empty:
        return [("  no changes", Style.MUTED)]
    if difference.changes is None:
        styles = {"-": Style.BAD, "+": Style.GOOD}
        return [(f"  {each}", styles.get(each[:1], Style.MUTED)) for each in difference.lines]
    lines: list[Line] = []
    for each in difference.changes:
        lines.append([(f"  line {each.line}  ", Style.MUTED), (each.field, Style.STRONG)])
        lines.append([("    - ", Style.BAD), (each.before or "empty", Style.PLAIN)])
        lines.append([("    + ", Style.GOOD), (each.after or "empty", Style.PLAIN)])
    return lines
