"""The few styles that all text uses, named by their meaning, and the signs of states in these styles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import TypeVar

from rich.style import Style as RichStyle
from textual.app import App
from textual.color import Color
from textual.content import Content

from nomnom.envelope import Status
from nomnom.presentation.marks import HEALTHS, STATUSES, STEPS, Mark

_State = TypeVar("_State", bound=StrEnum)


class Style(StrEnum):
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
    """The invalid field."""
    MATCH = "$background on $accent"
    """A match of a search."""
    HUE_1 = "$hue-1"
    HUE_2 = "$hue-2"
    HUE_3 = "$hue-3"
    HUE_4 = "$hue-4"
    HUE_5 = "$hue-5"
    HUE_6 = "$hue-6"


HUES = (Style.HUE_1, Style.HUE_2, Style.HUE_3, Style.HUE_4, Style.HUE_5, Style.HUE_6)
"""Styles without a meaning, to distinguish components in the logs or lines of a plot."""


Piece = str | tuple[str, Style]
"""Text, or text with its style."""
Line = Piece | Iterable[Piece]
"""One line of text in pieces."""


def _marks(marks: Mapping[_State, Mark]) -> dict[_State, tuple[str, Style]]:
    return {state: (mark.sign, Style[mark.tone.name]) for state, mark in marks.items()}


MARKS = _marks(HEALTHS)
"""A component's health as its sign and style."""
STEP_MARKS = _marks(STEPS)
STATUS_MARKS = _marks(STATUSES)


def status_line(status: Status) -> Line:
    """A message's status with its sign."""
    return (str(STATUSES[status]), STATUS_MARKS[status][1])


def pieces(line: Line) -> list[tuple[str, Style]]:
    """Return the line as pieces that all have a style."""
    if isinstance(line, str):
        return [(line, Style.PLAIN)]
    if isinstance(line, tuple) and len(line) == 2 and isinstance(line[1], Style):
        return [(str(line[0]), line[1])]
    return [(each, Style.PLAIN) if isinstance(each, str) else (str(each[0]), Style(each[1])) for each in line]


def content(*lines: Line) -> Content:
    """Return these lines as content for a Static."""
    return Content("\n").join(Content.assemble(*((text, str(style)) for text, style in pieces(line))) for line in lines)


class Palette:
    """The styles as Rich styles in the app's current theme, for widgets that draw their own lines."""

    def __init__(self, app: App[object]) -> None:
        variables = app.theme_variables
        self._styles: dict[Style, RichStyle] = {style: _style(style, variables) for style in Style}

    def __getitem__(self, style: Style) -> RichStyle:
        return self._styles[style]


def _style(style: Style, variables: dict[str, str]) -> RichStyle:
    bold = style.startswith("bold ")
    names = [part.removeprefix("$") for part in style.removeprefix("bold ").split(" on ")]
    colours = [Color.parse(variables[name]).rich_color for name in names]
    return RichStyle(color=colours[0], bgcolor=colours[1] if len(colours) > 1 else None, bold=bold)
