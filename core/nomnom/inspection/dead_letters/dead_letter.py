"""A dead letter, read from its message."""

from __future__ import annotations

from datetime import datetime

import msgspec

from nomnom.envelope import (
    ATTEMPTS,
    DEAD,
    ERROR,
    FAILED_AT,
    REASON,
    UNKNOWN_ENTITY,
    Envelope,
    EnvelopeError,
    from_microseconds,
    parse_message_id,
    read_envelope,
)
from nomnom.inspection.jetstream.messages import StoredMessage


class DeadLetter(msgspec.Struct, frozen=True):
    """A dead letter. It never changes: replaying or deleting it removes it from its stream.

    ``payload`` is None if it was not kept; ``size`` is its bytes either way. What its headers do not say, or say in a
    malformed way, is taken from its subject and from when it was stored.
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
    stored_at: datetime
    size: int
    payload: bytes | None
    position: int = 0
    """Of the original message; 0 if it is unknown."""
    envelope_problem: str = ""
    """Why it cannot be replayed as the message that it was; empty if it can."""

    @property
    def envelope(self) -> Envelope:
        """What the message carried beside its payload."""
        return Envelope(self.message_id, self.entity, self.received_at, self.replays, self.position)

    @property
    def text(self) -> str:
        """The payload as text; bytes that are not UTF-8 become U+FFFD."""
        return (self.payload or b"").decode("utf-8", errors="replace")

    def without_payload(self) -> DeadLetter:
        """The same dead letter, lighter."""
        return msgspec.structs.replace(self, payload=None)


def read_dead_letter(message: StoredMessage) -> DeadLetter:
    """The dead letter in a stored message; never raises for what the message holds."""
    headers = message.headers
    tokens = message.subject.removeprefix(f"{DEAD}.").split(".")
    problem = ""
    try:
        envelope = read_envelope(message.subject, headers, DEAD)
    except EnvelopeError as error:
        problem = str(error)
        message_id = parse_message_id(tokens[-1]) or tokens[-1]
        envelope = Envelope(message_id, tokens[0] if len(tokens) > 1 else UNKNOWN_ENTITY, message.stored_at)
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
        message.stored_at,
        len(message.payload),
        message.payload,
        envelope.position,
        problem,
    )


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0


def _moment(text: str | None) -> datetime | None:
    try:
        return from_microseconds(int(text)) if text else None
    except (ValueError, OverflowError):
        return None
