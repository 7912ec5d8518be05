"""Numbers, sizes, durations and times as text.

The page has the same functions (``web/src/format.ts``); both are tested with one table of cases. Rounding is therefore
spelled out here: halves round up.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import NamedTuple

NONE = "–"
"""Shown for a missing value."""
UNLIMITED = "unlimited"
SIZE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
SHORT_UNITS = ("k", "M", "G", "T", "P")
DURATION_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


class Property(NamedTuple):
    """One line of a description: its group (``Configuration``, ``State``…), its label and its value as text."""

    group: str
    label: str
    value: str


def count(number: int | None) -> str:
    """1234567 → ``1,234,567``."""
    return NONE if number is None else f"{number:,}"


def approximate_count(number: int, *, exact: bool) -> str:
    """A count; with ``≈`` if it is an estimate."""
    return f"{number:,}" if exact else f"≈ {number:,}"


def counted(number: int, singular: str) -> str:
    """A count with its noun: ``1 attempt``, ``3 attempts``."""
    return f"{number:,} {singular}{'' if number == 1 else 's'}"


def short_count(number: float | None) -> str:
    """A number in at most five characters: ``950``, ``1,234``, ``34k``, ``5.6M``."""
    if number is None:
        return NONE
    if number < 9999.5:
        return f"{_rounded(number):,}"
    scaled, unit = number / 1000, 0
    while scaled >= 999.5 and unit < len(SHORT_UNITS) - 1:
        scaled, unit = scaled / 1000, unit + 1
    return (_tenths(scaled) if scaled < 9.95 else f"{_rounded(scaled)}") + SHORT_UNITS[unit]


def rate(per_second: float | None) -> str:
    """A number per second: ``0/s``, ``3.2/s``, ``15,400/s``; ``<0.1/s`` for less than can be shown."""
    if per_second is None:
        return NONE
    if 0 < per_second < 0.05:
        return "<0.1/s"
    return f"{_tenths(per_second) if 0 < per_second < 9.95 else f'{_rounded(per_second):,}'}/s"


def size(number: float | None) -> str:
    """Bytes in binary units: ``512 B``, ``1.5 KiB``, ``240 MiB``."""
    if number is None:
        return NONE
    scaled, unit = float(number), 0
    while scaled >= 1023.5 and unit < len(SIZE_UNITS) - 1:
        scaled, unit = scaled / 1024, unit + 1
    return f"{_tenths(scaled) if unit and scaled < 99.95 else _rounded(scaled)} {SIZE_UNITS[unit]}"


def limit(number: int | None) -> str:
    """A limit; 0, -1 and a missing one mean that there is none."""
    return UNLIMITED if number is None or number <= 0 else f"{number:,}"


def size_limit(number: int | None) -> str:
    """A limit in bytes; 0, -1 and a missing one mean that there is none."""
    return UNLIMITED if number is None or number <= 0 else size(number)


def duration(seconds: float | None) -> str:
    """Seconds in their one or two largest units: ``2d 3h``, ``4m 5s``, ``12.5s``, ``300ms``, ``0.4ms``."""
    if seconds is None:
        return NONE
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 0.00995:
        short = _tenths(seconds * 1000).removesuffix(".0")
        return "0s" if short == "0" else f"{short}ms"
    if seconds < 0.9995:
        return f"{_rounded(seconds * 1000)}ms"
    if seconds < 59.95:
        return _tenths(seconds).removesuffix(".0") + "s"
    whole = _rounded(seconds)
    at = next(at for at, (_, length) in enumerate(DURATION_UNITS) if whole >= length)
    large, small = DURATION_UNITS[at : at + 2]
    rest = whole % large[1] // small[1]
    return f"{whole // large[1]}{large[0]}" + (f" {rest}{small[0]}" if rest else "")


def present() -> datetime:
    """The current time, for all that is shown relative to it."""
    return datetime.now(UTC)


def age(moment: datetime | None) -> str:
    """The time since a moment, in whole seconds; 0 for one in the future."""
    return NONE if moment is None else duration(max(0, math.floor((present() - moment).total_seconds())))


def ago(moment: datetime | None) -> str:
    """The age of a moment as ``2m 5s ago``, or ``now``."""
    passed = age(moment)
    return passed if moment is None else "now" if passed == "0s" else f"{passed} ago"


def clock(moment: datetime | None, *, fractions: bool = False) -> str:
    """The local time of day, optionally with milliseconds."""
    if moment is None:
        return NONE
    local = moment.astimezone()
    return local.strftime("%H:%M:%S") + (f".{local.microsecond // 1000:03d}" if fractions else "")


def moment(at: datetime | None, *, zone: bool = False) -> str:
    """The local date and time, optionally with the name of the time zone."""
    return NONE if at is None else at.astimezone().strftime("%Y-%m-%d %H:%M:%S" + (" %Z" if zone else ""))


def when(at: datetime | None) -> str:
    """A moment with its time zone and its age."""
    return NONE if at is None else f"{moment(at, zone=True)} ({ago(at)})"


def yes(value: bool | None) -> str:
    """``yes`` or ``no``."""
    return "yes" if value else "no"


def _rounded(number: float) -> int:
    return math.floor(number + 0.5)


def _tenths(number: float) -> str:
    tenths = math.floor(number * 10 + 0.5)
    return f"{tenths // 10}.{tenths % 10}"
