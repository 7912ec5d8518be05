"""Group commit: messages that arrive while earlier ones are being stored go out together, as one atomic batch.

JetStream writes each message to disk before it acknowledges it (``sync_interval: always``), but an atomic batch
(NATS ADR-50) as a whole. There are rounds: while one is under way, messages are collected; when all its acks have
arrived, what was collected is the next one. A round is one batch or, if that is sooner stored (see :mod:`pace`), some
messages of their own. A message that arrives while little is under way is sent at once. Only after a batch, which shows
that many arrive, a moment of some milliseconds passes before the next round, unless as many as before are there sooner.

JetStream stores a batch as a whole or not at all. The messages of a batch that it refuses are published one by one, so
that each gets its own result. That cannot store one twice: should part of the batch be stored after all, JetStream
recognizes its ``Nats-Msg-Id``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from nats.aio.client import Client
from nats.errors import Error as NatsError
from prometheus_client import Histogram

from nomnom.envelope import new_message_id
from nomnom.tasks import end
from nomnom.telemetry import logger
from nomnom_api.acks import Ack, AckError, Acks, Outcome, Reply
from nomnom_api.errors import ApiError, BusyError, UnavailableError, UnconfirmedError
from nomnom_api.pace import PROBE, Pace

BATCH_ID, BATCH_SEQUENCE, BATCH_COMMIT = "Nats-Batch-Id", "Nats-Batch-Sequence", "Nats-Batch-Commit"
_MOST = 1000
"""Messages of one batch: the limit of nats-server."""
_MOST_BYTES = 4 * 1024 * 1024
_YIELD = 128
_SINCE = (2, 12)
"""The version of nats-server that introduced atomic batches; an older one would store their messages one by one."""
# Error codes of nats-server's errors.json.
_DISABLED, _UNSUPPORTED_HEADER, _DUPLICATE = 10174, 10177, 10201
_ASK_AGAIN = 60.0
"""Seconds after which batches are tried again where the stream or its server did not support them."""
_PAUSE = 0.5
"""Seconds without batches after one was refused for another reason, such as a full stream."""
_PATIENCE = 1.0
"""Seconds after which a round that got no ack no longer holds up the next: its stream may have lost its leader."""
HEADERS_SIZE = len(f"{BATCH_ID}: {new_message_id()}\r\n{BATCH_SEQUENCE}: {_MOST}\r\n{BATCH_COMMIT}: 1\r\n")
"""Size of the headers that a batch adds to a message, in bytes."""

_log = logger(__name__)


@dataclass(slots=True, eq=False)
class Message:
    """A message on its way to JetStream."""

    subject: str
    payload: bytes
    headers: dict[str, str]
    complete: Callable[[Any, Outcome], None]
    argument: Any
    keyed: bool
    """Whether its ID comes from a client's key, so that it may be a duplicate."""
    alone: bool
    """Whether it is too large for a batch."""
    since: float
    again: bool = False
    """Whether it was part of a batch that was refused."""


@dataclass(slots=True, eq=False)
class _Group:
    batch: str
    messages: list[Message]
    begun: float
    completed: bool = False


