"""One dead letter as lines: why it failed, its fields with the one that is wrong, where it comes from."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from nomnom_tui.text import figures
from nomnom_tui.text.styles import Line, Style
from nomnom_tui.widgets.message_pane import MOST_RECORD, record_lines, text_lines
from nomnom_tui.widgets.properties import TextTable, labelled

if TYPE_CHECKING:
    from nomnom.grammar import Grammar
    from nomnom.inspection.dead_letters import DeadLetter

_LABEL = 12


class DeadLetterPane(TextTable):
    """Shows a letter; scrolls."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, empty="no letter")
        self.grammar: Grammar | None = None
        self.plain = False
        """Whether the payload is shown as text rather than as a record."""
        self._dead_letter: DeadLetter | None = None

    def show_dead_letter(self, dead_letter: DeadLetter | None) -> None:
        """Show this letter from now on."""
        self._dead_letter = dead_letter
        self.show_lines([] if dead_letter is None else self._describe(dead_letter))

    def on_resize(self) -> None:
        """Break the lines anew."""
        super().on_resize()
        self.show_dead_letter(self._dead_letter)

    def _describe(self, dead_letter: DeadLetter) -> list[Line]:
        room = self.room
        tries = f"{dead_letter.attempts} tr{'y' if dead_letter.attempts == 1 else 'ies'}"
        replays = f", replayed {dead_letter.replays} times before" if dead_letter.replays else ""
        return [
            *labelled("reason", f"{dead_letter.reason}, after {tries}{replays}", room, Style.STRONG, _LABEL),
            *labelled("error", dead_letter.error or "not said", room, Style.BAD, _LABEL),
            *(
                labelled("", dead_letter.envelope_problem, room, Style.WARNING, _LABEL)
                if dead_letter.envelope_problem
                else []
            ),
            "",
            *self._payload(dead_letter, room),
            "",
            *labelled("message", dead_letter.message_id, room, Style.PLAIN, _LABEL),
            *labelled("entity", dead_letter.entity, room, Style.PLAIN, _LABEL),
            *labelled("received", _moment(dead_letter.received_at), room, Style.PLAIN, _LABEL),
            *labelled("failed", _moment(dead_letter.failed_at), room, Style.PLAIN, _LABEL),
            *labelled("size", f"{dead_letter.size:,} bytes", room, Style.PLAIN, _LABEL),
        ]

    def _payload(self, dead_letter: DeadLetter, room: int) -> list[Line]:
        if dead_letter.payload is None:
            return [("  a large payload: enter shows it", Style.MUTED)]
        if not dead_letter.payload:
            return [("  an empty payload", Style.MUTED)]
        if self.plain or self.grammar is None or len(dead_letter.payload) > MOST_RECORD:
            return text_lines(dead_letter.payload, room)
        return record_lines(dead_letter.payload, self.grammar, room)


def _moment(at: datetime) -> str:
    return f"{figures.moment(at)}, {figures.age(at)} ago"
