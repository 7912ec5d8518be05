"""Deliveries: messages delivered by JetStream, and the results of parsing them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec
from nats.aio.msg import Msg

from nomnom.envelope import (
    INGEST,
    Envelope,
    EnvelopeError,
    Reason,
    from_microseconds,
    read_envelope,
    replacement_envelope,
)
from nomnom.grammar import Grammar, Record, RecordError
from nomnom.positions import position_of

_TOKENS = 9
"""Tokens of an ack subject: $JS.ACK.<stream>.<consumer>.<deliveries>.<sequence>.<delivery>.<time>.<pending>. The long
form has two more, domain and account, before the stream (JetStream's ADR-15)."""


class Delivery(msgspec.Struct, gc=False):
    """One delivery of a message. ``number`` counts the deliveries of this message from 1.

    ``position`` is that of the delivered copy: another one than that of the envelope if it is a replay or a repeat.
    """

    message: Msg
    number: int
    envelope: Envelope
    records: list[Record]
    position: int

    @property
    def reply(self) -> str:
        """The subject of its acknowledgement."""
        return self.message.reply

    @property
    def payload(self) -> bytes:
        """The content of the message."""
        return self.message.data

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
    redelivered: list[Delivery]
    """Messages redelivered so often that they may crash workers; not parsed yet."""
    postponed: list[Delivery] = field(default_factory=list[Delivery])
    """Copies that PostgreSQL did not let the worker look up: to be delivered again later."""
    redeliveries: int = 0
    """Number of messages that were delivered before."""
    pending: int = 0
    """Number of messages pending in the stream when the last of these was delivered."""


class Reader:
    """Parses messages: the envelope, then the records unless delivered ``cautious_from`` times or more."""

    def __init__(self, grammar: Grammar, cautious_from: int) -> None:
        self._grammar, self._cautious_from = grammar, cautious_from

    def read(self, messages: Iterable[Msg], incarnation: int) -> Readings:
        """Parse messages and sort them by result; never raises because of the content of a message.

        ``incarnation`` is that of the stream they come from.
        """
        readings = Readings([], [], [])
        valid, parse = readings.valid, self._grammar.parse
        tokens: list[str] = []
        for message in messages:
            tokens = message.reply.split(".")
            short = len(tokens) == _TOKENS
            number = int(tokens[4] if short else tokens[6])
            position = position_of(incarnation, int(tokens[5] if short else tokens[7]))
            if number > 1:
                readings.redeliveries += 1
            try:
                envelope = read_envelope(message.subject, message.headers, INGEST, position)
            except EnvelopeError as error:
                delivery = Delivery(message, number, _replacement(message, tokens, position), [], position)
                readings.failures.append(Failure(delivery, Reason.ENVELOPE, str(error)))
                continue
            delivery = Delivery(message, number, envelope, [], position)
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


def _replacement(message: Msg, tokens: list[str], position: int) -> Envelope:
    stored = int(tokens[7] if len(tokens) == _TOKENS else tokens[9])  # when the stream stored it, in nanoseconds
    return replacement_envelope(message.subject, from_microseconds(stored // 1000), position)
