"""The few styles that all text uses, named by what they mean, and the marks that say the same without colour."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from rich.style import Style
from textual.app import App
from textual.color import Color
from textual.content import Content

from nomnom_control.environment import Health, Step


class Tone(StrEnum):
    """A style of text by its meaning; the value is the style in Textual's terms."""

    PLAIN = "$foreground"
    STRONG = "bold $foreground"
    MUTED = "$muted"
    FAINT = "$faint"
    ACCENT = "$accent"
    HEADING = "bold $accent"
    GOOD = "$success"
    WARNING = "$warning"
    BAD = "$error"
    FIELD = "bold $background on $error"
    """The very field that is wrong."""
    MATCH = "$background on $accent"
    """What a search found."""
    HUE_1 = "$hue-1"
    HUE_2 = "$hue-2"
    HUE_3 = "$hue-3"
    HUE_4 = "$hue-4"
    HUE_5 = "$hue-5"
    HUE_6 = "$hue-6"


HUES = (Tone.HUE_1, Tone.HUE_2, Tone.HUE_3, Tone.HUE_4, Tone.HUE_5, Tone.HUE_6)
"""Tones that only tell things apart (components in the logs, lines of a plot)."""


Piece = str | tuple[str, Tone]
"""Text, or text and its tone."""
Line = Piece | Iterable[Piece]
"""One line of text in pieces."""

MARKS: dict[Health, tuple[str, Tone]] = {
    Health.HEALTHY: ("●", Tone.GOOD),
    Health.STARTING: ("◐", Tone.ACCENT),
    Health.DEGRADED: ("▲", Tone.WARNING),
    Health.STOPPED: ("○", Tone.MUTED),
    Health.FAILED: ("✕", Tone.BAD),
}
"""A component's health as a mark of its own shape and colour."""

STEP_MARKS: dict[Step, tuple[str, Tone]] = {
    Step.STARTED: ("◐", Tone.ACCENT),
    Step.OUTPUT: ("◐", Tone.ACCENT),
    Step.DONE: ("✓", Tone.GOOD),
    Step.SKIPPED: ("·", Tone.MUTED),
    Step.FAILED: ("✕", Tone.BAD),
}


def pieces(line: Line) -> list[tuple[str, Tone]]:
    """The line as pieces that all have a tone."""
    if isinstance(line, str):
        return [(line, Tone.PLAIN)]
    if isinstance(line, tuple) and len(line) == 2 and isinstance(line[1], Tone):
        return [(str(line[0]), line[1])]
    return [(each, Tone.PLAIN) if isinstance(each, str) else (str(each[0]), Tone(each[1])) for each in line]


def printable(text: str) -> str:
    """Text that a record or a log may have brought, safe for a terminal: control characters become dots."""
    return text if text.isprintable() else "".join(each if each.isprintable() else "·" for each in text)


def content(*lines: Line) -> Content:
    """These lines as what a Static shows."""
    return Content("\n").join(Content.assemble(*((text, str(tone)) for text, tone in pieces(line))) for line in lines)


class Inks:
    """Tones as Rich styles in the app's present theme, for widgets that draw their own lines."""

    def __init__(self, app: App[object]) -> None:
        variables = app.theme_variables
        self._styles: dict[Tone, Style] = {tone: _style(tone, variables) for tone in Tone}

    def __getitem__(self, tone: Tone) -> Style:
        return self._styles[tone]


def _style(tone: Tone, variables: dict[str, str]) -> Style:
    bold = tone.startswith("bold ")
    names = [part.removeprefix("$") for part in tone.removeprefix("bold ").split(" on ")]
    colours = [Color.parse(variables[name]).rich_color for name in names]
    return Style(color=colours[0], bgcolor=colours[1] if len(colours) > 1 else None, bold=bold)
