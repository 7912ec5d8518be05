"""A dead letter, read from its message."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime

from nomnom.envelope import (
    ATTEMPTS,
    DEAD,
    ERROR,
    FAILED_AT,
    REASON,
    RECEIVED_AT,
    REPLAYS,
    Envelope,
    EnvelopeError,
    from_microseconds,
    parse_message_id,
    read_envelope,
)
from nomnom.envelope import UNKNOWN_ENTITY as UNKNOWN
from nomnom_control.session.jetstream.reading import StoredMessage


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter. It never changes: an edited one is replayed, or stays as it is.

    ``payload`` is None where a list left it out because it is large; ``size`` is its bytes either way.
    """

    sequence: int
    subject: str
    message_id: str
    entity: str
    reason: str
    error: str
    attempts: int
    received_at: datetime
    failed_at: datetime
    replays: int
    size: int
    payload: bytes | None = field(repr=False)
    envelope_problem: str = ""
    """Why this letter cannot be replayed as the message that it was; empty where it can."""

    @property
    def envelope(self) -> Envelope:
        """What the message carried beside its payload."""
        return Envelope(self.message_id, self.entity, self.received_at, self.replays)

    @property
    def text(self) -> str:
        """The payload as text; bytes that are not UTF-8 become U+FFFD."""
        return (self.payload or b"").decode("utf-8", errors="replace")

    def without_payload(self) -> DeadLetter:
        """The same letter, lighter."""
        return replace(self, payload=None)


def read_dead_letter(message: StoredMessage) -> DeadLetter:
    """The letter of a stored message; what its headers do not say is taken from where and when it was stored."""
    headers = message.headers
    tokens = message.subject.removeprefix(f"{DEAD}.").split(".")
    problem = ""
    try:
        envelope = read_envelope(message.subject, headers, DEAD)
    except EnvelopeError as error:
        problem = str(error)
        message_id = parse_message_id(tokens[-1]) or tokens[-1]
        envelope = Envelope(message_id, tokens[0] if len(tokens) > 1 else UNKNOWN, message.stored_at)
    return DeadLetter(
        message.sequence,
        message.subject,
        envelope.message_id,
        envelope.entity,
        headers.get(REASON, "unknown"),
        headers.get(ERROR, ""),
        _number(headers.get(ATTEMPTS)),
        envelope.received_at,
        _moment(headers.get(FAILED_AT)) or message.stored_at,
        envelope.replays,
        len(message.payload),
        message.payload,
        problem,
    )


DEAD_LETTER_HEADERS = (RECEIVED_AT, REPLAYS, REASON, ERROR, ATTEMPTS, FAILED_AT)
"""The headers that make a letter what it is; all but the one against duplicates."""


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0


def _moment(text: str | None) -> datetime | None:
    try:
        return from_microseconds(int(text)) if text else None
    except (ValueError, OverflowError):
        return None
