"""A series as one line of bars."""

from __future__ import annotations

from collections.abc import Sequence

_BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int, highest: float | None = None) -> str:
    """The last ``width`` values as bars, the newest at the right; blanks stand for values that do not exist yet."""
    shown = list(values[-width:])
    top = highest if highest is not None else max(shown, default=0.0)
    if top <= 0:
        return ("▁" * len(shown)).rjust(width)
    last = len(_BARS) - 1
    return "".join(_BARS[min(last, max(0, round(value / top * last)))] for value in shown).rjust(width)
