"""A plot of the last minutes. Imports plotext, which is slow: import this module inside functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, log10

from rich.style import Style as RichStyle
from rich.text import Span, Text
from textual.app import RenderResult
from textual.color import Color
from textual.content import Content
from textual.geometry import Size
from textual_plotext import PlotextPlot

from nomnom.presentation import figures
from nomnom_tui.text.styles import Line, Style, content

BRAILLE = "braille"
_HOLD_SECONDS = 5.0
"""Seconds for which a value is drawn without a newer sample."""


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a plot: its name, its points as (seconds ago, value), its style, and its axis."""

    name: str
    points: Sequence[tuple[float, float]]
    style: Style
    marker: str = BRAILLE
    """``braille`` for a fine line, or the character to draw with: lines differ in shape, not only in colour."""
    right: bool = False

    @property
    def symbol(self) -> str:
        """The symbol of the line in the legend."""
        return "⣀⡠⠔" if self.marker == BRAILLE else self.marker * 3


SPANS = (60.0, 120.0, 300.0, 600.0)
"""Time spans of a plot in seconds; the shortest that covers all points is used."""


class TimePlot(PlotextPlot):
    """Lines over the last minutes, with now at the right edge and both axes starting at zero."""

    DEFAULT_CSS = """
    TimePlot { height: 1fr; min-height: 5; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.span = SPANS[0]
        self._series: Sequence[Series] = ()
        self._plotted_for: Size | None = None

    def show(self, series: Sequence[Series]) -> None:
        """Show these lines."""
        self._series = series
        longest = max((ago for each in series for ago, _ in each.points), default=0.0)
        self.span = next((span for span in SPANS if span >= longest), SPANS[-1])
        self._plot_series()
        self.refresh()

    def render(self) -> RenderResult:
        """Render the plot; its ticks depend on the size."""
        if self._plotted_for != self.size:
            self._plot_series()
        drawn = super().render()
        if isinstance(drawn, Text):
            self._mute_axes(drawn)
        return drawn

    def _mute_axes(self, drawn: Text) -> None:
        """Mute the axes, which textual-plotext draws in the text colour."""
        foreground = Color.parse(self.app.theme_variables["foreground"]).rgb
        muted = RichStyle(color=Color.parse(self.app.theme_variables["muted"]).rich_color)
        for at, span in enumerate(drawn.spans):
            style = span.style
            if not isinstance(style, RichStyle) or style.color is None or style.color.triplet is None:
                continue
            if tuple(style.color.triplet) == foreground:
                drawn.spans[at] = Span(span.start, span.end, style + muted)

    def legend(self) -> Line:
        """Return the names and symbols of the lines."""
        line: list[tuple[str, Style]] = []
        for each in self._series:
            line += [
                (f"{each.symbol} ", each.style),
                (each.name, Style.PLAIN),
                (" (right)   " if each.right else "   ", Style.MUTED),
            ]
        return line

    def legend_content(self) -> Content:
        """Return the legend as content for a Static."""
        return content(self.legend())

    def _plot_series(self) -> None:
        self._plotted_for = self.size
        plot = self.plt
        plot.clear_figure()
        plot.xaxes(True, False)
        plot.yaxes(True, any(each.right for each in self._series))
        for side in ("left", "right"):
            lines = [each for each in self._series if each.right == (side == "right")]
            if not lines:
                continue
            highest = max((value for each in lines for _, value in each.points), default=0.0)
            top, ticks = _scale(highest, max(1, self.size.height // 4))
            # plotext's annotations do not allow the axis names.
            plot.ylim(0, top, yside=side)  # pyright: ignore[reportArgumentType]
            plot.yticks(ticks, [figures.short_count(tick) for tick in ticks], yside=side)  # pyright: ignore[reportArgumentType]
            for each in lines:
                points = [(-ago, value) for ago, value in each.points if ago <= self.span]
                if each.marker != BRAILLE:
                    points = _hold_values(points, self.span / max(1, self.size.width))
                if points:
                    xs, ys = zip(*points, strict=True)
                    # Braille lines join their points; character lines hold each value, or steps would become bars.
                    draw = plot.plot if each.marker == BRAILLE else plot.scatter
                    draw(list(xs), list(ys), marker=each.marker, color=self._colour(each.style), yside=side)
        plot.xlim(-self.span, 0)
        count = next(steps for steps in (10, 5, 2) if steps * 14 <= self.size.width or steps == 2)
        steps = [-self.span * at / count for at in range(count, -1, -1)]
        plot.xticks(steps, [_ago(-step) for step in steps])

    def _colour(self, style: Style) -> tuple[int, int, int]:
        return Color.parse(self.app.theme_variables[style.rpartition("$")[2]]).rgb


def _hold_values(points: list[tuple[float, float]], step: float) -> list[tuple[float, float]]:
    """Fill the gaps between points: a value holds until the next one, at most _HOLD_SECONDS."""
    filled: list[tuple[float, float]] = []
    for (at, value), (after, _) in pairwise([*points, (0.0, 0.0)]):
        until = min(after, at + _HOLD_SECONDS)
        filled += [(at + number * step, value) for number in range(max(1, ceil((until - at) / step)))]
    return filled


def _ago(seconds: float) -> str:
    return "now" if seconds < 1 else f"-{figures.duration(seconds)}"


def _scale(highest: float, tick_count: int) -> tuple[float, list[float]]:
    """Return the maximum of the axis and its ticks: steps of 1, 2 or 5 times a power of ten."""
    highest = max(highest, 1.0)
    rough = highest / max(1, tick_count)
    power = 10.0 ** ceil(log10(rough) - 1)
    step = next((factor * power for factor in (1, 2, 5, 10) if factor * power >= rough), 10 * power)
    step = max(1.0, step)
    count = ceil(highest / step)
    return count * step, [at * step for at in range(count + 1)]
