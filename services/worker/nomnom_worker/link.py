"""The connection to NATS: kept, replaced when it closes, and the answers to deliveries that go over it."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterable

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext

from nomnom.settings import WorkerSettings, without_secrets
from nomnom.telemetry import logger
from nomnom_worker.errors import OutageError
from nomnom_worker.metrics import Metrics

_log = logger(__name__)
_CONNECT = 5
_PAUSE, _LONGEST = 0.1, 2.0
_UNSENT = 100_000
_FLUSH = 5
_CLOSE = 2.0
ACK = b""
_PROGRESS = b"+WPI"


def nak(delay: float = 0.0) -> bytes:
    """The answer that asks for the message again, after ``delay`` seconds."""
    return b'-NAK {"delay": %d}' % round(delay * 1e9) if delay else b"-NAK"


class Link:
    """One client at a time. A client that closes is replaced by a new one.

    nats-py's own reconnection is not used: it ends for good on some errors (an expired login, too many connections),
    and keeps answers in a buffer whose loss it does not report.
    """

    def __init__(self, settings: WorkerSettings, metrics: Metrics) -> None:
        self._servers, self._inbox = settings.nats_url.split(","), settings.nats_inbox_prefix
        self._shown = ", ".join(map(without_secrets, self._servers))
        self._outage, self._unsent_gauge = metrics.outage.labels("nats"), metrics.unsent
        self._unsent: deque[tuple[str, bytes]] = deque(maxlen=_UNSENT)
        self.client: Client | None = None
        """The present client; None while there is none."""
        self.jetstream: JetStreamContext | None = None
        """JetStream over the present client."""
        self.closed = asyncio.Event()
        """Set while there is no client."""
        self.closed.set()
        self.reason: str | None = "not connected yet"
        """Why NATS cannot be used now; None where it can."""
        self.on_lost: list[Callable[[], None]] = []
        """Called when a client is lost."""

    async def run(self, session: Callable[[Client, JetStreamContext], Awaitable[None]]) -> None:
        """Connect, run ``session``, and again, until a session returns with its client still open."""
        pause = _PAUSE
        while True:
            try:
                client = await self._connect()
            except (OSError, NatsError, TimeoutError) as error:
                self._lost(str(error) or "no answer in time")
                await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 (many workers come back together)
                pause = min(pause * 2, _LONGEST)
                continue
            pause = _PAUSE
            jetstream = client.jetstream(timeout=_CONNECT)
            self._found(client, jetstream)
            try:
                await self._send_unsent()
                await session(client, jetstream)
            except OutageError as error:
                self._lost(str(error))
                await _close(client)
                await asyncio.sleep(_PAUSE)
            except (OSError, NatsError, TimeoutError) as error:
                self._lost(str(error) or type(error).__name__)
                await _close(client)
                await asyncio.sleep(_PAUSE)
            else:
                return

    async def answer(self, replies: Iterable[str], answer: bytes = ACK) -> None:
        """Answer deliveries. What cannot be sent now is sent when NATS is back; a lost answer means a redelivery."""
        client, left = self.client, iter(replies)
        if client is not None:
            for reply in left:
                try:
                    await client.publish(reply, answer)
                except (OSError, NatsError):
                    self._unsent.append((reply, answer))
                    break
        self._unsent.extend((reply, answer) for reply in left)
        self._unsent_gauge.set(len(self._unsent))

    async def report_progress(self, replies: Iterable[str]) -> None:
        """Tell JetStream that these deliveries are still being worked on, where it can be told."""
        client = self.client
        if client is None:
            return
        try:
            for reply in replies:
                await client.publish(reply, _PROGRESS)
        except (OSError, NatsError) as error:
            _log.debug("progress could not be reported", reason=str(error))

    async def flush(self) -> None:
        """Wait until NATS has what was sent."""
        if self.client is not None:
            try:
                await self.client.flush(timeout=_FLUSH)
            except (OSError, NatsError, TimeoutError) as error:
                _log.warning("the last answers may be lost: their messages will come again", reason=str(error))

    async def close(self) -> None:
        """Flush and close."""
        client = self.client
        await self.flush()
        self.client = self.jetstream = None
        if client is not None:
            await _close(client)

    async def _connect(self) -> Client:
        last: list[Exception] = []

        async def note(error: Exception) -> None:
            last[:] = [error]

        client = Client()

        async def closed() -> None:
            # A replaced client can close late: only the present one's end counts.
            if self.client is client:
                self._lost(str(last[0]) if last else "the connection was closed")

        try:
            async with asyncio.timeout(_CONNECT * 2):
                await client.connect(
                    self._servers,
                    name="nomnom-worker",
                    inbox_prefix=self._inbox,
                    allow_reconnect=False,
                    connect_timeout=_CONNECT,
                    # nats-py goes through the servers this often even where it may not reconnect.
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    ping_interval=20,
                    flush_timeout=_CONNECT,
                    error_cb=note,
                    closed_cb=closed,
                    # The subjects we publish to are JetStream's own, and those of nomnom.envelope.
                    skip_subject_validation=True,
                )
        except NatsError as error:
            await _close(client)
            raise last[0] if last else error from error
        except BaseException:
            await _close(client)
            raise
        return client

    async def _send_unsent(self) -> None:
        waiting = list(self._unsent)
        self._unsent.clear()
        for reply, answer in waiting:
            await self.answer((reply,), answer)

    def _found(self, client: Client, jetstream: JetStreamContext) -> None:
        self.client, self.jetstream = client, jetstream
        self.closed.clear()
        self.reason = None
        self._outage.set(0)
        _log.info("NATS is there", url=self._shown)

    def _lost(self, reason: str) -> None:
        if reason != self.reason:
            _log.warning("NATS cannot be used", reason=reason, url=self._shown)
        self.client = self.jetstream = None
        self.closed.set()
        self.reason = reason
        self._outage.set(1)
        for call in self.on_lost:
            call()


async def _close(client: Client) -> None:
    """Close a client; what it still has to send is not waited for without end."""
    try:
        async with asyncio.timeout(_CLOSE):
            await client.close()
    except (OSError, NatsError, TimeoutError) as error:
        _log.debug("a client was closed by force", reason=str(error))
