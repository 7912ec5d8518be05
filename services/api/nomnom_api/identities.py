"""Timestamps and idempotency keys of messages."""

from __future__ import annotations

import time
from functools import lru_cache

from nomnom.envelope import from_microseconds
from nomnom_api.errors import InvalidKeyError

_MAX_LENGTH = 255
_PRINTABLE = frozenset(range(0x20, 0x7F))


class Clock:
    """Strictly increasing microseconds since the epoch, so that lists by time have the lines of a batch in their order.

    They do not decide which record wins: the order of the stream does.
    """

    def __init__(self) -> None:
        self._last = 0

    def now(self) -> int:
        """The current time in microseconds, later than any returned before."""
        now = time.time_ns() // 1000
        if now <= self._last:
            now = self._last + 1
        self._last = now
        return now


def timestamp(microseconds: int) -> str:
    """The time in ISO 8601, in UTC, always with six fractional digits."""
    seconds, fraction = divmod(microseconds, 1_000_000)
    return f"{_second(seconds)}.{fraction:06}Z"


@lru_cache(maxsize=8)
def _second(seconds: int) -> str:
    return from_microseconds(seconds * 1_000_000).replace(tzinfo=None).isoformat()


def idempotency_key(value: bytes) -> str:
    """The key in an Idempotency-Key header, quotes included; raises InvalidKeyError."""
    if not value or len(value) > _MAX_LENGTH or not _PRINTABLE.issuperset(value):
        raise InvalidKeyError(
            f"expected 1 to {_MAX_LENGTH} printable ASCII characters in Idempotency-Key, found {len(value):,} bytes"
            + ("" if _PRINTABLE.issuperset(value) else ", some of them not printable ASCII")
        )
    return value.decode("ascii")


def line_key(key: str, line: int) -> str:
    """The key of a line of a batch. Headers contain no line breaks, so it cannot collide with the key of a message."""
    return f"{key}\n{line}"
