"""One dead letter as lines: why it failed, its fields with the invalid one highlighted, and its origin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nomnom.presentation import figures
from nomnom.presentation.terms import Term
from nomnom_tui.text.styles import Line, Style
from nomnom_tui.widgets.message_pane import MAX_RECORD_BYTES, record_lines, text_lines
from nomnom_tui.widgets.properties import TextTable, labelled

if TYPE_CHECKING:
    from nomnom.grammar import Grammar
    from nomnom.inspection.dead_letters import DeadLetter

_LABEL = 12


class DeadLetterPane(TextTable):
    """Shows a dead letter and scrolls."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, empty="no dead letter")
        self.grammar: Grammar | None = None
        self.plain = False
        """Whether the payload is shown as text instead of as a record."""
        self._dead_letter: DeadLetter | None = None

    def show_dead_letter(self, dead_letter: DeadLetter | None) -> None:
        """Show this dead letter."""
        self._dead_letter = dead_letter
        self.show_lines([] if dead_letter is None else self._describe(dead_letter))

    def on_resize(self) -> None:
        """Rewrap the lines."""
        super().on_resize()
        self.show_dead_letter(self._dead_letter)

    def _describe(self, dead_letter: DeadLetter) -> list[Line]:
        room = self.room
        attempts = figures.counted(dead_letter.attempts, "attempt")
        times = "once" if dead_letter.replays == 1 else f"{dead_letter.replays} times"
        replays = f", replayed {times}" if dead_letter.replays else ""
        return [
            *labelled(Term.REASON, f"{dead_letter.reason}, after {attempts}{replays}", room, Style.STRONG, _LABEL),
            *labelled(Term.ERROR, dead_letter.error or "no error given", room, Style.BAD, _LABEL),
            *(
                labelled("", dead_letter.envelope_problem, room, Style.WARNING, _LABEL)
                if dead_letter.envelope_problem
                else []
            ),
            "",
            *self._payload(dead_letter, room),
            "",
            *labelled(Term.MESSAGE, dead_letter.message_id, room, Style.PLAIN, _LABEL),
            *labelled(Term.ENTITY, dead_letter.entity, room, Style.PLAIN, _LABEL),
            *labelled(Term.RECEIVED, figures.when(dead_letter.received_at), room, Style.PLAIN, _LABEL),
            *labelled(Term.FAILED, figures.when(dead_letter.failed_at), room, Style.PLAIN, _LABEL),
            *labelled(Term.SIZE, f"{dead_letter.size:,} bytes", room, Style.PLAIN, _LABEL),
        ]

    def _payload(self, dead_letter: DeadLetter, room: int) -> list[Line]:
        if dead_letter.payload is None:
            return [("  large payload, press enter to show it", Style.MUTED)]
        if not dead_letter.payload:
            return [("  empty payload", Style.MUTED)]
        if self.plain or self.grammar is None or len(dead_letter.payload) > MAX_RECORD_BYTES:
            return text_lines(dead_letter.payload, room)
        return record_lines(dead_letter.payload, self.grammar, room)
