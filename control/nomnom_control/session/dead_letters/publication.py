"""What the operations on dead letters have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import TypeVar

from nomnom.envelope import MSG_ID
from nomnom.inspection.jetstream.messages import StoredMessage

T = TypeVar("T")

CHUNK = 64
"""Default number of dead letters in flight."""


async def all_of(work: Iterable[Awaitable[T]]) -> list[T | Exception]:
    """Results or exceptions, in order."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for each in results:
        if isinstance(each, BaseException) and not isinstance(each, Exception):
            raise each
    return [each for each in results if not isinstance(each, BaseException) or isinstance(each, Exception)]


def dead_letter_headers(message: StoredMessage) -> dict[str, str]:
    """The headers of a dead letter without its deduplication id, which belongs to the stored copy."""
    return {name: value for name, value in message.headers.items() if name != MSG_ID and name.startswith("Nomnom-")}
