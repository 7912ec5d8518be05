"""Deliveries: messages delivered by JetStream, and the results of parsing them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec
from nats.aio.msg import Msg

from nomnom.envelope import (
    UNKNOWN_ENTITY,
    Envelope,
    EnvelopeError,
    Reason,
    from_microseconds,
    idempotent_message_id,
    parse_message_id,
    read_envelope,
)
from nomnom.grammar import Grammar, Record, RecordError

_TOKENS = 9
"""Tokens of an ack subject: $JS.ACK.<stream>.<consumer>.<deliveries>.<sequence>.<delivery>.<time>.<pending>. The long
form has two more, domain and account, before the stream (JetStream's ADR-15)."""


class Delivery(msgspec.Struct, gc=False):
    """One delivery of a message. ``number`` counts the deliveries of this message from 1."""

    message: Msg
    number: int
    envelope: Envelope
    records: list[Record]

    @property
    def reply(self) -> str:
        """The subject of its acknowledgement."""
        return self.message.reply

    @property
    def message_id(self) -> str:
        """The message ID, in canonical form."""
        return self.envelope.message_id


@dataclass(frozen=True, slots=True)
class Failure:
    """A delivery that could not be processed, and why."""

    delivery: Delivery
    reason: Reason
    error: str


@dataclass(slots=True)
class Readings:
    """The messages of a batch, by the result of reading them."""

    valid: list[Delivery]
    failures: list[Failure]
    malformed: list[Failure]
    """Messages with an invalid envelope and no message ID, for which there can be no status row."""
    redelivered: list[Delivery]
    """Messages redelivered so often that they may crash workers; not parsed yet."""
    redeliveries: int = 0
    """Number of messages that were delivered before."""
    pending: int = 0
    """Number of messages pending in the stream when the last of these was delivered."""


class Reader:
    """Parses messages: the envelope, then the records unless delivered ``cautious_from`` times or more."""

    def __init__(self, grammar: Grammar, cautious_from: int) -> None:
        self._grammar, self._cautious_from = grammar, cautious_from

    def read(self, messages: Iterable[Msg]) -> Readings:
        """Parse messages and sort them by result; never raises because of the content of a message."""
        readings = Readings([], [], [], [])
        valid, parse = readings.valid, self._grammar.parse
        tokens: list[str] = []
        for message in messages:
            tokens = message.reply.split(".")
            number = int(tokens[4] if len(tokens) == _TOKENS else tokens[6])
            if number > 1:
                readings.redeliveries += 1
            try:
                envelope = read_envelope(message.subject, message.headers)
            except EnvelopeError as error:
                _read_malformed(message, number, tokens, error, readings)
                continue
            delivery = Delivery(message, number, envelope, [])
            if number >= self._cautious_from:
                readings.redelivered.append(delivery)
                continue
            try:
                delivery.records = parse(message.data.decode())
            except Exception as error:  # noqa: BLE001 (one message must not affect the others)
                readings.failures.append(_failure(delivery, error))
            else:
                valid.append(delivery)
        if tokens:
            readings.pending = int(tokens[8] if len(tokens) == _TOKENS else tokens[10])
        return readings

    def parse(self, delivery: Delivery) -> Failure | None:
        """Parse a delivery that was not parsed yet; returns the failure, or None."""
        try:
            delivery.records = self._grammar.parse(delivery.message.data.decode())
        except Exception as error:  # noqa: BLE001 (one message must not affect the others)
            return _failure(delivery, error)
        return None


def _failure(delivery: Delivery, error: Exception) -> Failure:
    if isinstance(error, RecordError):
        return Failure(delivery, Reason.RECORD, str(error))
    if isinstance(error, UnicodeDecodeError):
        found = f"byte {error.object[error.start]:#04x} at offset {error.start}"
        return Failure(delivery, Reason.RECORD, f"expected UTF-8, found {found}")
    return Failure(delivery, Reason.RECORD, f"cannot parse the message: {type(error).__name__}: {error}")


def _read_malformed(message: Msg, number: int, tokens: list[str], error: EnvelopeError, readings: Readings) -> None:
    """Give a message with an invalid envelope a replacement, the same for each delivery."""
    at = 5 if len(tokens) == _TOKENS else 7
    received_at = from_microseconds(int(tokens[at + 2]) // 1000)  # when the stream stored it
    subject = message.subject.split(".")
    entity = subject[2] if len(subject) == 4 and subject[2] else UNKNOWN_ENTITY
    parsed_id = parse_message_id(subject[3]) if len(subject) == 4 else None
    message_id = parsed_id or idempotent_message_id("stream", f"{tokens[at - 3]} {tokens[at]}")
    failure = Failure(
        Delivery(message, number, Envelope(message_id, entity, received_at), []), Reason.ENVELOPE, str(error)
    )
    (readings.failures if parsed_id else readings.malformed).append(failure)
