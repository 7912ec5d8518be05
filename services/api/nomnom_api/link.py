"""The connection to NATS: made, kept, and made again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from nats.aio.client import Client
from nats.errors import Error as NatsError

from nomnom.settings import Settings, without_secrets
from nomnom.tasks import end
from nomnom.telemetry import logger
from nomnom_api.errors import UnavailableError

_log = logger(__name__)
_CONNECT = 3
_PAUSE, _LONGEST = 0.1, 1.0
_POLL = 0.05
_PATIENCE = 5.0
_CLOSE = 2.0


class Link:
    """One client at a time, which reconnects by itself; one that cannot is replaced by a new one.

    nats-py's own reconnection ends for good on some errors (an expired login, a protocol error).
    """

    def __init__(
        self, settings: Settings, opened: Callable[[Client], Awaitable[None]], lost: Callable[[str], None]
    ) -> None:
        self._servers, self._inbox = settings.nats_url.split(","), settings.nats_inbox_prefix
        self._shown = ", ".join(map(without_secrets, self._servers))
        self._opened, self._lost = opened, lost
        self._running: asyncio.Task[None] | None = None
        self._client: Client | None = None
        self._reason = "not connected yet"
        self._down = asyncio.Event()

    @property
    def client(self) -> Client:
        """The connected client; raises UnavailableError, at once, where there is none."""
        client = self._client
        if client is None or not client.is_connected:
            raise UnavailableError(f"NATS at {self._shown} is away: {self._reason}; try again")
        return client

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._client is not None and self._client.is_connected

    def start(self) -> None:
        """Begin to connect; it goes on in the background, however long NATS is away."""
        self._running = asyncio.create_task(self._run(), name="nats link")

    async def close(self) -> None:
        """Stop, flush and close."""
        await end(self._running)
        client, self._client = self._client, None
        if client is not None:
            await self._discard(client)

    async def _run(self) -> None:
        pause = _PAUSE
        while True:
            client = Client()
            try:
                async with asyncio.timeout(2 * _CONNECT):
                    await self._connect(client)
                    await self._opened(client)
            except (OSError, NatsError, TimeoutError) as error:
                await self._note(error)
                await self._discard(client)
                await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 (many come back together)
                pause = min(2 * pause, _LONGEST)
                continue
            pause = _PAUSE
            self._client = client
            _log.info("connected to nats", url=self._shown)
            await self._watch(client)
            self._client = None
            await self._discard(client)

    async def _watch(self, client: Client) -> None:
        """Return when the client has to be replaced. What waits for acks is told of a loss when it is seen."""
        loop = asyncio.get_running_loop()
        away_since: float | None = None
        while not client.is_closed:
            if client.is_connected:
                away_since = None
            elif away_since is None:
                away_since = loop.time()
                self._lost(self._reason)
            elif loop.time() - away_since > _PATIENCE:
                return
            self._down.clear()
            try:
                async with asyncio.timeout(_POLL):
                    await self._down.wait()
            except TimeoutError:
                continue
        self._lost(self._reason)

    async def _connect(self, client: Client) -> None:
        await client.connect(
            self._servers,
            name="nomnom-api",
            inbox_prefix=self._inbox,
            connect_timeout=_CONNECT,
            max_reconnect_attempts=-1,
            reconnect_time_wait=1,
            ping_interval=5,
            max_outstanding_pings=2,
            # Nothing is buffered while the connection is away: the client is told at once.
            pending_size=0,
            # Subjects are made of the schema's names and UUIDs alone.
            skip_subject_validation=True,
            error_cb=self._note,
            disconnected_cb=self._disconnected,
            reconnected_cb=self._reconnected,
        )

    async def _discard(self, client: Client) -> None:
        try:
            async with asyncio.timeout(_CLOSE):
                await client.close()
        except (OSError, NatsError, TimeoutError) as error:
            _log.debug("a broken connection did not close in order", reason=str(error))

    async def _note(self, error: Exception) -> None:
        reason = (str(error) or type(error).__name__).removeprefix("nats: ")
        if reason != self._reason:
            _log.warning("nats", url=self._shown, reason=reason)
        self._reason = reason
        self._down.set()

    async def _disconnected(self) -> None:
        self._lost(self._reason)
        self._down.set()

    async def _reconnected(self) -> None:
        _log.info("nats is back", url=self._shown)