class Groups:
    """Sends messages in their order, and completes each exactly once."""

    def __init__(self, acks: Acks, client: Callable[[], Client], timeout: float, sizes: Histogram, seconds: Histogram):
        self._acks, self._client, self._timeout = acks, client, timeout
        self._sizes, self._seconds = sizes, seconds
        self._pace = Pace()
        self._queue: deque[Message] = deque()
        self._under_way = 0
        """Messages sent on their own that await their acks."""
        self._group: _Group | None = None
        """The last batch, until it is completed."""
        self._gather, self._gather_until = 0, 0.0
        self._grouped = 0
        """Messages in batches that await their acks."""
        self._again_at = 0.0
        """When batches may be used; before, they are not supported or have just been refused."""
        self._unsupported = ""
        self._wake = asyncio.Event()
        self._sending: asyncio.Task[None] | None = None
        self.queued_bytes = 0
        """Bytes of the messages that are not sent yet."""
        acks.watchers.append(self._expire)

    @property
    def in_flight(self) -> int:
        """Messages that are not completed yet."""
        return self._under_way + self._grouped + len(self._queue)

    def start(self) -> None:
        """Begin to send what is collected. Needs a running event loop."""
        self._sending = asyncio.create_task(self._run(), name="group commit")

    async def close(self) -> None:
        """End sending; the caller has waited until nothing is in flight."""
        await end(self._sending)

    def connected(self, client: Client) -> None:
        """Find out, once per connection, whether the server supports atomic batches."""
        version = client.connected_server_version
        self._again_at, self._unsupported = 0.0, ""
        if (version.major, version.minor) < _SINCE:
            self._unsupport(f"nats-server {version} is older than {_SINCE[0]}.{_SINCE[1]}", float("inf"))

    async def submit(self, client: Client, message: Message) -> None:
        """Send a message, or collect it for the next round. Raises UnavailableError if it was not sent."""
        now = message.since
        if (
            not self._queue
            and not self._is_held(now)
            and (not self._under_way or (self._under_way < self._threshold() and self._pace.is_open(now)))
        ):
            await self._send(client, message)
        else:
            self._queue.append(message)
            self.queued_bytes += len(message.payload)
            self._rouse()

    def fail(self, reason: str | None) -> None:
        """Complete what was not sent: the connection was lost for this reason (None: it was not)."""
        if reason is not None and self._queue:
            error = UnavailableError(f"NATS is unavailable ({reason}): the message was not stored; retry")
            self._complete_queue(len(self._queue), error)

    def _threshold(self) -> float:
        return self._pace.threshold if self._acks.now() >= self._again_at else float("inf")

    def _is_held(self, now: float) -> bool:
        """Whether a batch is under way whose ack must be awaited first, or the next one is being collected."""
        if self._group is not None:
            return now - self._group.begun < _PATIENCE
        return now < self._gather_until and len(self._queue) < self._gather

    def _rouse(self) -> None:
        now = self._acks.now()
        if not self._is_held(now) and (
            not self._under_way or self._pace.is_open(now) or now - self._pace.begun >= _PATIENCE
        ):
            self._wake.set()

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
                now = self._acks.now()
                holding = self._under_way > 0 and now - self._pace.begun < _PATIENCE
                if holding and not self._pace.is_open(now):
                    break  # the last ack of the round wakes this task
                if self._under_way + len(self._queue) <= self._threshold() or self._queue[0].alone:
                    await self._send_next(client)
                    if len(self._queue) % _YIELD == 0:
                        await asyncio.sleep(0)
                elif holding:
                    break
                elif self._pace.probe(now):
                    for _ in range(min(PROBE, len(self._queue))):
                        await self._send_next(client)
                else:
                    await self._send_group(client, _Group(new_message_id(), self._take(), now))

    def _take(self) -> list[Message]:
        taken = list[Message]()
        size = 0
        queue = self._queue
        while queue and not queue[0].alone and len(taken) < _MOST and size < _MOST_BYTES:
            message = queue.popleft()
            size += len(message.payload)
            taken.append(message)
        self.queued_bytes -= size
        return taken

    async def _send_next(self, client: Client) -> None:
        message = self._queue.popleft()
        self.queued_bytes -= len(message.payload)
        try:
            await self._send(client, message)
        except UnavailableError as error:
            message.complete(message.argument, error)

    async def _send(self, client: Client, message: Message) -> None:
        if not self._under_way:
            self._pace.begin(self._acks.now())
        reply = self._acks.expect(self._settle, message)
        self._under_way += 1
        try:
            await client.publish(message.subject, message.payload, reply, message.headers)
        except (NatsError, OSError) as error:
            # Otherwise a lost connection has already completed it.
            if self._acks.forget(reply):
                self._under_way -= 1
                raise UnavailableError(f"NATS is unavailable: {error}; retry") from error

    def _settle(self, message: Message, sent: float, reply: Reply) -> None:
        """Complete a message that was sent on its own."""
        self._under_way -= 1
        if isinstance(reply, Ack):
            self._pace.single(sent, self._acks.now(), self._under_way)
            if reply.error is not None:
                reply = self._acks.refusal(reply.error)
            elif reply.duplicate and message.again and not message.keyed:
                # Nobody else has this ID: the copy is that of the refused batch.
                reply = msgspec.structs.replace(reply, duplicate=False)
        message.complete(message.argument, reply)
        if self._queue:
            self._rouse()

    async def _send_group(self, client: Client, group: _Group) -> None:
        messages = group.messages
        if len(messages) == 1:
            self._restore(messages)
            await self._send_next(client)
            return
        self._group = group
        self._grouped += len(messages)
        last, reply = len(messages), ""
        try:
            for number, message in enumerate(messages, 1):
                headers = {**message.headers, BATCH_ID: group.batch, BATCH_SEQUENCE: str(number)}
                if number == last:
                    headers[BATCH_COMMIT] = "1"
                    # Only the last response says what became of the batch; the others would be empty.
                    reply = self._acks.expect(self._commit, group)
                await client.publish(message.subject, message.payload, reply, headers)
                if number % _YIELD == 0:
                    await asyncio.sleep(0)
        except (NatsError, OSError) as error:
            if not reply or self._acks.forget(reply):
                self._finish(group, UnconfirmedError(f"connection to NATS lost while sending ({error}); retry"))

    def _commit(self, group: _Group, _: float, reply: Reply) -> None:
        """Complete the messages of a batch, each with its own sequence."""
        now = self._acks.now()
        if not isinstance(reply, Ack):
            self._finish(group, reply)
        elif reply.error is not None:
            self._dismantle(group, reply.error, now)
        elif reply.batch != group.batch or reply.count != len(group.messages):
            # An old server has stored the messages one by one, without saying which of them.
            self._unsupport("the server of the stream's leader does not know them", now + _ASK_AGAIN)
            self._dismantle(group, None, now)
        else:
            seconds = now - group.begun
            self._pace.group(seconds, reply.count)
            self._sizes.observe(reply.count)
            self._seconds.observe(seconds)
            first = reply.seq - reply.count + 1
            self._end(group)
            # Those who get their responses now send their next messages in a moment.
            self._gather, self._gather_until = reply.count, now + self._pace.moment
            asyncio.get_running_loop().call_later(self._pace.moment, self._wake.set)
            for sequence, message in enumerate(group.messages, first):
                message.complete(message.argument, Ack(reply.stream, sequence))

    def _dismantle(self, group: _Group, error: AckError | None, now: float) -> None:
        """Publish the messages of a refused batch again: those that may be duplicates first, each on its own."""
        messages = group.messages
        for each in messages:
            each.again, each.since = True, now
        plain = [each for each in messages if not each.keyed]
        if error is not None and error.err_code == _DUPLICATE and len(plain) < len(messages):
            for each in messages:
                each.alone = each.alone or each.keyed
            # A request's messages are all keyed or all plain, so that their order is kept.
            messages = [*(each for each in messages if each.keyed), *plain]
        elif error is not None and error.err_code in (_DISABLED, _UNSUPPORTED_HEADER):
            self._unsupport(f"{error.description}; run nomnom setup", now + _ASK_AGAIN)
        else:
            self._again_at = max(self._again_at, now + _PAUSE)
        self._end(group)
        self._restore(messages)

    def _restore(self, messages: list[Message]) -> None:
        """Put messages back to the front of the queue, to be sent next."""
        self._queue.extendleft(reversed(messages))
        self.queued_bytes += sum(len(each.payload) for each in messages)

    def _finish(self, group: _Group, error: ApiError) -> None:
        if not group.completed:
            self._end(group)
            for each in group.messages:
                each.complete(each.argument, error)

    def _end(self, group: _Group) -> None:
        group.completed = True
        self._grouped -= len(group.messages)
        if self._group is group:
            self._group = None
        self._wake.set()

    def _expire(self, now: float) -> None:
        """Complete messages that were collected, but for whose sending JetStream was too slow."""
        late = 0
        while late < len(self._queue) and self._queue[late].since + self._timeout <= now:
            late += 1
        if late:
            text = f"JetStream stores too slowly: not sent within {self._timeout:g} s, and not stored; retry"
            self._complete_queue(late, BusyError(text))
        if self._queue:
            self._rouse()

    def _complete_queue(self, number: int, error: ApiError) -> None:
        for _ in range(number):
            message = self._queue.popleft()
            self.queued_bytes -= len(message.payload)
            if message.again:
                text = f"the message may or may not be stored ({error}); retry with the same Idempotency-Key"
                message.complete(message.argument, UnconfirmedError(text))
            else:
                message.complete(message.argument, error)

    def _unsupport(self, reason: str, until: float) -> None:
        self._again_at = until
        if reason != self._unsupported:
            self._unsupported = reason
            _log.warning("atomic batches are not available; each message is published on its own", reason=reason)
