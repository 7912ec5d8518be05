"""The envelope: a message's identity, its subjects and its NATS headers.

The message ID is a UUIDv7, or a UUIDv5 of the caller and its Idempotency-Key. It identifies the message in its subject,
its headers and every table. ``received_at`` (microseconds) is set once; dead letters and replays keep it, as they keep
the position, which decides the order of messages (:mod:`nomnom.positions`).
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

import uuid_utils

from nomnom.errors import NomnomError

INGEST = "messages.ingest"
DEAD = "messages.dlq"

MSG_ID = "Nats-Msg-Id"
"""JetStream's deduplication header."""
RECEIVED_AT = "Nomnom-Received-At"
"""Microseconds since the epoch at which the API accepted the message."""
REPLAYS = "Nomnom-Replays"
"""How many times the message was replayed from the dead letters; absent if never."""
POSITION = "Nomnom-Position"
"""The position of a dead letter's or replay's original message; absent from originals and if it is unknown."""
REASON = "Nomnom-Reason"
ERROR = "Nomnom-Error"
ATTEMPTS = "Nomnom-Attempts"
FAILED_AT = "Nomnom-Failed-At"
"""Microseconds since the epoch at which the message became a dead letter."""

_NAMESPACE = uuid.UUID("5b0f6f3c-6a59-5c0e-9f44-3c1d3f0a7e11")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ERROR_LENGTH = 2000
_CANONICAL = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").fullmatch

UNKNOWN_ENTITY = "unknown"
"""The entity token in the subject of a message whose first line has no known tag."""


class EnvelopeError(NomnomError):
    """A message with an invalid subject or invalid headers."""


class Status(StrEnum):
    """The status of a message. ``failed`` will be retried; ``dlq`` awaits review as a dead letter.

    The last three are final: an operator deleted the dead letter or purged the message from the stream, or the
    retention of the dead letter ended.
    """

    ACCEPTED = "accepted"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    DLQ = "dlq"
    DELETED = "deleted"
    PURGED = "purged"
    EXPIRED = "expired"


REMOVED = frozenset({Status.DELETED, Status.PURGED, Status.EXPIRED})
"""The statuses of messages that are stored nowhere any more and were not completed."""


