"""Numbers, sizes, times and durations as people read them: one way for every command and screen."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

NOTHING = "-"


class Property(NamedTuple):
    """One line of a description: its group (``Configuration``, ``State``…), its label and its value as text."""

    group: str
    label: str
    value: str


def count(number: int | None) -> str:
    """1234567 → ``1,234,567``."""
    return NOTHING if number is None else f"{number:,}"


def limit(number: int | None) -> str:
    """A limit, of which 0 and -1 mean none."""
    return "unlimited" if number is None or number <= 0 else f"{number:,}"


def size(number: int | None) -> str:
    """Bytes, in the binary units that nats uses."""
    if number is None:
        return NOTHING
    value = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{number} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def size_limit(number: int | None) -> str:
    """A limit in bytes, of which 0 and -1 mean none."""
    return "unlimited" if number is None or number <= 0 else size(number)


def duration(seconds: float | None) -> str:
    """Seconds as the two largest units: ``2d 3h``, ``4m 5s``, ``12.5s``, ``300ms``."""
    if seconds is None:
        return NOTHING
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms" if seconds else "0s"
    if seconds < 60:
        return f"{seconds:.3g}s"
    parts: list[str] = []
    rest = int(seconds)
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        value, rest = divmod(rest, length)
        if value:
            parts.append(f"{value}{unit}")
    return " ".join(parts[:2])


def moment(at: datetime | None) -> str:
    """A time in the local zone, to the second."""
    return NOTHING if at is None else at.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def age(at: datetime | None) -> str:
    """How long ago."""
    return NOTHING if at is None else duration(max(0.0, (datetime.now(UTC) - at).total_seconds()))


def yes(value: bool | None) -> str:
    """``yes`` or ``no``."""
    return "yes" if value else "no"
