"""The worker's connection to NATS, and the acknowledgements that go over it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from nats.aio.client import Client
from nats.errors import Error as NatsError

from nomnom.connections.nats import NatsConnection, text_of
from nomnom.settings import WorkerSettings
from nomnom.telemetry import logger
from nomnom_worker.metrics import Metrics

_log = logger(__name__)
_UNSENT = 100_000
_FLUSH = 5
ACK = b""
_PROGRESS = b"+WPI"


def nak(delay: float = 0.0) -> bytes:
    """The negative acknowledgement that requests redelivery after ``delay`` seconds."""
    return b'-NAK {"delay": %d}' % round(delay * 1e9) if delay else b"-NAK"


class Link(NatsConnection):
    """A connection that keeps acks and naks while NATS is unavailable, and sends them after reconnecting."""

    def __init__(self, settings: WorkerSettings, metrics: Metrics) -> None:
        super().__init__(
            settings.nats_url,
            "nomnom-worker",
            inbox_prefix=settings.nats_inbox_prefix,
            prepare=self._send_unsent,
            log=_log,
            # Subjects come from JetStream and nomnom.envelope only.
            checked_subjects=True,
        )
        outage, self._unsent_gauge = metrics.outage.labels("nats"), metrics.unsent
        self.watchers.append(lambda problem: outage.set(problem is not None))
        self._unsent: deque[tuple[str, bytes]] = deque(maxlen=_UNSENT)

    async def respond(self, replies: Iterable[str], response: bytes = ACK) -> None:
        """Respond to deliveries with an ack or nak, now or after reconnecting; a lost one causes a redelivery."""
        client, left = self.current, iter(replies)
        if client is not None:
            for reply in left:
                try:
                    await client.publish(reply, response)
                except (OSError, NatsError):
                    self._unsent.append((reply, response))
                    break
        self._unsent.extend((reply, response) for reply in left)
        self._unsent_gauge.set(len(self._unsent))

    async def report_progress(self, replies: Iterable[str]) -> None:
        """Report to JetStream that these deliveries are in progress, if connected."""
        client = self.current
        if client is None:
            return
        try:
            for reply in replies:
                await client.publish(reply, _PROGRESS)
        except (OSError, NatsError) as error:
            _log.debug("cannot report progress", reason=text_of(error))

    async def flush(self) -> None:
        """Wait until NATS has received everything sent."""
        if self.current is not None:
            try:
                await self.current.flush(timeout=_FLUSH)
            except (OSError, NatsError, TimeoutError) as error:
                _log.warning("acknowledgements may be lost, expect redeliveries", reason=text_of(error))

    async def close(self) -> None:
        """Flush and close."""
        await self.flush()
        await super().close()

    async def _send_unsent(self, client: Client) -> None:
        while self._unsent:
            await client.publish(*self._unsent[0])
            self._unsent.popleft()
        self._unsent_gauge.set(0)
