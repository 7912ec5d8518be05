"""The envelope: a message's identity, its subjects and its NATS headers.

Identity: a UUIDv7, or the UUIDv5 of a caller's Idempotency-Key and who the caller is. It names the message on its
subject, in its headers and in every table; ``received_at`` (microseconds) is set once and kept by a dead letter and its
replay.
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
from nomnom.schema import UNKNOWN

INGEST = "messages.ingest"
DEAD = "messages.dlq"

MSG_ID = "Nats-Msg-Id"
"""JetStream's deduplication header."""
RECEIVED_AT = "Nomnom-Received-At"
"""Microseconds since the epoch, as the api set it."""
REPLAYS = "Nomnom-Replays"
"""How many times this message has been replayed from the dead letters; absent means never."""
REASON = "Nomnom-Reason"
ERROR = "Nomnom-Error"
ATTEMPTS = "Nomnom-Attempts"
FAILED_AT = "Nomnom-Failed-At"
"""Microseconds since the epoch at which the worker gave up."""

_NAMESPACE = uuid.UUID("5b0f6f3c-6a59-5c0e-9f44-3c1d3f0a7e11")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ERROR_LENGTH = 2000
_CANONICAL = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").fullmatch


class EnvelopeError(NomnomError):
    """A message in a stream whose subject or headers are not nomnom's."""


class Status(StrEnum):
    """Where a message is. ``failed`` will be retried; ``dlq`` waits for a person."""

    ACCEPTED = "accepted"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    DLQ = "dlq"


class Reason(StrEnum):
    """Why a message is a dead letter."""

    RECORD = "record"
    """It does not follow the grammar of its schema."""
    DATA = "data"
    """PostgreSQL refused its values."""
    UNANSWERED = "unanswered"
    """It was delivered too often without an answer: it seems to end the workers that take it."""
    ENVELOPE = "envelope"
    """Its subject or headers are not nomnom's."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """What a message carries beside its payload."""

    message_id: str
    entity: str
    received_at: datetime
    replays: int = 0


def new_message_id() -> str:
    """A fresh UUIDv7."""
    return str(uuid_utils.uuid7())


def idempotent_message_id(caller: str, key: str) -> str:
    """The id that every repeat of ``key`` by the same caller gets."""
    # The length keeps ("a", "b c") and ("a b", "c") apart.
    return str(uuid.uuid5(_NAMESPACE, f"{len(caller)} {caller} {key}"))


def parse_message_id(text: str) -> str | None:
    """The canonical form of a message id, or None where the text is not a UUID."""
    if _CANONICAL(text):  # nearly all: uuid.UUID costs a worker ten times as much
        return text
    try:
        return str(uuid.UUID(text)) if len(text) in (32, 36) else None
    except ValueError:
        return None


def ingest_subject(entity: str, message_id: str) -> str:
    """The subject of a message on its way in."""
    return f"{INGEST}.{entity}.{message_id}"


def dead_subject(entity: str, message_id: str) -> str:
    """The subject of a dead letter."""
    return f"{DEAD}.{entity}.{message_id}"


def from_microseconds(microseconds: int) -> datetime:
    """The moment, exact (a float of seconds would lose the last digits)."""
    return _EPOCH + timedelta(microseconds=microseconds)


def to_microseconds(moment: datetime) -> int:
    """Microseconds since the epoch, exact."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def headers(message_id: str, received_at: int) -> dict[str, str]:
    """The headers of a message that the api publishes; ``received_at`` in microseconds."""
    return {MSG_ID: message_id, RECEIVED_AT: str(received_at)}


def replay_headers(envelope: Envelope, payload: bytes) -> dict[str, str]:
    """The headers of a dead letter's replay: one replay more, and a new deduplication id.

    The id follows from the letter and the payload, so publishing the same replay again is caught as a repeat, and an
    edited payload is not.
    """
    replays = envelope.replays + 1
    digest = hashlib.sha256(payload).hexdigest()[:16]
    return {
        MSG_ID: f"{envelope.message_id}.{replays}.{digest}",
        RECEIVED_AT: str(to_microseconds(envelope.received_at)),
        REPLAYS: str(replays),
    }


def dead_headers(envelope: Envelope, reason: Reason, error: str, attempts: int, failed_at: datetime) -> dict[str, str]:
    """The headers of a dead letter. Its deduplication id names the message and its replay generation."""
    return {
        MSG_ID: f"{envelope.message_id}.{envelope.replays}.dead",
        RECEIVED_AT: str(to_microseconds(envelope.received_at)),
        REPLAYS: str(envelope.replays),
        REASON: reason.value,
        ERROR: header_text(error),
        ATTEMPTS: str(attempts),
        FAILED_AT: str(to_microseconds(failed_at)),
    }


def header_text(text: str) -> str:
    """Text that is safe as one header's value: printable, on one line, of bounded length."""
    line = " ".join(text.split())
    line = "".join(character if character.isprintable() else "�" for character in line)
    return line if len(line) <= _ERROR_LENGTH else line[: _ERROR_LENGTH - 1] + "…"


def read_envelope(subject: str, headers: Mapping[str, str] | None, prefix: str = INGEST) -> Envelope:
    """The envelope of a stored message; raises EnvelopeError where subject or headers are not nomnom's."""
    tokens = subject.removeprefix(f"{prefix}.").split(".")
    message_id = parse_message_id(tokens[1]) if len(tokens) == 2 else None
    if message_id is None or not subject.startswith(prefix):
        raise EnvelopeError(f"subject {subject!r} is not {prefix}.<entity>.<message id>")
    given = headers or {}
    try:
        received_at = from_microseconds(int(given[RECEIVED_AT]))
        replays = int(given.get(REPLAYS, "0"))
    except (KeyError, ValueError, OverflowError) as error:
        raise EnvelopeError(f"headers of {subject!r} lack a readable {RECEIVED_AT} or {REPLAYS}: {error}") from error
    if not 0 <= replays < 2**31:  # what PostgreSQL's integer holds
        raise EnvelopeError(f"headers of {subject!r}: {REPLAYS} is {replays}")
    return Envelope(message_id, tokens[0] or UNKNOWN, received_at, replays)
