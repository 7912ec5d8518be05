"""A small chart of columns: one for each hour, as high as its value.

plotext (which the plots over time use) draws bars of whole characters; eight lines high, that shows nothing of small
values.
"""

from __future__ import annotations

from collections.abc import Sequence

from nomnom.presentation import figures
from nomnom_tui.text.styles import Line, Style

_EIGHTHS = " ▁▂▃▄▅▆▇█"
_AXIS = 6


def column_chart(values: Sequence[int], labels: Sequence[str], height: int, room: int, style: Style) -> list[Line]:
    """The chart's lines, its highest value left of them, the labels below where they fit. What is not 0 is seen."""
    if not values:
        return []
    width = max(1, min(8, (room - _AXIS - 1) // len(values)))
    gap = 1 if width > 1 else 0
    top = max(values)
    # Eighths of a line; one at least where there is anything.
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
