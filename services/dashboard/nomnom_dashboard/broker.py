"""NATS as the dashboard uses it: the state of streams and consumer, and messages read without consuming them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from nomnom.envelope import INGEST
from nomnom.settings import Settings, without_secrets
from nomnom.tasks import end
from nomnom.telemetry import logger
from nomnom_dashboard.errors import UnavailableError

SOURCE = "NATS"
_TIMEOUT = 3.0
_BATCH_BYTES = 8 * 1024 * 1024
_NOT_FOUND = 404
_END_OF_BATCH = "204"
T = TypeVar("T")
_log = logger(__name__)


class StreamState(msgspec.Struct, frozen=True):
    """What JetStream counts of a stream."""

    messages: int
    bytes: int
    first_seq: int
    last_seq: int
    first_ts: datetime
    num_deleted: int = 0
    deleted: list[int] | None = None


class StreamLimits(msgspec.Struct, frozen=True):
    """How much a stream may hold; below 1: no limit."""

    max_bytes: int = -1


class StreamInfo(msgspec.Struct, frozen=True):
    """A stream as it is now."""

    config: StreamLimits
    state: StreamState


class Delivered(msgspec.Struct, frozen=True):
    """How far a consumer's deliveries have come."""

    stream_seq: int = 0


class ConsumerInfo(msgspec.Struct, frozen=True):
    """A consumer as it is now. ``num_waiting`` counts its unanswered pull requests."""

    delivered: Delivered
    num_pending: int = 0
    num_ack_pending: int = 0
    num_redelivered: int = 0
    num_waiting: int = 0
    paused: bool = False


class _ApiError(msgspec.Struct):
    code: int
    description: str = ""


