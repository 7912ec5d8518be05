"""The envelope: a message's identity, its subjects and its NATS headers.

The message ID is a UUIDv7, or a UUIDv5 of the caller and its Idempotency-Key, or follows from that of a segment
(:mod:`nomnom.segments`). It identifies the message in its subject,
its headers and every table. ``received_at`` (microseconds) is set once; dead letters and replays keep it, as they keep
the position, which decides the order of messages (:mod:`nomnom.positions`).
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum

import msgspec
import uuid_utils

from nomnom import segments
from nomnom.errors import NomnomError

INGEST = "messages.ingest"
SEGMENTS = f"{INGEST}.*.*.*"
"""The subjects of segments (:func:`segment_subject`)."""
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
_SEGMENT = SEGMENTS.count(".")
_SIZE = re.compile("[0-9]{1,4}").fullmatch
_TAG = 80
"""Bytes at the beginning of a message that hold its tag."""
_CANONICAL = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").fullmatch

UNKNOWN_ENTITY = "unknown"
"""The entity token in the subject of a message whose first line has no known tag."""
MIXED = "mixed"
"""The entity token in the subject of a segment with messages of several entities."""


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


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """The metadata of a message."""

    message_id: str
    entity: str
    received_at: datetime
    replays: int = 0
    position: int = 0
    """Of the original message; 0 if it is unknown (accepted by an earlier version)."""
    size: int = 0
    """How many messages it stands for if it is that of a segment; 0 if it is that of a message."""


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
    """Whether a canonical message ID comes from a key, so that it repeats if the key does."""
    return message_id[14] == "5" or segments.is_keyed_segment(message_id)


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


def segment_subject(entity: str, segment_id: str, size: int | str = "*") -> str:
    """The subject of a segment: its last token is the number of messages."""
    return f"{INGEST}.{entity}.{segment_id}.{size}"


def common_entity(entities: Collection[str]) -> str:
    """The entity token in the subject of a segment with messages of these entities, each given once."""
    return next(iter(entities)) if len(entities) == 1 else MIXED


def is_segment(subject: str) -> bool:
    """Whether a subject is that of a segment."""
    return subject.startswith(f"{INGEST}.") and subject.count(".") == _SEGMENT


def segment_in(subject: str) -> tuple[str, int]:
    """The ID and the size of the segment with a subject; the size is 1 if the subject is not valid."""
    *_, segment_id, size = subject.split(".")
    return segment_id, int(size) if _SIZE(size) else 1


def pending_subject(message_id: str) -> str:
    """The subject, with wildcards, under which a message is stored until it is processed; a message of a segment with
    the others. A replay has a subject of its own (:func:`ingest_subject`).
    """
    if segments.is_in_segment(message_id):
        return segment_subject("*", segments.segment_of(message_id))
    return ingest_subject("*", message_id)


def pending_subjects(message_id: str) -> tuple[str, ...]:
    """Where a message may be stored until it is processed: first its replay, which has a subject of its own also if the
    message came in a segment, then as in :func:`pending_subject`.
    """
    return tuple(dict.fromkeys((ingest_subject("*", message_id), pending_subject(message_id))))


def dead_subject(entity: str, message_id: str) -> str:
    """The subject of a dead letter."""
    return f"{DEAD}.{entity}.{message_id}"


def from_microseconds(microseconds: int) -> datetime:
    """The exact time; a float of seconds would lose the last digits."""
    return _EPOCH + timedelta(microseconds=microseconds)


def to_microseconds(time: datetime) -> int:
    """The exact number of microseconds since the epoch."""
    return (time - _EPOCH) // timedelta(microseconds=1)


def headers(received_at: int, deduplication_id: str | None = None) -> dict[str, str]:
    """The headers of an ingested message; ``received_at`` in microseconds.

    Only a message with a key can come again: for others JetStream need not remember an ID.
    """
    given = {RECEIVED_AT: str(received_at)}
    return given if deduplication_id is None else given | {MSG_ID: deduplication_id}


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
    count = len(tokens)
    message_id = parse_message_id(tokens[1]) if count == 2 or (count == 3 and prefix == INGEST) else None
    if message_id is None or not subject.startswith(prefix):
        raise EnvelopeError(f"invalid subject {subject!r}: expected {prefix}.<entity>.<message ID>")
    size = 0
    if count == 3:
        size = int(tokens[2]) if _SIZE(tokens[2]) else 0
        if segments.segment_of(message_id) != message_id or not 0 < size <= segments.MOST:
            raise EnvelopeError(f"invalid subject {subject!r}: expected {prefix}.<entity>.<segment ID>.<messages>")
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
    return Envelope(message_id, tokens[0] or UNKNOWN_ENTITY, received_at, replays, position, size)


def open_segment(envelope: Envelope, content: bytes, entity_name: Callable[[str], str]) -> list[tuple[Envelope, bytes]]:
    """The messages of a segment, each with its envelope. ``entity_name`` finds an entity by the beginning of a text.

    Raises EnvelopeError if the content is not that of the segment.
    """
    payloads = segments.split(content) if envelope.size > 1 else [content]
    if len(payloads) != envelope.size:
        raise EnvelopeError(f"segment {envelope.message_id} has {len(payloads):,} messages; expected {envelope.size:,}")
    received_at, position = envelope.received_at, envelope.position
    ids = segments.message_ids(envelope.message_id, envelope.size)
    if envelope.entity != MIXED:
        entities = [envelope.entity] * envelope.size
    else:
        entities = [entity_name(payload[:_TAG].decode(errors="replace")) for payload in payloads]
    return [
        (Envelope(message_id, entity, received_at, 0, position), payload)
        for message_id, entity, payload in zip(ids, entities, payloads, strict=True)
    ]


def open_message(
    subject: str,
    headers: Mapping[str, str] | None,
    content: bytes,
    position: int,
    entity_name: Callable[[str], str],
) -> list[tuple[Envelope, bytes]] | None:
    """What is stored as one message of the stream: itself, or those of a segment; None if its envelope is invalid."""
    try:
        envelope = read_envelope(subject, headers, INGEST, position)
        return open_segment(envelope, content, entity_name) if envelope.size else [(envelope, content)]
    except EnvelopeError:
        return None


def find_in_segment(
    envelope: Envelope, content: bytes, message_id: str, entity_name: Callable[[str], str]
) -> tuple[Envelope, bytes]:
    """The envelope and the content of one message of a segment. Raises EnvelopeError if it is not in it."""
    opened = open_segment(envelope, content, entity_name)
    index = segments.index_of(message_id)
    if index >= len(opened) or opened[index][0].message_id != message_id:
        raise EnvelopeError(f"segment {envelope.message_id} has no message {message_id}")
    return opened[index]


def replacement_envelope(subject: str, stored_at: datetime, position: int) -> Envelope:
    """An envelope for a message in the stream with an invalid one: the same each time it is read."""
    tokens = subject.split(".")
    named = len(tokens) == 4
    entity = tokens[2] if named and tokens[2] else UNKNOWN_ENTITY
    message_id = parse_message_id(tokens[3]) if named else None
    return Envelope(message_id or copy_id(position), entity, stored_at, position=position)
