"""Who a message is and when it came: ids, and a clock that never gives a moment twice."""

from __future__ import annotations

import time
from functools import lru_cache

from nomnom.envelope import from_microseconds
from nomnom_api.errors import InvalidKeyError

_LONGEST = 255
_PRINTABLE = frozenset(range(0x20, 0x7F))


class Clock:
    """Microseconds since the epoch, each later than the one before.

    Of two records of one key the one received later wins: of two lines of a batch, the later line.
    """

    def __init__(self) -> None:
        self._last = 0

    def now(self) -> int:
        """The moment, in microseconds."""
        moment = time.time_ns() // 1000
        if moment <= self._last:
            moment = self._last + 1
        self._last = moment
        return moment


def timestamp(microseconds: int) -> str:
    """The moment in ISO 8601, UTC, always with six digits after the second."""
    seconds, fraction = divmod(microseconds, 1_000_000)
    return f"{_second(seconds)}.{fraction:06}Z"


@lru_cache(maxsize=8)
def _second(seconds: int) -> str:
    return from_microseconds(seconds * 1_000_000).replace(tzinfo=None).isoformat()


def idempotency_key(value: bytes) -> str:
    """The Idempotency-Key of a header; raises InvalidKeyError. What it says is the caller's: quotes are part of it."""
    if not value or len(value) > _LONGEST or not _PRINTABLE.issuperset(value):
        raise InvalidKeyError(
            f"expected 1 to {_LONGEST} printable ASCII characters in Idempotency-Key, found {len(value):,} bytes"
            + ("" if _PRINTABLE.issuperset(value) else " with others among them")
        )
    return value.decode("ascii")


def line_key(key: str, line: int) -> str:
    """The key of a batch's line. A header holds no line break, so this is no message's own key."""
    return f"{key}\n{line}"