class _ApiAnswer(msgspec.Struct):
    error: _ApiError | None = None


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message as a stream holds it."""

    subject: str
    sequence: int
    stored_at: datetime
    headers: Mapping[str, str]
    payload: bytes


class Broker:
    """One connection that comes back by itself; every question has a time limit and fails as UnavailableError."""

    def __init__(self, settings: Settings) -> None:
        self.url, self.streams = settings.nats_url, settings.streams
        self._inbox = settings.nats_inbox_prefix
        self._client = Client()
        self._connecting: asyncio.Task[None] | None = None
        self._problem = "not connected yet"

    @property
    def address(self) -> str:
        """The URL as it may be shown."""
        return without_secrets(self.url)

    def start(self) -> None:
        """Begin to connect; it goes on trying in the background."""
        self._connecting = asyncio.create_task(self._connect(), name="nats connection")

    async def close(self) -> None:
        """Stop trying, and close."""
        await end(self._connecting)
        if self._client.is_connected or self._client.is_reconnecting:
            await self._client.close()

    async def round_trip(self) -> float:
        """Seconds that the server takes to answer."""
        client = self._connected()
        begun = asyncio.get_running_loop().time()
        try:
            await client.flush(int(_TIMEOUT))
        except (NatsError, OSError, TimeoutError) as error:
            raise self._away(error) from error
        return asyncio.get_running_loop().time() - begun

    async def stream(self, name: str, *, deleted: bool = False) -> StreamInfo:
        """A stream's state, with its deleted sequences if asked."""
        request = b'{"deleted_details":true}' if deleted else b""
        return await self._api(f"STREAM.INFO.{name}", request, StreamInfo, f"stream {name}")

    async def consumer(self) -> ConsumerInfo:
        """The workers' consumer."""
        stream, consumer = self.streams.stream, self.streams.consumer
        return await self._api(f"CONSUMER.INFO.{stream}.{consumer}", b"", ConsumerInfo, f"consumer {consumer}")

    async def last_of_message(self, message_id: str, stream: str, prefix: str = INGEST) -> StoredMessage | None:
        """What a stream holds of a message, whatever its entity, or None."""
        return await self._direct(stream, {"last_by_subj": f"{prefix}.*.{message_id}"})

    async def at(self, stream: str, sequence: int) -> StoredMessage | None:
        """The message of that sequence, or None where there is none (any more)."""
        return await self._direct(stream, {"seq": sequence})

    async def batch(self, stream: str, sequence: int, count: int) -> list[StoredMessage]:
        """Up to ``count`` messages from ``sequence`` on, in one request (direct get in batches: ADR-31)."""
        client = self._connected()
        inbox, answers = client.new_inbox(), asyncio.Queue[Msg]()
        found: list[StoredMessage] = []
        try:
            subscription = await client.subscribe(inbox, cb=answers.put)
        except NatsError as error:
            raise self._away(error) from error
        try:
            request = {"seq": sequence, "batch": count, "max_bytes": _BATCH_BYTES, "next_by_subj": ">"}
            await client.publish(f"$JS.API.DIRECT.GET.{stream}", msgspec.json.encode(request), reply=inbox)
            while True:
                async with asyncio.timeout(_TIMEOUT):
                    answer = await answers.get()
                status = (answer.headers or {}).get("Status")
                if status is None:
                    found.append(_stored(answer))
                elif status == _END_OF_BATCH or (status == str(_NOT_FOUND) and not found):
                    return found
                else:
                    what = (answer.headers or {}).get("Description", "no description")
                    raise UnavailableError(f"{SOURCE}: stream {stream}: {status} {what}")
        except (NatsError, OSError, TimeoutError) as error:
            raise self._away(error) from error
        finally:
            if not client.is_closed:
                await subscription.unsubscribe()

    async def _direct(self, stream: str, request: dict[str, Any]) -> StoredMessage | None:
        client = self._connected()
        subject = f"$JS.API.DIRECT.GET.{stream}"
        try:
            answer = await client.request(subject, msgspec.json.encode(request), timeout=_TIMEOUT)
        except (NatsError, OSError, TimeoutError) as error:
            raise self._away(error) from error
        headers = answer.headers or {}
        if status := headers.get("Status"):
            if status == str(_NOT_FOUND):
                return None
            raise UnavailableError(f"{SOURCE}: stream {stream}: {status} {headers.get('Description', '')}")
        return _stored(answer)

    async def _api(self, subject: str, request: bytes, kind: type[T], what: str) -> T:
        client = self._connected()
        try:
            answer = await client.request(f"$JS.API.{subject}", request, timeout=_TIMEOUT)
        except (NatsError, OSError, TimeoutError) as error:
            raise self._away(error) from error
        if error := msgspec.json.decode(answer.data, type=_ApiAnswer).error:
            hint = ": run nomnom setup" if error.code == _NOT_FOUND else ""
            raise UnavailableError(f"{SOURCE}: {what}: {error.description}{hint}")
        return msgspec.json.decode(answer.data, type=kind)

    def _connected(self) -> Client:
        if not self._client.is_connected:
            raise UnavailableError(f"{SOURCE}: {self.address} is away: {self._problem}")
        return self._client

    def _away(self, error: BaseException) -> UnavailableError:
        problem = "no answer" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
        return UnavailableError(f"{SOURCE}: {self.address}: {problem}")

    async def _connect(self) -> None:
        while True:
            try:
                await self._client.connect(
                    self.url,
                    name="nomnom-dashboard",
                    inbox_prefix=self._inbox,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=1,
                    connect_timeout=3,
                    ping_interval=10,
                    max_outstanding_pings=2,
                    error_cb=self._note,
                    disconnected_cb=self._disconnected,
                    reconnected_cb=self._reconnected,
                )
            except (NatsError, OSError, TimeoutError) as error:
                await self._note(error)
                await asyncio.sleep(1)
            else:
                return

    async def _note(self, error: Exception) -> None:
        problem = str(error) or type(error).__name__
        if problem != self._problem:
            _log.warning("nats", url=self.address, problem=problem)
        self._problem = problem

    async def _disconnected(self) -> None:
        self._problem = "connection lost"

    async def _reconnected(self) -> None:
        _log.info("nats is back", url=self.address)


def _stored(answer: Msg) -> StoredMessage:
    headers = answer.headers or {}
    return StoredMessage(
        subject=headers["Nats-Subject"],
        sequence=int(headers["Nats-Sequence"]),
        stored_at=msgspec.convert(headers["Nats-Time-Stamp"], datetime),
        headers=headers,
        payload=answer.data,
    )