class Reason(StrEnum):
    """The reason why a message is a dead letter."""

    RECORD = "record"
    """It does not match the schema."""
    DATA = "data"
    """PostgreSQL rejected its values."""
    UNANSWERED = "unanswered"
    """It was redelivered too often without being acknowledged: it appears to crash workers (poison message)."""
    ENVELOPE = "envelope"
    """Its subject or headers are invalid."""
    KEY_CONFLICT = "key conflict"
    """Its Idempotency-Key was used before, with another content."""
    EXPIRED = "expired"
    """No worker processed it in time (NATS_MAX_AGE)."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """The metadata of a message."""

    message_id: str
    entity: str
    received_at: datetime
    replays: int = 0
    position: int = 0
    """Of the original message; 0 if it is unknown (accepted by an earlier version)."""


def new_message_id() -> str:
    """A new UUIDv7."""
    return str(uuid_utils.uuid7())


def idempotent_message_id(caller: str, key: str) -> str:
    """The message ID for an idempotency key: the same for every request of this caller with this key."""
    # The length distinguishes ("a", "b c") from ("a b", "c").
    return str(uuid.uuid5(_NAMESPACE, f"{len(caller)} {caller} {key}"))


def copy_id(position: int) -> str:
    """The message ID for a copy in the stream that cannot have the one it carries: the same for each delivery."""
    return str(uuid.uuid5(_NAMESPACE, f"position {position}"))


def is_keyed(message_id: str) -> bool:
    """Whether a canonical message ID comes from a key: a UUIDv5, which repeats if the key does."""
    return message_id[14] == "5"


def digest_of(payload: bytes) -> str:
    """The digest by which contents of one key are compared: half of SHA-256, in hexadecimal."""
    return hashlib.sha256(payload).hexdigest()[:32]


def parse_message_id(text: str) -> str | None:
    """The canonical form of a message ID, or None if the text is not a UUID."""
    if _CANONICAL(text):  # the usual case; uuid.UUID takes ten times as long
        return text
    try:
        return str(uuid.UUID(text)) if len(text) in (32, 36) else None
    except ValueError:
        return None


def ingest_subject(entity: str, message_id: str) -> str:
    """The subject of an ingested message."""
    return f"{INGEST}.{entity}.{message_id}"


def dead_subject(entity: str, message_id: str) -> str:
    """The subject of a dead letter."""
    return f"{DEAD}.{entity}.{message_id}"


def from_microseconds(microseconds: int) -> datetime:
    """The exact time; a float of seconds would lose the last digits."""
    return _EPOCH + timedelta(microseconds=microseconds)


def to_microseconds(time: datetime) -> int:
    """The exact number of microseconds since the epoch."""
    return (time - _EPOCH) // timedelta(microseconds=1)


def headers(message_id: str, received_at: int) -> dict[str, str]:
    """The headers of an ingested message; ``received_at`` in microseconds."""
    return {MSG_ID: message_id, RECEIVED_AT: str(received_at)}


def replay_headers(envelope: Envelope, payload: bytes) -> dict[str, str]:
    """The headers of a replay: an incremented replay count and a new deduplication ID.

    The deduplication ID is derived from the dead letter and the payload: JetStream drops a repeated replay, but not one
    with an edited payload.
    """
    replays = envelope.replays + 1
    digest = hashlib.sha256(payload).hexdigest()[:16]
    return {
        MSG_ID: f"{envelope.message_id}.{replays}.{digest}",
        RECEIVED_AT: str(to_microseconds(envelope.received_at)),
        REPLAYS: str(replays),
        **_position_header(envelope),
    }


def dead_headers(envelope: Envelope, reason: Reason, error: str, attempts: int, failed_at: datetime) -> dict[str, str]:
    """The headers of a dead letter. The deduplication ID allows one dead letter per message and replay."""
    return {
        MSG_ID: f"{envelope.message_id}.{envelope.replays}.dead",
        RECEIVED_AT: str(to_microseconds(envelope.received_at)),
        REPLAYS: str(envelope.replays),
        **_position_header(envelope),
        REASON: reason.value,
        ERROR: header_text(error),
        ATTEMPTS: str(attempts),
        FAILED_AT: str(to_microseconds(failed_at)),
    }


def _position_header(envelope: Envelope) -> dict[str, str]:
    return {POSITION: str(envelope.position)} if envelope.position else {}


def header_text(text: str) -> str:
    """The text as a safe header value: printable, on one line and of limited length."""
    line = " ".join(text.split())
    line = "".join(character if character.isprintable() else "�" for character in line)
    return line if len(line) <= _ERROR_LENGTH else line[: _ERROR_LENGTH - 1] + "…"


def read_envelope(subject: str, headers: Mapping[str, str] | None, prefix: str = INGEST, position: int = 0) -> Envelope:
    """Parse the envelope of a stored message; raises EnvelopeError if subject or headers are invalid.

    ``position`` is where the message is stored: an original message has no other.
    """
    tokens = subject.removeprefix(f"{prefix}.").split(".")
    message_id = parse_message_id(tokens[1]) if len(tokens) == 2 else None
    if message_id is None or not subject.startswith(prefix):
        raise EnvelopeError(f"invalid subject {subject!r}: expected {prefix}.<entity>.<message ID>")
    given = headers or {}
    try:
        received_at = from_microseconds(int(given[RECEIVED_AT]))
        replays = int(given.get(REPLAYS, "0"))
        if replays or prefix == DEAD:
            position = int(given.get(POSITION, "0"))
    except (KeyError, ValueError, OverflowError) as error:
        raise EnvelopeError(
            f"missing or invalid header {RECEIVED_AT}, {REPLAYS} or {POSITION} of {subject!r}: {error}"
        ) from error
    # The ranges of PostgreSQL's integer and bigint.
    if not 0 <= replays < 2**31:
        raise EnvelopeError(f"invalid header {REPLAYS} of {subject!r}: {replays} is out of range")
    if not 0 <= position < 2**63:
        raise EnvelopeError(f"invalid header {POSITION} of {subject!r}: {position} is out of range")
    return Envelope(message_id, tokens[0] or UNKNOWN_ENTITY, received_at, replays, position)


def replacement_envelope(subject: str, stored_at: datetime, position: int) -> Envelope:
    """An envelope for a message in the stream with an invalid one: the same each time it is read."""
    tokens = subject.split(".")
    named = len(tokens) == 4
    entity = tokens[2] if named and tokens[2] else UNKNOWN_ENTITY
    message_id = parse_message_id(tokens[3]) if named else None
    return Envelope(message_id or copy_id(position), entity, stored_at, position=position)
