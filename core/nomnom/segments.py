"""Segments: many messages stored as one message of the stream, so that they share its costs and its fsync.

The ID of a segment is a UUID of version 8 (RFC 9562) whose last 20 bits are zero. The IDs of its messages have their
index and the number of messages, less one, in these bits. So an ID alone says which segment its message came with, and
how many messages came with it. In every other respect the messages of a segment are messages like all others: each has
its own status, attempts and dead letter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import uuid_utils

MOST = 1000
"""Messages in a segment."""
MOST_BYTES = 256 * 1024
"""Bytes of a segment, unless its only message is larger."""
SEPARATOR = b"\x1e"
"""Between two messages: ASCII's record separator, which a message of a segment must not contain."""
_INDEX = 10
_SIZE_MASK = (1 << _INDEX) - 1
_PLACE = -5
"""Where the index and the size begin in the text of an ID: five hexadecimal digits."""
_KEYED = -6
"""The digit that says by its lowest bit whether the ID comes from an Idempotency-Key."""
_VERSION = 14


def new_segment_id() -> str:
    """The ID of a segment of messages without keys: in the order of time, as a UUIDv7."""
    return _segment_id(str(uuid_utils.uuid7()), keyed=False)


def keyed_segment_id(message_id: str) -> str:
    """The ID of a segment, given an ID that comes from an Idempotency-Key."""
    return _segment_id(message_id, keyed=True)


def _segment_id(text: str, *, keyed: bool) -> str:
    marked = int(text[_KEYED], 16) & ~1 | keyed
    return f"{text[:_VERSION]}8{text[_VERSION + 1 : _KEYED]}{marked:x}00000"


def is_in_segment(message_id: str) -> bool:
    """Whether a canonical message ID is that of a message that came in a segment, or of the segment."""
    return message_id[_VERSION] == "8"


def is_keyed_segment(message_id: str) -> bool:
    """Whether a message came in a segment whose ID comes from an Idempotency-Key."""
    return message_id[_VERSION] == "8" and int(message_id[_KEYED], 16) & 1 == 1


def size_of(message_id: str) -> int:
    """How many messages the segment has that a message came in."""
    return (int(message_id[_PLACE:], 16) & _SIZE_MASK) + 1


def index_of(message_id: str) -> int:
    """The index of a message in its segment, from 0."""
    return int(message_id[_PLACE:], 16) >> _INDEX


def segment_of(message_id: str) -> str:
    """The ID of the segment that a message came in."""
    return f"{message_id[:_PLACE]}00000"


def message_ids(segment_id: str, size: int) -> list[str]:
    """The IDs of the messages of a segment of this size, ascending."""
    if not 0 < size <= MOST:
        raise ValueError(f"a segment has 1 to {MOST} messages, not {size}")
    head = segment_id[:_PLACE]
    return [f"{head}{index << _INDEX | size - 1:05x}" for index in range(size)]


def bounds_of(segment_id: str) -> tuple[str, str]:
    """Bounds for the IDs of a segment's messages, whatever its size."""
    return segment_id, f"{segment_id[:_PLACE]}fffff"


def fits(payload: bytes) -> bool:
    """Whether a message can be in a segment together with others."""
    return SEPARATOR not in payload


def join(payloads: Iterable[bytes]) -> bytes:
    """The content of a segment."""
    return SEPARATOR.join(payloads)


def split_text(content: str) -> Sequence[str]:
    """The messages in the decoded content of a segment."""
    return content.split(SEPARATOR.decode())


def split(content: bytes) -> Sequence[bytes]:
    """The messages in the content of a segment."""
    return content.split(SEPARATOR)
