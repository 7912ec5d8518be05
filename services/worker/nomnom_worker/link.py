"""The worker's connection to NATS, and the acknowledgements that go over it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from nats.aio.client import Client
from nats.errors import Error as NatsError

from nomnom.connections.nats import NatsConnection, text_of
from nomnom.telemetry import logger
from nomnom_worker.metrics import Metrics
from nomnom_worker.settings import WorkerSettings

_log = logger(__name__)
_UNSENT = 100_000
_FLUSH = 5
ACK = b""
_PROGRESS = b"+WPI"


def nak(delay: float = 0.0) -> bytes:
    """The answer that asks for the message again, after ``delay`` seconds."""
    return b'-NAK {"delay": %d}' % round(delay * 1e9) if delay else b"-NAK"


class Link(NatsConnection):
    """A connection that keeps answers to deliveries while NATS is unavailable, and sends them when it is back."""

    def __init__(self, settings: WorkerSettings, metrics: Metrics) -> None:
        super().__init__(
            settings.nats_url,
            "nomnom-worker",
            inbox_prefix=settings.nats_inbox_prefix,
            prepare=self._send_unsent,
            log=_log,
            # The subjects we publish to are JetStream's own, and those of nomnom.envelope.
            checked_subjects=True,
        )
        outage, self._unsent_gauge = metrics.outage.labels("nats"), metrics.unsent
        self.watchers.append(lambda problem: outage.set(problem is not None))
        self._unsent: deque[tuple[str, bytes]] = deque(maxlen=_UNSENT)

    async def answer(self, replies: Iterable[str], answer: bytes = ACK) -> None:
        """Answer deliveries. What cannot be sent now is sent when NATS is back; a lost answer means a redelivery."""
        client, left = self.current, iter(replies)
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
        """Report to JetStream that these deliveries are in progress, if it is connected."""
        client = self.current
        if client is None:
            return
        try:
            for reply in replies:
                await client.publish(reply, _PROGRESS)
        except (OSError, NatsError) as error:
            _log.debug("progress could not be reported", reason=text_of(error))

    async def flush(self) -> None:
        """Wait until NATS has what was sent."""
        if self.current is not None:
            try:
                await self.current.flush(timeout=_FLUSH)
            except (OSError, NatsError, TimeoutError) as error:
                _log.warning("acknowledgements may be lost: redelivery is expected", reason=text_of(error))

    async def close(self) -> None:
        """Flush and close."""
        await self.flush()
        await super().close()

    async def _send_unsent(self, client: Client) -> None:
        while self._unsent:
            await client.publish(*self._unsent[0])
            self._unsent.popleft()
        self._unsent_gauge.set(0)
