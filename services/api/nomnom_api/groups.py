"""Group commit: messages that arrive while earlier ones are being stored go out together, as one segment.

JetStream writes each message to disk before it acknowledges it (``sync_interval: always``), so what is stored together
shares an fsync, a delivery and an acknowledgement (:mod:`nomnom.segments`). A message that arrives while nothing is
under way is sent at once, as a message of its own; what arrives before the ack is the next segment. So the slower the
disk is, the larger are the segments.

Messages with a key are sent on their own: JetStream recognizes duplicates by message.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from nats.aio.client import Client
from nats.errors import Error as NatsError

from nomnom.envelope import common_entity, headers, ingest_subject, new_message_id, segment_subject
from nomnom.segments import MOST, MOST_BYTES, join, message_ids, new_segment_id
from nomnom.tasks import end
from nomnom_api.acks import TOO_LARGE, Ack, Acks, Reply
from nomnom_api.errors import ApiError, BusyError, UnavailableError
from nomnom_api.identities import Clock
from nomnom_api.telemetry import Metrics

_PATIENCE = 1.0
"""Seconds after which a segment that got no ack no longer holds up the next: its stream may have lost its leader."""


class Accepted(NamedTuple):
    """A message that JetStream has stored. ``received_at`` in microseconds."""

    message_id: str
    received_at: int


@dataclass(slots=True, eq=False)
class Message:
    """A message without a key on its way to JetStream."""

    entity: str
    payload: bytes
    complete: Callable[[Any, Accepted | ApiError], None]
    argument: Any
    since: float
    alone: bool
    """Whether it cannot be in a segment."""


@dataclass(slots=True, eq=False)
class _Group:
    messages: list[Message]
    ids: list[str] = field(default_factory=list[str])
    received_at: int = 0
    reply: str = ""


class Groups:
    """Sends messages in their order, and completes each exactly once."""

    def __init__(
        self, acks: Acks, client: Callable[[], Client], clock: Clock, timeout: float, *, metrics: Metrics
    ) -> None:
        self._acks, self._client, self._clock, self._timeout = acks, client, clock, timeout
        self._sizes, self._seconds = metrics.group_messages, metrics.group_seconds
        self._queue: deque[Message] = deque()
        self._under_way: dict[str, _Group] = {}
        """What awaits its ack, by the reply subject."""
        self._held_since = 0.0
        """When the oldest of it was sent."""
        self._grouped = 0
        self._wake = asyncio.Event()
        self._sending: asyncio.Task[None] | None = None
        self.queued_bytes = 0
        """Bytes of the messages that are not sent yet."""
        acks.watchers.append(self._expire)

    @property
    def in_flight(self) -> int:
        """Messages that are not completed yet."""
        return self._grouped + len(self._queue)

    def start(self) -> None:
        """Begin to send what is collected. Needs a running event loop."""
        self._sending = asyncio.create_task(self._run(), name="group commit")

    async def close(self) -> None:
        """End sending; the caller has waited until nothing is in flight."""
        await end(self._sending)

    async def submit(self, client: Client, message: Message) -> None:
        """Send a message, or collect it for the next segment. Raises UnavailableError if it was not sent."""
        if self._queue or self._is_held(message.since):
            self._queue.append(message)
            self.queued_bytes += len(message.payload)
            return
        await self._send(client, _Group([message]))

    def fail(self, reason: str | None) -> None:
        """Complete what was not sent: the connection was lost for this reason (None: it was not)."""
        if reason is not None and self._queue:
            error = UnavailableError(f"NATS is unavailable ({reason}): the message was not stored; retry")
            self._complete_queue(len(self._queue), error)

    def _is_held(self, now: float) -> bool:
        """Whether an ack must be awaited first."""
        return bool(self._under_way) and now - self._held_since < _PATIENCE

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue and not self._is_held(self._acks.now()):
                try:
                    client = self._client()
                except UnavailableError as error:
                    self._complete_queue(len(self._queue), error)
                    break
                await self._send_group(client, _Group(self._take()))

    def _take(self) -> list[Message]:
        queue = self._queue
        message = queue.popleft()
        taken, size = [message], len(message.payload)
        while queue and not (message.alone or queue[0].alone) and len(taken) < MOST:
            if size + 1 + len(queue[0].payload) > MOST_BYTES:
                break
            message = queue.popleft()
            size += 1 + len(message.payload)
            taken.append(message)
        self.queued_bytes -= sum(len(each.payload) for each in taken)
        return taken

    async def _send_group(self, client: Client, group: _Group) -> None:
        try:
            await self._send(client, group)
        except UnavailableError as error:
            for each in group.messages:
                each.complete(each.argument, error)

    async def _send(self, client: Client, group: _Group) -> None:
        messages = group.messages
        group.received_at = self._clock.now()
        if len(messages) == 1:
            message = messages[0]
            group.ids = [new_message_id()]
            subject, payload = ingest_subject(message.entity, group.ids[0]), message.payload
        else:
            segment_id = new_segment_id()
            group.ids = message_ids(segment_id, len(messages))
            entity = common_entity({each.entity for each in messages})
            subject = segment_subject(entity, segment_id, len(messages))
            payload = join(each.payload for each in messages)
        if not self._under_way:
            self._held_since = self._acks.now()
        group.reply = reply = self._acks.expect(self._settle, group)
        self._under_way[reply] = group
        self._grouped += len(messages)
        try:
            await client.publish(subject, payload, reply, headers(group.received_at))
        except (NatsError, OSError) as error:
            # Otherwise a lost connection has already completed it.
            if self._acks.forget(reply):
                self._end(group)
                raise UnavailableError(f"NATS is unavailable: {error}; retry") from error

    def _settle(self, group: _Group, sent: float, reply: Reply) -> None:
        """Complete the messages of a segment."""
        self._end(group)
        messages = group.messages
        if isinstance(reply, Ack) and reply.error is not None:
            if reply.error.err_code == TOO_LARGE and len(messages) > 1:
                # The stream takes less than nomnom setup would let it: each message may fit.
                for each in messages:
                    each.alone = True
                self._queue.extendleft(reversed(messages))
                self.queued_bytes += sum(len(each.payload) for each in messages)
                self._wake.set()
                return
            reply = self._acks.refusal(reply.error)
        if isinstance(reply, Ack):
            self._sizes.observe(len(messages))
            self._seconds.observe(self._acks.now() - sent)
            for each, message_id in zip(messages, group.ids, strict=True):
                each.complete(each.argument, Accepted(message_id, group.received_at))
        else:
            for each in messages:
                each.complete(each.argument, reply)

    def _end(self, group: _Group) -> None:
        self._grouped -= len(group.messages)
        self._under_way.pop(group.reply, None)
        if self._queue:
            self._wake.set()

    def _expire(self, now: float) -> None:
        """Complete messages that were collected, but for whose sending JetStream was too slow."""
        late = 0
        while late < len(self._queue) and self._queue[late].since + self._timeout <= now:
            late += 1
        if late:
            text = f"JetStream stores too slowly: not sent within {self._timeout:g} s, and not stored; retry"
            self._complete_queue(late, BusyError(text))
        if self._queue and not self._is_held(now):
            self._wake.set()

    def _complete_queue(self, number: int, error: ApiError) -> None:
        for _ in range(number):
            message = self._queue.popleft()
            self.queued_bytes -= len(message.payload)
            message.complete(message.argument, error)
