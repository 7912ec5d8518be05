"""Streams and the consumer: their definitions, and the function that creates or updates them.

Only ``nomnom setup`` and the local runtime call :func:`ensure_streams`: there may be no worker to do it. The streams
have no maximum age: JetStream would drop what reaches it. The ages are in the streams' metadata, and the housekeeper
moves messages to the dead letters, and dead letters to the archive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any

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

from nomnom.connections.errors import NotSetUp
from nomnom.connections.nats import NatsConnection
from nomnom.envelope import DEAD, INGEST
from nomnom.errors import NomnomError
from nomnom.inspection.jetstream import JetStream
from nomnom.inspection.retention import MAX_AGE, count_older, maximum_age, maximum_age_of
from nomnom.settings.streams import StreamSettings

DUPLICATE_WINDOW = 120.0
_TIMEOUT = 10
MAX_MSG_SIZE = 1024 * 1024 + 64 * 1024
"""A body of 1 MiB and its headers, in bytes; must not exceed nats-server's max_payload (see MAX_PAYLOAD)."""
MAX_PAYLOAD = 2 * 1024 * 1024
"""The max_payload that nats-server is configured with, in bytes."""


_TRANSIENT = frozenset({10004, 10005, 10008, 10009, 10023})
"""JetStream error codes of a cluster that is still forming: no quorum, peers, leader or resources yet."""


class StreamError(NomnomError):
    """A stream or consumer that cannot be created or updated."""


class RefusedExpiry(StreamError):  # noqa: N818
    """Lower limits would move messages or dead letters, and their number is not confirmed."""


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
        max_age=0,
        metadata={MAX_AGE: f"{settings.max_age:.15g}"},
        max_bytes=settings.max_bytes,
        max_msg_size=MAX_MSG_SIZE,
        num_replicas=settings.replicas,
        duplicate_window=DUPLICATE_WINDOW,
        allow_direct=True,
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
        max_age=0,
        metadata={MAX_AGE: f"{settings.dead_max_age:.15g}"},
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


async def ensure_streams(nats: NatsConnection, settings: StreamSettings, expire: int = 0) -> list[str]:
    """Create or update both streams and the consumer; returns one line for each.

    Lowering a maximum age so that messages or dead letters have reached it is refused, before anything is changed,
    unless ``expire`` is their number. Raises RefusedExpiry, StreamError or RequestError.
    """
    jetstream = (await nats.connect()).jetstream(timeout=_TIMEOUT)
    await _check_ages(nats, settings, expire)
    done = [await _ensure_stream(jetstream, config) for config in (message_stream(settings), dead_stream(settings))]
    return [*done, await _ensure_consumer(jetstream, settings)]


async def _check_ages(nats: NatsConnection, settings: StreamSettings, expire: int) -> None:
    """Raise RefusedExpiry if a lower age would move another number of messages and dead letters than ``expire``."""
    limits = (
        (settings.stream, settings.max_age, "NATS_MAX_AGE", "messages", "become dead letters"),
        (settings.dead_stream, settings.dead_max_age, "NATS_DEAD_MAX_AGE", "dead letters", "be archived"),
    )
    reading, problems, total = JetStream(nats), list[str](), 0
    for stream, limit, name, what, fate in limits:
        try:
            report = await reading.stream(stream)
        except NotSetUp:
            continue
        present = maximum_age_of(report)
        if present is None or limit < present:
            older = await count_older(nats, report, datetime.now(UTC) - timedelta(seconds=limit))
            if older:
                before = "no limit" if present is None else f"{present:g} s"
                problems.append(f"{older:,} {what} are older than {limit:g} s and would {fate} ({name}, now {before})")
                total += older
    if total != expire and problems:
        raise RefusedExpiry(
            f"{'; '.join(problems)}; keep the limit, or confirm the number: nomnom setup --expire {total} "
            f"(NOMNOM_SETUP_EXPIRE={total})"
        )


async def _ensure_stream(jetstream: JetStreamContext, config: StreamConfig) -> str:
    try:
        try:
            info = await jetstream.stream_info(str(config.name))
        except NotFoundError:
            await jetstream.add_stream(config)
            return f"stream {config.name}: created"
        present = info.config
        # What nats-server adds itself (_nats.*), and what others have added, stays.
        wanted = present.evolve(
            **{**_given(config), "metadata": {**(present.metadata or {}), **(config.metadata or {})}}
        )
        if changes := _changes(present, wanted):
            await jetstream.update_stream(wanted)
    except APIError as error:
        raise _error(error)(
            f"stream {config.name} ({', '.join(config.subjects or [])}): {error.description}; remove what "
            "conflicts with it, or change the setting"
        ) from error
    if not changes:
        return f"stream {config.name}: up to date"
    full = f" (it holds {info.state.bytes:,} bytes and takes no more messages until there is room)"
    over = "max_bytes" in changes and 0 < (wanted.max_bytes or 0) < info.state.bytes
    return f"stream {config.name}: updated: {', '.join(changes.values())}{full if over else ''}"


async def _ensure_consumer(jetstream: JetStreamContext, settings: StreamSettings) -> str:
    config = worker_consumer(settings)
    changes: Mapping[str, str] | None = None
    try:
        try:
            present = (await jetstream.consumer_info(settings.stream, settings.consumer)).config
            changes = _changes(present, present.evolve(**_given(config)))
        except NotFoundError:
            pass
        if changes is None or changes:
            await jetstream.add_consumer(settings.stream, config)
    except APIError as error:
        problem = f"consumer {settings.consumer} of {settings.stream}: {error.description}"
        raise _error(error)(f"{problem}; delete that consumer, or use its name as NATS_CONSUMER") from error
    if changes is None:
        return f"consumer {settings.consumer}: created"
    return f"consumer {settings.consumer}: {'updated: ' + ', '.join(changes.values()) if changes else 'up to date'}"


def _given(config: StreamConfig | ConsumerConfig) -> dict[str, Any]:
    """The options that a definition sets itself."""
    unset = type(config)()
    return {
        each.name: value
        for each in fields(config)
        if (value := getattr(config, each.name)) != getattr(unset, each.name)
    }


def _changes(present: StreamConfig | ConsumerConfig, wanted: StreamConfig | ConsumerConfig) -> dict[str, str]:
    """The options that differ, each with a description of its change."""
    found: dict[str, str] = {}
    for each in fields(wanted):
        before, after = getattr(present, each.name), getattr(wanted, each.name)
        if (before or None) == (after or None):
            continue
        if each.name == "metadata":
            before, after = (maximum_age(value) for value in (before, after))
            former = f"{_shown(before)} s → " if before else ""
            found[each.name] = f"maximum age {former}{_shown(after)} s (in its metadata)"
        else:
            found[each.name] = f"{each.name} {_shown(before)} → {_shown(after)}"
    return found


def _shown(value: Any) -> str:
    return f"{value:.15g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value or "unset")


def _error(error: APIError) -> type[StreamError]:
    return StreamsNotReadyError if error.code == 503 or error.err_code in _TRANSIENT else StreamError
