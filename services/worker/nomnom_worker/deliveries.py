"""Deliveries: messages delivered by JetStream, and the results of parsing them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec
from nats.aio.msg import Msg

from nomnom import segments
from nomnom.copies import SegmentCopy
from nomnom.envelope import (
    INGEST,
    Envelope,
    EnvelopeError,
    Reason,
    from_microseconds,
    is_keyed,
    open_segment,
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

    ``reply`` is the subject of its acknowledgement, which the messages of a segment share. ``position`` is that of the
    delivered copy: another one than that of the envelope if it is a replay or a repeat.
    """

    reply: str
    payload: bytes
    number: int
    envelope: Envelope
    records: list[Record]
    position: int

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
    keyed: list[SegmentCopy] = field(default_factory=list[SegmentCopy])
    """Segments with keys; their messages are in the lists above."""
    parts: dict[str, int] = field(default_factory=dict[str, int])
    """How many messages the segments have, by reply."""
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
        tokens: list[str] = []
        for message in messages:
            tokens = message.reply.split(".")
            short = len(tokens) == _TOKENS
            number = int(tokens[4] if short else tokens[6])
            position = position_of(incarnation, int(tokens[5] if short else tokens[7]))
            if number > 1:
                readings.redeliveries += 1
            reply, payload = message.reply, message.data
            try:
                envelope = read_envelope(message.subject, message.headers, INGEST, position)
                if envelope.size:
                    self._read_segment(message, number, envelope, readings)
                    continue
            except EnvelopeError as error:
                replacement = _replacement(message, tokens, position)
                delivery = Delivery(reply, payload, number, replacement, [], position)
                readings.failures.append(Failure(delivery, Reason.ENVELOPE, str(error)))
                continue
            self._sort(Delivery(reply, payload, number, envelope, [], position), readings)
        if tokens:
            readings.pending = int(tokens[8] if len(tokens) == _TOKENS else tokens[10])
        return readings

    def parse(self, delivery: Delivery) -> Failure | None:
        """Parse a delivery that was not parsed yet; returns the failure, or None."""
        try:
            delivery.records = self._grammar.parse(delivery.payload.decode())
        except Exception as error:  # noqa: BLE001 (one message must not affect the others)
            return _failure(delivery, error)
        return None

    def _read_segment(self, message: Msg, number: int, envelope: Envelope, readings: Readings) -> None:
        """Sort the messages of a segment. Raises EnvelopeError."""
        content, position = message.data, envelope.position
        opened = open_segment(envelope, content, self._grammar.schema.entity_name)
        readings.parts[message.reply] = len(opened)
        if is_keyed(envelope.message_id):
            readings.keyed.append(SegmentCopy(position, envelope, content))
        deliveries = [Delivery(message.reply, payload, number, own, [], position) for own, payload in opened]
        for each, record in zip(deliveries, self._records(content, deliveries), strict=True):
            if record is None:
                self._sort(each, readings)
            else:
                each.records = [record]
                readings.valid.append(each)

    def _records(self, content: bytes, deliveries: Sequence[Delivery]) -> Sequence[Record | None]:
        """The records of the messages that can be read together."""
        if deliveries[0].number >= self._cautious_from:
            return [None] * len(deliveries)
        try:
            text = content.decode()
            return self._grammar.read(segments.split_text(text) if len(deliveries) > 1 else [text])
        except Exception:  # noqa: BLE001 (each message is then read by itself, and its problem found)
            return [None] * len(deliveries)

    def _sort(self, delivery: Delivery, readings: Readings) -> None:
        if delivery.number >= self._cautious_from:
            readings.redelivered.append(delivery)
        elif (failure := self.parse(delivery)) is not None:
            readings.failures.append(failure)
        else:
            readings.valid.append(delivery)


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
