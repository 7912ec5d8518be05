"""Numbers, times and sizes as people read them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

NONE = "–"
"""What stands where there is no value."""

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_BARS = "▁▂▃▄▅▆▇█"


def count(number: int | None) -> str:
    """A whole number with its thousands apart."""
    return NONE if number is None else f"{number:,}"


def short_count(number: float | None) -> str:
    """A number in at most five characters: 950, 1.2k, 34k, 5.6M."""
    if number is None:
        return NONE
    scaled = float(number)
    for unit in ("", "k", "M", "G", "T"):
        if abs(scaled) < 999.5:
            return f"{scaled:.1f}{unit}" if unit and abs(scaled) < 9.95 else f"{scaled:.0f}{unit}"
        scaled /= 1000
    return f"{scaled:.0f}P"


def rate(per_second: float | None) -> str:
    """So many a second."""
    if per_second is None:
        return NONE
    return f"{per_second:,.1f}/s" if 0 < per_second < 10 else f"{per_second:,.0f}/s"


def size(number: float | None) -> str:
    """Bytes in binary units."""
    if number is None:
        return NONE
    for unit in _UNITS[:-1]:
        if abs(number) < 1024:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} {_UNITS[-1]}"


def duration(seconds: float | None) -> str:
    """A length of time in its two largest units."""
    if seconds is None:
        return NONE
    seconds = max(0.0, seconds)
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s".replace(".0 ", " ")
    if seconds < 60:
        return f"{seconds:.0f} s"
    whole = int(seconds)
    for large, small, unit, below in ((60, 1, "m", "s"), (3600, 60, "h", "m"), (86400, 3600, "d", "h")):
        if whole < large * (60 if large < 3600 else 24) or large == 86400:
            rest = whole % large // small
            return f"{whole // large}{unit} {rest}{below}" if rest else f"{whole // large}{unit}"
    return NONE


def present() -> datetime:
    """The present moment, for everything on the screen that is relative to it."""
    return datetime.now(UTC)


def age(moment: datetime | None) -> str:
    """How long ago a moment was."""
    return NONE if moment is None else duration((present() - moment).total_seconds())


def clock(moment: datetime | None, *, fractions: bool = False) -> str:
    """The local time of day."""
    if moment is None:
        return NONE
    local = moment.astimezone()
    return local.strftime("%H:%M:%S") + (f".{local.microsecond // 1000:03d}" if fractions else "")


def moment(at: datetime | None) -> str:
    """The local date and time."""
    return NONE if at is None else at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def sparkline(values: Sequence[float], width: int, highest: float | None = None) -> str:
    """The last values as one line of bars, newest right; an empty place where there was no value yet."""
    shown = list(values[-width:])
    top = highest if highest is not None else max(shown, default=0.0)
    if top <= 0:
        return ("▁" * len(shown)).rjust(width)
    last = len(_BARS) - 1
    return "".join(_BARS[min(last, max(0, round(value / top * last)))] for value in shown).rjust(width)
