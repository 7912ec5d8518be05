"""A small column chart with one column per value.

plotext, which draws the time plots, draws bars of whole characters: in a chart a few lines high, small values vanish.
"""

from __future__ import annotations

from collections.abc import Sequence

from nomnom.presentation import figures
from nomnom_tui.text.styles import Line, Style

_EIGHTHS = " ▁▂▃▄▅▆▇█"
_AXIS = 6


def column_chart(values: Sequence[int], labels: Sequence[str], height: int, room: int, style: Style) -> list[Line]:
    """Return the chart's lines with the maximum at the left and the labels below. Values above 0 are always visible."""
    if not values:
        return []
    width = max(1, min(8, (room - _AXIS - 1) // len(values)))
    gap = 1 if width > 1 else 0
    top = max(values)
    # In eighths of a line; at least one for any value above 0.
    levels = [0 if not each else max(1, round(each / top * height * 8)) for each in values]
    lines: list[Line] = []
    for row in range(height, 0, -1):
        bars = "".join(_EIGHTHS[max(0, min(8, level - (row - 1) * 8))] * (width - gap) + " " * gap for level in levels)
        scale = figures.short_count(top) if row == height else ""
        lines.append([(f"{scale:>{_AXIS - 1}} ", Style.MUTED), (bars, style)])
    axis = [" "] * (width * len(values) + _AXIS)
    free = 0
    for at, label in enumerate(labels):
        start = at * width
        if label and start >= free and start + len(label) <= len(axis):
            axis[start : start + len(label)] = label
            free = start + len(label) + 1
    lines.append([(" " * _AXIS + "".join(axis).rstrip(), Style.MUTED)])
    return lines
