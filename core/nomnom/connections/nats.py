"""The connection to NATS: opened, kept open, and closed, for every program alike."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime

from nats.aio.client import DEFAULT_PENDING_SIZE, Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError, NoRespondersError, NoServersError
from structlog.stdlib import BoundLogger

from nomnom.connections.client import FastClient
from nomnom.connections.errors import NatsUnavailable, NotSetUp, RequestError
from nomnom.connections.outage import Outage
from nomnom.retry import RECONNECT
from nomnom.settings import without_secrets
from nomnom.tasks import end

TIMEOUT = 5.0
"""Seconds that a request may take, unless its caller sets another limit."""
_CONNECT_TIMEOUT = 3
"""Seconds for each server of the URL."""
_PING_INTERVAL, _PINGS = 5, 2
_POLL = 0.1
_CLOSE = 2.0
_INITIAL = "not connected yet"
_FAILURES = (NatsError, OSError, TimeoutError)


class NatsConnection:
    """One client at a time; a client that is lost is replaced by a new one.

    nats-py's own reconnection is not used: it ends for good on some errors (an expired login, too many connections),
    and it buffers messages without reporting their loss. ``name`` is what NATS shows of the client. ``prepare`` is
    called with each new client before anyone else can use it. ``log`` gets a line when the connection is lost or back.
    ``checked_subjects``: whoever publishes has made sure that subjects are valid.
    """

    def __init__(
        self,
        url: str,
        name: str,
        *,
        inbox_prefix: str = "_INBOX",
        timeout: float = TIMEOUT,
        prepare: Callable[[Client], Awaitable[None]] | None = None,
        log: BoundLogger | None = None,
        checked_subjects: bool = False,
        pending_size: int = DEFAULT_PENDING_SIZE,
    ) -> None:
        self.address = without_secrets(url)
        """The URL as it may be shown."""
        self.timeout = timeout
        self._servers, self._name, self._inbox_prefix = url.split(","), name, inbox_prefix
        self._prepare, self._log = prepare, log
        self._checked_subjects, self._pending_size = checked_subjects, pending_size
        self._keeping: asyncio.Task[None] | None = None
        self._running = False
        self._settled = asyncio.Event()  # no attempt to connect is under way
        self._disturbed = asyncio.Event()  # nats-py has reported an error
        self._error = ""  # the last one
        self.current: Client | None = None
        """The present client; None while there is none."""
        self.lost = asyncio.Event()
        """Set while there is no client."""
        self.lost.set()
        self._outage = Outage(_INITIAL)
        self.since: datetime | None = None
        """When the problem began; None while there is none, and before the first attempt."""
        self.watchers: list[Callable[[str | None], None]] = []
        """Called with the problem after each loss and each failed attempt, and with None after connecting."""

    @property
    def problem(self) -> str | None:
        """Why NATS cannot be used now; None while it can."""
        return self._outage.reason

    @property
    def connected(self) -> bool:
        """Whether NATS can be used now."""
        return self.current is not None and self.current.is_connected

    def client(self) -> Client:
        """The connected client; raises NatsUnavailable, at once, while there is none."""
        client = self.current
        if client is None or not client.is_connected:
            raise self.unavailable(self.problem or "the connection broke")
        return client

    async def connect(self) -> Client:
        """The connected client, after the attempt that is under way; the first call begins one.

        Raises NatsUnavailable, at once between two attempts.
        """
        if not self.connected:
            self.start()
            await self._settled.wait()
        return self.client()

    def start(self) -> None:
        """Connect, and stay connected until :meth:`close`, in the background; does nothing if that is so already."""
        if not self._running:
            self._running = True
            self._settled.clear()
            self._keeping = asyncio.create_task(self.run(), name="nats connection")

    async def run(self, session: Callable[[Client], Awaitable[None]] | None = None) -> None:
        """Connect and await ``session``, and again after each loss, until a session returns with its client open.

        A session may raise NatsUnavailable to have its client replaced. Without one, this runs until cancelled.
        """
        self._running = True
        failures = 0
        try:
            while True:
                self._settled.clear()
                try:
                    client = await self._open()
                except NatsUnavailable as error:
                    failures += 1
                    self._fail(error.reason)
                    self._settled.set()
                    await asyncio.sleep(RECONNECT.wait(failures))
                    continue
                failures = 0
                self._found(client)
                self._settled.set()
                if await self._use(client, session):
                    return
                await asyncio.sleep(RECONNECT.wait(1))
        finally:
            self._running = False
            self._settled.set()

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        *,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
        missing: str = "JetStream is not enabled there",
    ) -> Msg:
        """Send a request and return the response. Raises NatsUnavailable, NotSetUp (with the text ``missing``) if
        nothing responds to that subject, and RequestError for a payload that is too large.
        """
        client = await self.connect()
        limit = timeout or self.timeout
        try:
            return await client.request(subject, payload, timeout=limit, headers=dict(headers) if headers else None)
        except NoRespondersError as error:
            raise NotSetUp(f"{missing} (NATS at {self.address})") from error
        except MaxPayloadError as error:
            raise RequestError(f"{len(payload):,} bytes are more than NATS takes in one message") from error
        except TimeoutError as error:
            raise self.unavailable(f"no response in {limit:g} s") from error
        except (NatsError, OSError) as error:
            raise self.unavailable(text_of(error)) from error

    async def round_trip(self) -> float:
        """Seconds that NATS takes to respond to a ping; raises NatsUnavailable."""
        client = await self.connect()
        begun = asyncio.get_running_loop().time()
        try:
            await client.flush(int(self.timeout))
        except _FAILURES as error:
            raise self.unavailable(text_of(error)) from error
        return asyncio.get_running_loop().time() - begun

    def unavailable(self, reason: str) -> NatsUnavailable:
        """The error for a call that NATS did not serve."""
        text = f"NATS at {self.address} is unavailable: {reason}; check that it runs, then try again"
        return NatsUnavailable(text, reason, self.since)

    async def close(self) -> None:
        """Send what is buffered and close, within a few seconds; the next :meth:`connect` opens it again."""
        await end(self._keeping)
        client, self._keeping, self.current = self.current, None, None
        # A task that is cancelled before its first step does not do this itself.
        self._running = False
        self._settled.set()
        self.lost.set()
        if client is not None:
            await self._discard(client)
        self._outage, self.since = Outage(_INITIAL), None

    async def _open(self) -> Client:
        client, self._error = FastClient(), ""
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT * len(self._servers)):
                await client.connect(
                    self._servers,
                    name=self._name,
                    inbox_prefix=self._inbox_prefix,
                    allow_reconnect=False,
                    connect_timeout=_CONNECT_TIMEOUT,
                    # nats-py goes through the servers this often even if it may not reconnect.
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    ping_interval=_PING_INTERVAL,
                    max_outstanding_pings=_PINGS,
                    flush_timeout=TIMEOUT,
                    pending_size=self._pending_size,
                    error_cb=self._note,
                    closed_cb=self._look,
                    skip_subject_validation=self._checked_subjects,
                )
                if self._prepare is not None:
                    await self._prepare(client)
        except _FAILURES as error:
            await self._discard(client)
            # nats-py raises "no servers" for whatever made the last of them fail.
            reason = self._error if isinstance(error, NoServersError) else ""
            raise self.unavailable(reason or text_of(error)) from error
        except BaseException:
            await self._discard(client)
            raise
        return client

    async def _use(self, client: Client, session: Callable[[Client], Awaitable[None]] | None) -> bool:
        """Run a session over a client; returns whether it ended with its client open."""
        watching = asyncio.create_task(self._watch(client), name="nats client")
        reason = ""
        try:
            if session is None:
                await self.lost.wait()
            else:
                await session(client)
        except NatsUnavailable as error:
            reason = error.reason
        except _FAILURES as error:
            reason = text_of(error)
        else:
            if not self.lost.is_set():
                return True
        finally:
            await end(watching)
        self._lose(client, reason)
        await self._discard(client)
        return False

    async def _watch(self, client: Client) -> None:
        """Notice the end of a client soon: nats-py calls back only after it has closed the socket, if it can."""
        while client.is_connected:
            self._disturbed.clear()
            try:
                async with asyncio.timeout(_POLL):
                    await self._disturbed.wait()
            except TimeoutError:
                continue
            if client.is_connected and self._log is not None:
                self._log.warning("NATS reported an error", reason=self._error, url=self.address)
        self._lose(client, self._error)

    async def _note(self, error: Exception) -> None:
        self._error = text_of(error)
        self._disturbed.set()

    async def _look(self) -> None:
        client = self.current
        if client is not None and not client.is_connected:
            self._lose(client, self._error)

    def _found(self, client: Client) -> None:
        self.current = client
        self._outage.end()
        self.since = None
        self.lost.clear()
        if self._log is not None:
            self._log.info("NATS is connected", url=self.address)
        for each in self.watchers:
            each(None)

    def _lose(self, client: Client, reason: str) -> None:
        if self.current is client:
            self.current = None
            self.lost.set()
            self._fail(reason or "the connection was closed")

    def _fail(self, reason: str) -> None:
        self.since = self.since or datetime.now(UTC)
        if self._outage.report(reason) and self._log is not None:
            self._log.warning("NATS is unavailable", reason=reason, url=self.address)
        for each in self.watchers:
            each(self.problem)

    async def _discard(self, client: Client) -> None:
        """Close a client; what it still has to send is not waited for without end."""
        try:
            async with asyncio.timeout(_CLOSE):
                await client.close()
        except _FAILURES as error:
            if self._log is not None:
                self._log.debug("a client was closed by force", reason=text_of(error))


def text_of(error: BaseException) -> str:
    """What an error says, or its name if it says nothing."""
    if isinstance(error, TimeoutError):
        return "no response in time"
    return (str(error) or type(error).__name__).removeprefix("nats: ")
