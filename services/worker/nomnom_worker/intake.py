"""The intake: pull requests to the consumer, and the messages received, until they are acknowledged.

nats-py's ``fetch`` awaits each message separately, which costs more than processing it. Here one long pull request is
kept open and messages are passed on as they arrive (protocol: JetStream's ADR-13 and ADR-37).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig
from nats.js.errors import APIError, NotFoundError

from nomnom.connections.client import Receiver
from nomnom.connections.errors import RequestError
from nomnom.connections.nats import TIMEOUT
from nomnom.envelope import is_segment, segment_in
from nomnom.settings import WorkerSettings
from nomnom.telemetry import logger
from nomnom_worker.link import Link
from nomnom_worker.metrics import Metrics

_log = logger(__name__)
_EXPIRES = 10.0
_HEARTBEAT = 2.0
_SILENCE = 2 * _HEARTBEAT + 1
_PAUSE = 1.0
_LAST_MESSAGES = 0.25
_DRAIN = 2.0
_ACK_WAIT = 30.0
_REFRESH = 30.0
_HEARTBEAT_STATUS, _EXPIRED = "100", "408"
_LATELY = 8
_COMPLETED = "Batch Completed"
_TOO_LARGE = "Message Size Exceeds MaxBytes"


class _Held(NamedTuple):
    """A stored message that is not acknowledged: its bytes, and how many messages it holds."""

    size: int
    messages: int


@dataclass(slots=True)
class _Parts:
    """The messages of a segment that have no result yet, and the response so far."""

    left: int
    response: bytes = b""


class Intake:
    """Holds at most two batches of messages: one being written and one waiting."""

    def __init__(
        self,
        settings: WorkerSettings,
        link: Link,
        metrics: Metrics,
        register: Callable[[datetime], Awaitable[int]],
    ) -> None:
        self._settings, self._link, self._register = settings, link, register
        self._held_gauge = metrics.held
        self._held: dict[str, _Held] = {}  # by reply subject
        self._held_bytes = self._held_messages = 0
        self._parts: dict[str, _Parts] = {}
        self._arrived: deque[Msg] = deque()
        self._arrived_bytes = self._arrived_messages = 0
        self._available = asyncio.Event()  # messages for next_batch()
        self._wake = asyncio.Event()  # wakes up the session
        link.watchers.append(lambda _: self._wake.set())
        self._wanted = 0  # number of messages that next_batch() waits for
        self._left = 0  # stored messages that the current pull request may still deliver
        self._weight = 1.0  # how many messages a stored one holds, lately
        self._pull_number = 0
        self._inbox = ""
        self._status: str | None = None
        self._activity = 0
        self._stopping = False
        self._finished = False
        self._single = False
        self._idle = False
        self._paused = True
        self._created: datetime | None = None
        self._last_delivery = 0  # sequence of the consumer
        self._jetstream: JetStreamContext | None = None
        self.incarnation = 0
        """The number of the incarnation of the stream that the last batch comes from."""
        self.ack_wait = _ACK_WAIT
        """The ack wait of the consumer, in seconds."""
        self._ack_wait_changed = asyncio.Event()
        self.reason: str | None = "not checked yet"
        """Why the consumer is unavailable; None if it is available."""

    @property
    def held(self) -> int:
        """Number of unacknowledged messages."""
        return self._held_messages

    async def next_batch(self) -> list[Msg]:
        """The next batch: the messages received, up to a full batch. While another batch is written, waits at most the
        poll interval for it to fill.

        Empty only after :meth:`stop`, when no messages are left.
        """
        size, limit = self._settings.batch_size, self._settings.batch_bytes
        await self._wait(1)
        if not self._idle and self._arrived_messages < size and not self._finished and self._arrived_bytes < limit:
            try:
                async with asyncio.timeout(self._settings.poll_interval_ms / 1000):
                    await self._wait(size)
            except TimeoutError:
                pass
        batch: list[Msg] = []
        taken = messages = 0
        while self._arrived and messages < size and taken < limit:
            message = self._arrived.popleft()
            taken += len(message.data)
            messages += _weight_of(message)
            batch.append(message)
        self._arrived_bytes -= taken
        self._arrived_messages -= messages
        if batch:
            await self._check_order(batch)
        return batch

    def note_idle(self, *, idle: bool) -> None:
        """Note whether no batch is written at present: then the next one need not be full."""
        self._idle = idle
        if idle and self._arrived:
            self._available.set()

    def divide(self, parts: Mapping[str, int]) -> None:
        """Note how many messages share each reply: their segment is acknowledged after the last."""
        for reply, number in parts.items():
            self._parts[reply] = _Parts(number)

    async def respond(self, replies: Iterable[str], response: bytes) -> None:
        """Send final responses (ack or nak): the messages are no longer held. The messages of a segment get one."""
        responses: dict[bytes, list[str]] = {response: []}
        for reply in replies:
            given = response
            if (parts := self._parts.get(reply)) is not None:
                parts.left -= 1
                # The longest delay is the longest text; an ack is empty.
                given = parts.response = max(parts.response, response, key=_by_length)
                if parts.left:
                    continue
                del self._parts[reply]
            if (held := self._held.pop(reply, None)) is not None:
                self._held_bytes -= held.size
                self._held_messages -= held.messages
            responses.setdefault(given, []).append(reply)
        self._held_gauge.set(self._held_messages)
        for each, given_to in responses.items():
            await self._link.respond(given_to, each)
        self._wake.set()

    async def release(self, response: bytes) -> int:
        """Send a response for all held messages; returns their number.

        A message of a segment that gets its own response later does not respond for the others.
        """
        count, replies = self._held_messages, list(self._held)
        self._held.clear()
        self._held_bytes = self._held_messages = 0
        self._held_gauge.set(0)
        await self._link.respond(replies, response)
        return count

    def stop(self) -> None:
        """Stop pulling; :meth:`next_batch` returns the messages received, then nothing."""
        self._stopping = True
        self._wake.set()
        if self._link.lost.is_set():
            self._finish()

    def pause(self) -> None:
        """Stop pulling until :meth:`resume`. This is the initial state."""
        self._paused = True

    def resume(self) -> None:
        """Start to pull messages again."""
        if self._paused:
            self._paused = False
            self._wake.set()

    async def _check_order(self, batch: list[Msg]) -> None:
        """Read the incarnation of the stream again if the consumer counts from 1 again: it was created again, perhaps
        with its stream, while no pull request was open that would have reported it.
        """
        first, last = (int(batch[at].reply.split(".")[-3]) for at in (0, -1))
        created_again = first <= self._last_delivery
        self._last_delivery = last
        jetstream = self._jetstream
        if created_again and jetstream is not None and self._link.current is not None:
            try:
                await self._check_incarnation(jetstream)
            except (OSError, NatsError, RequestError) as error:
                # The next session reads it; until then the messages count as those of the incarnation before.
                _log.warning("cannot read the stream's state", reason=str(error))

    async def _check_incarnation(self, jetstream: JetStreamContext) -> None:
        """Register the stream's incarnation if it is another one than before."""
        created = (await jetstream.stream_info(self._settings.nats_stream)).created
        if created is not None and created != self._created:
            self.incarnation = await self._register(created)
            self._created = created

    async def keep_alive(self) -> None:
        """Report held messages as in progress, well within the ack wait. Runs until cancelled."""
        before: set[str] = set()
        while True:
            try:
                async with asyncio.timeout(self.ack_wait / 4):
                    await self._ack_wait_changed.wait()
            except TimeoutError:
                pass
            else:
                self._ack_wait_changed.clear()
                continue
            # First reported after a quarter to half of the ack wait, then every quarter.
            await self._link.report_progress([reply for reply in self._held if reply in before])
            before = set(self._held)

    async def session(self, client: Client) -> None:
        """Pull with one client until it closes (raises NatsUnavailable) or until :meth:`stop`."""
        jetstream = self._jetstream = client.jetstream(timeout=TIMEOUT)
        self._inbox = client.new_inbox()
        self._left = 0
        subscription = None
        try:
            while not self._stopping:
                await self._check_consumer(jetstream)
                if self._stopping:
                    break
                if subscription is None:
                    subscription = await client.subscribe(f"{self._inbox}.*", future=Receiver(self._receive))
                await self._pull(client, jetstream)
            if subscription is not None:
                await self._end_pull(subscription.drain)
        finally:
            if self._stopping:
                self._finish()

    async def _pull(self, client: Client, jetstream: JetStreamContext) -> None:
        """Keep one pull request open, until the consumer has to be checked again."""
        settings = self._settings
        checked = asyncio.get_running_loop().time()
        while not self._stopping:
            room = 2 * settings.batch_size - self._held_messages
            space = 2 * settings.batch_bytes - self._held_bytes
            enough = room >= max(1, settings.batch_size // 2) and space >= settings.batch_bytes
            if self._left <= 0 and enough and not self._paused:
                await self._request(client, room, space)
            activity = self._activity
            silent = await self._wait_for_wake()
            if self._link.lost.is_set():
                raise self._link.unavailable(self._link.problem or "the connection was closed")
            status, self._status = self._status, None
            if status is not None:
                _log.info("pull request ended", status=status)
                await asyncio.sleep(_PAUSE / 4)
                return
            now = asyncio.get_running_loop().time()
            if (silent and self._left > 0 and activity == self._activity) or now - checked > _REFRESH:
                if silent and activity == self._activity:
                    self._left = 0  # the request is lost
                await self._check_consumer(jetstream)
                checked = now

    async def _wait_for_wake(self) -> bool:
        """Wait for work; returns whether heartbeats are missing because nothing was received for too long."""
        try:
            async with asyncio.timeout(_SILENCE):
                await self._wake.wait()
        except TimeoutError:
            return True
        finally:
            self._wake.clear()
        return False

    async def _request(self, client: Client, room: int, space: int) -> None:
        self._pull_number += 1
        self._left = 1 if self._single else max(1, round(room / self._weight))
        request = {
            "batch": self._left,
            "expires": round(_EXPIRES * 1e9),
            "idle_heartbeat": round(_HEARTBEAT * 1e9),
        }
        if not self._single:
            request["max_bytes"] = space
        self._single = False
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._settings.nats_stream}.{self._settings.nats_consumer}"
        await client.publish(subject, msgspec.json.encode(request), reply=f"{self._inbox}.{self._pull_number}")

    def _receive(self, message: Msg) -> None:
        self._activity += 1
        if not message.reply:
            self._handle_status(message)
            return
        self._left -= 1
        if message.reply in self._held:
            # A nats-server that was killed may have forgotten the delivery, and repeat it as the same one.
            if self._left == 0:
                self._wake.set()
            return
        size, messages = len(message.data), _weight_of(message)
        self._held[message.reply] = _Held(size, messages)
        self._held_bytes += size
        self._held_messages += messages
        self._weight += (messages - self._weight) / _LATELY
        self._arrived.append(message)
        self._arrived_bytes += size
        self._arrived_messages += messages
        full = self._arrived_messages >= self._wanted or self._arrived_bytes >= self._settings.batch_bytes
        if full or self._idle:
            self._available.set()
        if self._left == 0:
            self._wake.set()

    def _handle_status(self, message: Msg) -> None:
        headers = message.headers or {}
        code, text = headers.get("Status", ""), headers.get("Description", "")
        if code == _HEARTBEAT_STATUS or message.subject != f"{self._inbox}.{self._pull_number}":
            return
        self._left = 0
        if text == _TOO_LARGE:
            # If nothing is held, the message is larger than the limit itself: pull it alone, without a limit.
            self._single = not self._held
        elif code != _EXPIRED and text != _COMPLETED:
            self._status = f"{code} {text}".strip()
        self._wake.set()

    async def _check_consumer(self, jetstream: JetStreamContext) -> None:
        """Wait until the consumer exists and is usable, and read its ack wait. Raises NatsUnavailable."""
        settings = self._settings
        name = f"consumer {settings.nats_consumer} of stream {settings.nats_stream}"
        while not self._stopping:
            problem = None
            try:
                info = await jetstream.consumer_info(settings.nats_stream, settings.nats_consumer)
            except NotFoundError:
                problem = f"{name} does not exist; run nomnom setup"
            except NatsTimeoutError as error:
                raise self._link.unavailable("JetStream does not respond") from error
            except APIError as error:
                problem = f"{name}: {error.description or 'JetStream is not available'}"
            else:
                problem = self._read_configuration(info.config, name)
                if problem is None:
                    await self._check_incarnation(jetstream)
            if problem != self.reason:
                if problem:
                    _log.warning("consumer is unavailable", reason=problem)
                else:
                    _log.info("consumer is available", consumer=settings.nats_consumer, stream=settings.nats_stream)
                self.reason = problem
            if problem is None:
                return
            try:
                async with asyncio.timeout(_PAUSE):
                    await self._link.lost.wait()
            except TimeoutError:
                continue
            raise self._link.unavailable(self._link.problem or "the connection was closed")

    def _read_configuration(self, config: ConsumerConfig, name: str) -> str | None:
        """Take over the consumer's ack wait; returns why the consumer is not usable, or None."""
        if config.deliver_subject or config.ack_policy != AckPolicy.EXPLICIT:
            return f"{name} is not a pull consumer with explicit acks; run nomnom setup"
        if config.ack_wait and config.ack_wait != self.ack_wait:
            self.ack_wait = config.ack_wait
            self._ack_wait_changed.set()
        return None

    async def _end_pull(self, drain: Callable[[], Awaitable[None]]) -> None:
        """Let the current pull request complete and drain the subscription, to avoid messages lost in transit."""
        try:
            # If the stream has messages, they are delivered within this time.
            async with asyncio.timeout(_LAST_MESSAGES):
                while self._left > 0:
                    self._wake.clear()
                    await self._wake.wait()
        except TimeoutError:
            _log.debug("last pull request left open", messages=self._left)
        try:
            async with asyncio.timeout(_DRAIN):
                await drain()
        except (OSError, NatsError, TimeoutError) as error:
            _log.info("subscription not drained", reason=str(error))

    def _finish(self) -> None:
        self._finished = True
        self._available.set()

    async def _wait(self, count: int) -> None:
        """Wait until ``count`` messages or the bytes of a batch have been received, or no more are expected."""
        while self._arrived_messages < count and not self._finished:
            if self._arrived and (self._idle or self._arrived_bytes >= self._settings.batch_bytes):
                return
            self._wanted = count
            self._available.clear()
            await self._available.wait()


def _weight_of(message: Msg) -> int:
    """How many messages a stored one holds, by its subject; whether that is true is found out when it is read."""
    return max(1, segment_in(message.subject)[1]) if is_segment(message.subject) else 1


def _by_length(response: bytes) -> tuple[int, bytes]:
    return len(response), response
