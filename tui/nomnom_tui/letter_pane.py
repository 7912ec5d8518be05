"""One dead letter as lines: why it failed, its fields with the one that is wrong, where it comes from."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from nomnom_tui import figures
from nomnom_tui.facts import TextTable, labelled
from nomnom_tui.message_pane import MOST_RECORD, record_lines, text_lines
from nomnom_tui.tones import Line, Tone

if TYPE_CHECKING:
    from nomnom.grammar import Grammar
    from nomnom_control.dead_letters import Letter

_LABEL = 12


class LetterPane(TextTable):
    """Shows a letter; scrolls."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, empty="no letter")
        self.grammar: Grammar | None = None
        self.plain = False
        """Whether the payload is shown as text rather than as a record."""
        self._letter: Letter | None = None

    def show_letter(self, letter: Letter | None) -> None:
        """Show this letter from now on."""
        self._letter = letter
        self.show_lines([] if letter is None else self._describe(letter))

    def on_resize(self) -> None:
        """Break the lines anew."""
        super().on_resize()
        self.show_letter(self._letter)

    def _describe(self, letter: Letter) -> list[Line]:
        room = self.room
        tries = f"{letter.attempts} tr{'y' if letter.attempts == 1 else 'ies'}"
        replays = f", replayed {letter.replays} times before" if letter.replays else ""
        return [
            *labelled("reason", f"{letter.reason}, after {tries}{replays}", room, Tone.STRONG, _LABEL),
            *labelled("error", letter.error or "not said", room, Tone.BAD, _LABEL),
            *(labelled("", letter.envelope_problem, room, Tone.WARNING, _LABEL) if letter.envelope_problem else []),
            "",
            *self._payload(letter, room),
            "",
            *labelled("message", letter.message_id, room, Tone.PLAIN, _LABEL),
            *labelled("entity", letter.entity, room, Tone.PLAIN, _LABEL),
            *labelled("received", _moment(letter.received_at), room, Tone.PLAIN, _LABEL),
            *labelled("failed", _moment(letter.failed_at), room, Tone.PLAIN, _LABEL),
            *labelled("size", f"{letter.size:,} bytes", room, Tone.PLAIN, _LABEL),
        ]

    def _payload(self, letter: Letter, room: int) -> list[Line]:
        if letter.payload is None:
            return [("  a large payload: enter shows it", Tone.MUTED)]
        if not letter.payload:
            return [("  an empty payload", Tone.MUTED)]
        if self.plain or self.grammar is None or len(letter.payload) > MOST_RECORD:
            return text_lines(letter.payload, room)
        return record_lines(letter.payload, self.grammar, room)


def _moment(at: datetime) -> str:
    return f"{figures.moment(at)}, {figures.age(at)} ago"
