"""The intake: pull requests to the consumer, and the messages that they bring, until they are taken and answered.

nats-py's ``fetch`` waits for each message by itself, which costs more than the message; here one long pull request is
kept with JetStream and its messages are handed over as they arrive (the protocol: JetStream's ADR-13 and ADR-37).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy
from nats.js.errors import APIError, NotFoundError

from nomnom.settings import WorkerSettings
from nomnom.telemetry import logger
from nomnom_worker.errors import OutageError
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
_COMPLETED = "Batch Completed"
_TOO_LARGE = "Message Size Exceeds MaxBytes"


class _Receiver(asyncio.Future[Msg]):
    """What nats-py hands a subscription's messages to, one by one: its future, which here never ends.

    A callback would cost each message a queue and a switch of tasks.
    """

    def __init__(self, receive: Callable[[Msg], None]) -> None:
        super().__init__()
        self._receive = receive

    def set_result(self, result: Msg) -> None:
        self._receive(result)


class Intake:
    """Keeps at most two batches of messages: one that is being written, one that waits for it."""

    def __init__(self, settings: WorkerSettings, link: Link, metrics: Metrics) -> None:
        self._settings, self._link = settings, link
        self._held_gauge = metrics.held
        self._held: dict[str, int] = {}  # the size of each unanswered message, by its reply subject
        self._held_bytes = 0
        self._arrived: deque[Msg] = deque()
        self._arrived_bytes = 0
        self._news = asyncio.Event()  # something for take()
        self._turn = asyncio.Event()  # something for the session
        link.on_lost.append(self._turn.set)
        self._wanted = 0  # how many messages take() waits for
        self._left = 0  # what the present pull request may still bring
        self._pull = 0  # its number
        self._inbox = ""
        self._status: str | None = None
        self._activity = 0
        self._stopping = False
        self._finished = False
        self._single = False
        self._paused = True
        self.ack_wait = _ACK_WAIT
        """The consumer's; seconds."""
        self._ack_wait_changed = asyncio.Event()
        self.reason: str | None = "not looked at yet"
        """Why the consumer cannot be used now; None where it can."""

    @property
    def held(self) -> int:
        """How many messages are unanswered."""
        return len(self._held)

    async def take(self) -> list[Msg]:
        """The next batch: what there is, up to a full batch, waiting at most the poll interval for it to fill.

        Empty only after :meth:`stop`, when there is nothing left.
        """
        size, limit = self._settings.batch_size, self._settings.batch_bytes
        await self._wait(1)
        if len(self._arrived) < size and not self._finished and self._arrived_bytes < limit:
            try:
                async with asyncio.timeout(self._settings.poll_interval_ms / 1000):
                    await self._wait(size)
            except TimeoutError:
                pass
        batch: list[Msg] = []
        taken = 0
        while self._arrived and len(batch) < size and taken < limit:
            message = self._arrived.popleft()
            taken += len(message.data)
            batch.append(message)
        self._arrived_bytes -= taken
        return batch

    async def answer(self, replies: Iterable[str], answer: bytes) -> None:
        """Answer messages for good: they are no longer held."""
        replies = list(replies)
        for reply in replies:
            self._held_bytes -= self._held.pop(reply, 0)
        self._held_gauge.set(len(self._held))
        await self._link.answer(replies, answer)
        self._turn.set()

    async def release(self, answer: bytes) -> int:
        """Answer all that is held; returns how many messages that were."""
        count = len(self._held)
        await self.answer(list(self._held), answer)
        return count

    def stop(self) -> None:
        """Ask for no more messages; :meth:`take` yields what has arrived, then nothing."""
        self._stopping = True
        self._turn.set()
        if self._link.closed.is_set():
            self._finish()

    def pause(self) -> None:
        """Ask for no more messages until :meth:`resume`. An intake begins like this."""
        self._paused = True

    def resume(self) -> None:
        """Ask for messages again."""
        if self._paused:
            self._paused = False
            self._turn.set()

    async def keep_alive(self) -> None:
        """Tell JetStream, well within the ack wait, that what is held is being worked on. Runs until cancelled."""
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
            # Held for a quarter to half of the ack wait by now, and told again each further quarter.
            await self._link.report_progress([reply for reply in self._held if reply in before])
            before = set(self._held)

    async def session(self, client: Client, jetstream: JetStreamContext) -> None:
        """Pull over one client until it closes (OutageError) or until :meth:`stop`."""
        self._inbox = client.new_inbox()
        self._left = 0
        subscription = None
        try:
            while not self._stopping:
                await self._look(jetstream)
                if self._stopping:
                    break
                if subscription is None:
                    subscription = await client.subscribe(f"{self._inbox}.*", future=_Receiver(self._receive))
                await self._pull_on(client, jetstream)
            if subscription is not None:
                await self._leave(subscription.drain)
        finally:
            if self._stopping:
                self._finish()

    async def _pull_on(self, client: Client, jetstream: JetStreamContext) -> None:
        """Keep one pull request with JetStream, until something says that the consumer needs another look."""
        settings = self._settings
        checked = asyncio.get_running_loop().time()
        while not self._stopping:
            room = 2 * settings.batch_size - len(self._held)
            space = 2 * settings.batch_bytes - self._held_bytes
            enough = room >= max(1, settings.batch_size // 2) and space >= settings.batch_bytes
            if self._left <= 0 and enough and not self._paused:
                await self._request(client, room, space)
            activity = self._activity
            silent = await self._quiet()
            if self._link.closed.is_set():
                raise OutageError(self._link.reason or "the connection was closed")
            status, self._status = self._status, None
            if status is not None:
                _log.info("the pull request ended", status=status)
                await asyncio.sleep(_PAUSE / 4)
                return
            now = asyncio.get_running_loop().time()
            if (silent and self._left > 0 and activity == self._activity) or now - checked > _REFRESH:
                if silent and activity == self._activity:
                    self._left = 0  # JetStream has forgotten the request
                await self._look(jetstream)
                checked = now

    async def _quiet(self) -> bool:
        """Wait for the session's turn; returns whether nothing came for so long that heartbeats are missing."""
        try:
            async with asyncio.timeout(_SILENCE):
                await self._turn.wait()
        except TimeoutError:
            return True
        finally:
            self._turn.clear()
        return False

    async def _request(self, client: Client, room: int, space: int) -> None:
        self._pull += 1
        self._left = 1 if self._single else room
        request = {
            "batch": self._left,
            "expires": round(_EXPIRES * 1e9),
            "idle_heartbeat": round(_HEARTBEAT * 1e9),
        }
        if not self._single:
            request["max_bytes"] = space
        self._single = False
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._settings.nats_stream}.{self._settings.nats_consumer}"
        await client.publish(subject, msgspec.json.encode(request), reply=f"{self._inbox}.{self._pull}")

    def _receive(self, message: Msg) -> None:
        self._activity += 1
        if not message.reply:
            self._take_status(message)
            return
        size = len(message.data)
        self._held[message.reply] = size
        self._held_bytes += size
        self._arrived.append(message)
        self._arrived_bytes += size
        if len(self._arrived) == self._wanted or self._arrived_bytes >= self._settings.batch_bytes:
            self._news.set()
        self._left -= 1
        if self._left == 0:
            self._turn.set()

    def _take_status(self, message: Msg) -> None:
        headers = message.headers or {}
        code, text = headers.get("Status", ""), headers.get("Description", "")
        if code == _HEARTBEAT_STATUS or message.subject != f"{self._inbox}.{self._pull}":
            return
        self._left = 0
        if text == _TOO_LARGE:
            # With nothing held there was room for any message that the stream should hold: this one is larger.
            self._single = not self._held
        elif code != _EXPIRED and text != _COMPLETED:
            self._status = f"{code} {text}".strip()
        self._turn.set()

    async def _look(self, jetstream: JetStreamContext) -> None:
        """Wait until the consumer is there and is one that we can use; learn its ack wait. Raises OutageError."""
        settings = self._settings
        name = f"consumer {settings.nats_consumer} of stream {settings.nats_stream}"
        while not self._stopping:
            problem = None
            try:
                info = await jetstream.consumer_info(settings.nats_stream, settings.nats_consumer)
            except NotFoundError:
                problem = f"there is no {name}: run nomnom setup"
            except NatsTimeoutError as error:
                raise OutageError("JetStream does not answer") from error
            except APIError as error:
                problem = f"{name}: {error.description or 'JetStream is not available'}"
            else:
                if info.config.deliver_subject or info.config.ack_policy != AckPolicy.EXPLICIT:
                    problem = f"{name} is not a pull consumer with explicit acks: run nomnom setup"
                elif info.config.ack_wait and info.config.ack_wait != self.ack_wait:
                    self.ack_wait = info.config.ack_wait
                    self._ack_wait_changed.set()
            if problem != self.reason:
                log = _log.warning if problem else _log.info
                log("the consumer cannot be used" if problem else "the consumer is there", reason=problem)
                self.reason = problem
            if problem is None:
                return
            try:
                async with asyncio.timeout(_PAUSE):
                    await self._link.closed.wait()
            except TimeoutError:
                continue
            raise OutageError(self._link.reason or "the connection was closed")

    async def _leave(self, drain: Callable[[], Awaitable[None]]) -> None:
        """Let the present pull request end without a message on the way to nobody, as far as that can be."""
        try:
            # While the stream has messages the request is soon filled; what it has not brought by then is not there.
            async with asyncio.timeout(_LAST_MESSAGES):
                while self._left > 0:
                    self._turn.clear()
                    await self._turn.wait()
        except TimeoutError:
            _log.debug("the last pull request is left open", messages=self._left)
        try:
            async with asyncio.timeout(_DRAIN):
                await drain()
        except (OSError, NatsError, TimeoutError) as error:
            _log.info("the subscription was left without a goodbye", reason=str(error))

    def _finish(self) -> None:
        self._finished = True
        self._news.set()

    async def _wait(self, count: int) -> None:
        """Wait until so many messages have arrived, or a batch's bytes, or no more will come."""
        while len(self._arrived) < count and not self._finished:
            if self._arrived and self._arrived_bytes >= self._settings.batch_bytes:
                return
            self._wanted = count
            self._news.clear()
            await self._news.wait()
