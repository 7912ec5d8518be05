"""JetStream as an operator sees it: streams, consumers and stored messages; nothing here consumes a message."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from nomnom_control.errors import ControlError
from nomnom_control.session.audit import Action, Entry
from nomnom_control.session.jetstream.consumers import ConsumerReport, Position
from nomnom_control.session.jetstream.pausing import pause_consumer, read_consumer, resume_consumer
from nomnom_control.session.jetstream.reading import StoredMessage, read_batch, read_before, read_last, read_one
from nomnom_control.session.jetstream.requests import JetStreamError, Purged, StreamFull, call
from nomnom_control.session.jetstream.streams import Cluster, Peer, StreamReport, StreamState

if TYPE_CHECKING:
    from nomnom_control.session.pipeline import Pipeline

__all__ = [
    "Cluster",
    "ConsumerReport",
    "JetStream",
    "JetStreamError",
    "MessagePage",
    "NotConfirmed",
    "Peer",
    "Position",
    "StoredMessage",
    "StreamFull",
    "StreamReport",
    "StreamState",
]

FOREVER = timedelta(days=365 * 10)
"""How long a pause lasts that names no end."""


class NotConfirmed(ControlError):  # noqa: N818
    """Something destructive whose confirmation does not name what would be lost."""


@dataclass(frozen=True, slots=True)
class MessagePage:
    """Messages of a stream in the order that was asked for, and the stream's state beside them."""

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


class JetStream:
    """What an operator asks of JetStream. Every method raises NatsUnavailable, NotSetUp or JetStreamError."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._nats = pipeline.nats

    async def streams(self) -> list[StreamReport]:
        """All streams of the account, by name."""
        found: list[StreamReport] = []
        while True:
            page = await call(self._nats, "STREAM.LIST", {"offset": len(found)}, _Streams, "the streams")
            found += page.streams or ()
            if not page.streams or len(found) >= page.total:
                return sorted(found, key=lambda each: each.name)

    async def stream(self, name: str, *, deleted: bool = False) -> StreamReport:
        """One stream; with ``deleted``, its state lists the deleted sequences between the first and the last."""
        body = {"deleted_details": True} if deleted else None
        return await call(self._nats, f"STREAM.INFO.{checked(name)}", body, StreamReport, f"stream {name}")

    async def consumers(self, stream: str) -> list[ConsumerReport]:
        """All consumers of a stream, by name."""
        found: list[ConsumerReport] = []
        while True:
            subject, what = f"CONSUMER.LIST.{checked(stream)}", f"consumers of {stream}"
            page = await call(self._nats, subject, {"offset": len(found)}, _Consumers, what)
            found += page.consumers or ()
            if not page.consumers or len(found) >= page.total:
                return sorted(found, key=lambda each: each.name)

    async def consumer(self, stream: str, name: str) -> ConsumerReport:
        """One consumer."""
        return await read_consumer(self._nats, checked(stream), checked(name))

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
        """A page of a stream's messages, by sequence, read without consuming.

        ``after`` gives those nearest above a sequence, ``before`` those nearest below it, neither the newest or the
        oldest. ``subject`` filters forwards only (``after``, or oldest first).
        """
        state = (await self.stream(stream)).state
        if before is None and after is None and newest_first:
            before = state.last_seq + 1
        if before is not None:
            found = await read_before(self._nats, stream, min(before, state.last_seq + 1), limit, state.first_seq)
            more = bool(found) and found[0].sequence > state.first_seq
        else:
            start = max(state.first_seq, (after or 0) + 1)
            batch = await read_batch(self._nats, checked(stream), start, limit, subject)
            found, more = batch.messages, batch.pending > 0
        ordered = tuple(reversed(found)) if newest_first else tuple(found)
        return MessagePage(ordered, state, newest_first, more)

    async def peek(self, stream: str, sequence: int) -> StoredMessage | None:
        """One message, read without consuming; None where there is none (any more)."""
        return await read_one(self._nats, checked(stream), sequence)

    async def last(self, stream: str, subject: str) -> StoredMessage | None:
        """The last message of a subject (wildcards allowed), read without consuming."""
        return await read_last(self._nats, checked(stream), subject)

    async def pause(self, stream: str, consumer: str, until: datetime | None = None) -> ConsumerReport:
        """Deliver nothing until ``until`` (ten years by default); it holds over restarts. Needs nats-server 2.11."""
        end = until or datetime.now(UTC) + FOREVER
        if end <= datetime.now(UTC):
            raise ControlError(f"a pause until {end.isoformat()} has ended already")
        report = await pause_consumer(self._nats, checked(stream), checked(consumer), end)
        await self._note_pause(stream, consumer, Action.PAUSE, end)
        return report

    async def resume(self, stream: str, consumer: str) -> ConsumerReport:
        """Deliver again, within a moment."""
        report = await resume_consumer(self._nats, checked(stream), checked(consumer))
        await self._note_pause(stream, consumer, Action.RESUME, None)
        return report

    async def purge(self, stream: str, *, confirm: str) -> int:
        """Remove every message of a stream; ``confirm`` must be its name. Returns how many were removed."""
        if confirm != stream:
            raise NotConfirmed(f"stream {stream} is not purged: the confirmation must be its name, found {confirm!r}")
        before = (await self.stream(stream)).state
        purged = (await call(self._nats, f"STREAM.PURGE.{stream}", None, Purged, f"stream {stream}")).purged
        detail = {
            "messages": before.messages,
            "bytes": before.bytes,
            "last_sequence": before.last_seq,
        }
        await self._pipeline.audit.note(
            [Entry(Action.PURGE, f"purged {purged:,} messages", detail=detail, entity=stream)]
        )
        return purged

    async def _note_pause(self, stream: str, consumer: str, action: Action, until: datetime | None) -> None:
        detail = {"consumer": consumer, "until": until}
        await self._pipeline.audit.note([Entry(action, "done", detail=detail, entity=stream)])


def checked(name: str) -> str:
    """A stream's or consumer's name as it may stand in a subject; raises ControlError."""
    if not name or any(character in ".*>/\\" or character.isspace() for character in name):
        raise ControlError(f"{name!r} cannot be the name of a stream or consumer (no dots, wildcards, slashes, spaces)")
    return name
