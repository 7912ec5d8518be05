"""Streams and the consumer: their definitions, and the function that creates them.

Only ``nomnom setup`` and the local runtime call :func:`ensure_streams`: there may be no worker to do it.
"""

from __future__ import annotations

from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)
from nats.js.errors import APIError, NotFoundError

from nomnom.envelope import DEAD, INGEST
from nomnom.errors import NomnomError
from nomnom.settings.streams import StreamSettings

DUPLICATE_WINDOW = 120.0
MAX_MSG_SIZE = 1024 * 1024 + 64 * 1024
"""A body of 1 MiB and its headers, in bytes; must not exceed nats-server's max_payload (see MAX_PAYLOAD)."""
MAX_PAYLOAD = 2 * 1024 * 1024
"""The max_payload that nats-server is configured with, in bytes."""


_TRANSIENT = frozenset({10004, 10005, 10008, 10009, 10023})
"""JetStream error codes of a cluster that is still forming: no quorum, peers, leader or resources yet."""


class StreamError(NomnomError):
    """A stream or consumer that cannot be created or updated."""


class StreamsNotReadyError(StreamError):
    """JetStream is not ready yet: its cluster may still be forming."""


def message_stream(settings: StreamSettings) -> StreamConfig:
    """The stream MESSAGES: a work queue that rejects new messages when full, so that no accepted message is dropped."""
    return StreamConfig(
        name=settings.stream,
        description="messages to be written to PostgreSQL",
        subjects=[f"{INGEST}.>"],
        retention=RetentionPolicy.WORK_QUEUE,
        storage=StorageType.FILE,
        discard=DiscardPolicy.NEW,
        max_age=settings.max_age,
        max_bytes=settings.max_bytes,
        max_msg_size=MAX_MSG_SIZE,
        num_replicas=settings.replicas,
        duplicate_window=DUPLICATE_WINDOW,
        allow_direct=True,
        # The API publishes in atomic batches, so that messages share an fsync.
        allow_atomic=True,
    )


def dead_stream(settings: StreamSettings) -> StreamConfig:
    """The stream MESSAGESDLQ: retained by limits, read by sequence. When it is full, workers keep the message."""
    return StreamConfig(
        name=settings.dead_stream,
        description="dead letters, awaiting review",
        subjects=[f"{DEAD}.>"],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        discard=DiscardPolicy.NEW,
        max_age=settings.dead_max_age,
        max_bytes=settings.dead_max_bytes,
        max_msg_size=MAX_PAYLOAD,
        num_replicas=settings.replicas,
        duplicate_window=DUPLICATE_WINDOW,
        allow_direct=True,
    )


def worker_consumer(settings: StreamSettings) -> ConsumerConfig:
    """The workers' consumer. JetStream redelivers without limit; the workers count attempts and decide."""
    return ConsumerConfig(
        durable_name=settings.consumer,
        description="the workers",
        deliver_policy=DeliverPolicy.ALL,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=settings.ack_wait,
        max_deliver=-1,
        max_ack_pending=settings.max_ack_pending,
        filter_subject=f"{INGEST}.>",
        num_replicas=settings.replicas,
    )


async def ensure_streams(jetstream: JetStreamContext, settings: StreamSettings) -> list[str]:
    """Create or update both streams and the consumer; returns one line for each. Raises StreamError."""
    done: list[str] = []
    for config in (message_stream(settings), dead_stream(settings)):
        try:
            if await _stream_exists(jetstream, str(config.name)):
                await jetstream.update_stream(config)
                done.append(f"stream {config.name}: up to date")
            else:
                await jetstream.add_stream(config)
                done.append(f"stream {config.name}: created")
        except APIError as error:
            raise _error(error)(
                f"stream {config.name} ({', '.join(config.subjects or [])}): {error.description}; remove what "
                "conflicts with it, or change the setting"
            ) from error
    try:
        await jetstream.add_consumer(settings.stream, worker_consumer(settings))
        done.append(f"consumer {settings.consumer}: up to date")
    except APIError as error:
        problem = f"consumer {settings.consumer} of {settings.stream}: {error.description}"
        raise _error(error)(f"{problem}; delete that consumer, or use its name as NATS_CONSUMER") from error
    return done


def _error(error: APIError) -> type[StreamError]:
    return StreamsNotReadyError if error.code == 503 or error.err_code in _TRANSIENT else StreamError


async def _stream_exists(jetstream: JetStreamContext, name: str) -> bool:
    try:
        await jetstream.stream_info(name)
    except NotFoundError:
        return False
    return True
