"""JetStream, read without changing it or consuming a message: streams, consumers and stored messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from nomnom.connections.errors import RequestError
from nomnom.connections.nats import NatsConnection
from nomnom.envelope import (
    SEGMENTS,
    EnvelopeError,
    find_in_segment,
    ingest_subject,
    pending_subjects,
    read_envelope,
    segment_in,
)
from nomnom.inspection.jetstream.consumers import ConsumerReport, Pin, Position
from nomnom.inspection.jetstream.messages import StoredMessage, read_batch, read_before, read_last, read_one
from nomnom.inspection.jetstream.requests import JetStreamError, StreamFull, call
from nomnom.inspection.jetstream.streams import Cluster, Peer, Source, StreamReport, StreamState

__all__ = [
    "Cluster",
    "ConsumerReport",
    "InvalidName",
    "JetStream",
    "JetStreamError",
    "MessagePage",
    "Peer",
    "Pin",
    "Position",
    "Source",
    "StoredMessage",
    "StreamFull",
    "StreamReport",
    "StreamState",
    "checked",
]


class InvalidName(RequestError):  # noqa: N818
    """A text that cannot be the name of a stream or consumer."""


@dataclass(frozen=True, slots=True)
class MessagePage:
    """Messages of a stream in the requested order, and the stream's state."""

    messages: tuple[StoredMessage, ...]
    state: StreamState
    newest_first: bool
    more: bool
    """Whether further messages follow in this direction."""


class _Page(msgspec.Struct, frozen=True):
    total: int = 0
    offset: int = 0
    limit: int = 0


class _Streams(_Page, frozen=True):
    streams: tuple[StreamReport, ...] | None = None


class _Consumers(_Page, frozen=True):
    consumers: tuple[ConsumerReport, ...] | None = None


class _SubjectState(msgspec.Struct, frozen=True):
    subjects: Mapping[str, int] | None = None


class _Subjects(_Page, frozen=True, kw_only=True):
    state: _SubjectState


class JetStream:
    """What can be read of JetStream. Every method raises NatsUnavailable, NotSetUp, JetStreamError or InvalidName."""

    def __init__(self, nats: NatsConnection) -> None:
        self.nats = nats

    async def streams(self) -> list[StreamReport]:
        """All streams of the account, by name."""
        found: list[StreamReport] = []
        while True:
            page = await call(self.nats, "STREAM.LIST", {"offset": len(found)}, _Streams, "the streams")
            found += page.streams or ()
            if not page.streams or len(found) >= page.total:
                return sorted(found, key=lambda each: each.name)

    async def stream(self, name: str, *, deleted: bool = False) -> StreamReport:
        """One stream; with ``deleted``, its state lists the deleted sequences between the first and the last."""
        body = {"deleted_details": True} if deleted else None
        return await call(self.nats, f"STREAM.INFO.{checked(name)}", body, StreamReport, f"stream {name}")

    async def subjects(self, name: str, subject: str) -> set[str]:
        """The subjects of a stream's messages that match one with wildcards; not as of one moment if there are many."""
        found: set[str] = set()
        offset = 0
        while True:
            body = {"subjects_filter": subject, "offset": offset}
            page = await call(self.nats, f"STREAM.INFO.{checked(name)}", body, _Subjects, f"stream {name}")
            listed = page.state.subjects or {}
            found.update(listed)
            offset += len(listed)
            if not listed or offset >= page.total:
                return found

    async def segments(self, name: str) -> dict[str, int]:
        """The sizes of the segments in a stream, by ID; not as of one moment if there are many."""
        return dict(map(segment_in, await self.subjects(name, SEGMENTS)))

    async def backlog(self, report: StreamReport) -> int:
        """How many messages a reported stream holds: each of a segment counts."""
        if not report.state.messages:
            return 0
        return report.state.messages + sum(size - 1 for size in (await self.segments(report.name)).values())

    async def consumers(self, stream: str) -> list[ConsumerReport]:
        """All consumers of a stream, by name."""
        found: list[ConsumerReport] = []
        while True:
            subject, what = f"CONSUMER.LIST.{checked(stream)}", f"consumers of {stream}"
            page = await call(self.nats, subject, {"offset": len(found)}, _Consumers, what)
            found += page.consumers or ()
            if not page.consumers or len(found) >= page.total:
                return sorted(found, key=lambda each: each.name)

    async def consumer(self, stream: str, name: str) -> ConsumerReport:
        """One consumer."""
        subject = f"CONSUMER.INFO.{checked(stream)}.{checked(name)}"
        return await call(self.nats, subject, None, ConsumerReport, f"consumer {name} of {stream}")

    async def lag(self, stream: str, consumer: str) -> int | None:
        """A consumer's lag, as KEDA's nats-jetstream scaler counts it: in stored messages, so that a segment counts
        once. None while it is unknown.
        """
        try:
            return (await self.consumer(stream, consumer)).lag
        except RequestError:
            return None

    async def messages(
        self,
        stream: str,
        *,
        after: int | None = None,
        before: int | None = None,
        limit: int = 50,
        newest_first: bool = False,
        subject: str = ">",
    ) -> MessagePage:
        """A page of a stream's messages, by sequence.

        ``after`` selects those nearest above a sequence, ``before`` those nearest below it; with neither, the page
        holds the newest or the oldest. ``subject`` filters only forwards (``after``, or oldest first).
        """
        state = (await self.stream(stream)).state
        if before is None and after is None and newest_first:
            before = state.last_seq + 1
        if before is not None:
            found = await read_before(self.nats, stream, min(before, state.last_seq + 1), limit, state.first_seq)
            more = bool(found) and found[0].sequence > state.first_seq
        else:
            start = max(state.first_seq, (after or 0) + 1)
            batch = await read_batch(self.nats, stream, start, limit, subject)
            found, more = batch.messages, batch.pending > 0
        ordered = tuple(reversed(found)) if newest_first else tuple(found)
        return MessagePage(ordered, state, newest_first, more)

    async def peek(self, stream: str, sequence: int) -> StoredMessage | None:
        """The message of one sequence; None if it does not exist."""
        return await read_one(self.nats, checked(stream), sequence)

    async def last(self, stream: str, subject: str) -> StoredMessage | None:
        """The last message of a subject (wildcards allowed); None if there is none."""
        return await read_last(self.nats, checked(stream), subject)

    async def pending(self, stream: str, message_id: str, entity_name: Callable[[str], str]) -> StoredMessage | None:
        """The message with an ID that is not processed yet, or None; one of a segment as if it were stored alone.

        ``entity_name`` finds an entity by the beginning of a message.
        """
        for subject in pending_subjects(message_id):
            found = await self.last(stream, subject)
            if found is not None:
                return _part(found, message_id, entity_name)
        return None


def _part(stored: StoredMessage, message_id: str, entity_name: Callable[[str], str]) -> StoredMessage | None:
    try:
        envelope = read_envelope(stored.subject, stored.headers)
        if not envelope.size:
            return stored
        own, payload = find_in_segment(envelope, stored.payload, message_id, entity_name)
    except EnvelopeError:
        return stored
    return msgspec.structs.replace(stored, subject=ingest_subject(own.entity, message_id), payload=payload)


def checked(name: str) -> str:
    """A stream's or consumer's name as it may stand in a subject; raises InvalidName."""
    if not name or any(character in ".*>/\\" or character.isspace() for character in name):
        raise InvalidName(f"{name!r} cannot be the name of a stream or consumer (no dots, wildcards, slashes, spaces)")
    return name
