"""Shared by the tests of control: a session with a deployment, dead letters, and the contents of streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from nats.js.api import RawStreamMsg

from conftest import ORDER, Deployment
from nomnom.envelope import Envelope, Reason, dead_headers, dead_subject, new_message_id
from nomnom.schema import load_schema
from nomnom_control.environments import Endpoints
from nomnom_control.session.pipeline import Pipeline

NOWHERE = "http://127.0.0.1:9"
RECEIVED = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
BROKEN = ORDER.replace("2024-01-01", "2024-13-01")
ERROR = "line 1, field o_orderdate (5): expected a date as YYYY-MM-DD, found '2024-13-01'"


@asynccontextmanager
async def open_session(deployment: Deployment, folder: Path, **changes: str) -> AsyncIterator[Pipeline]:
    """An operator's session with this deployment; ``changes`` replace endpoints."""
    given = {
        "api": NOWHERE,
        "nats": deployment.settings.nats_url,
        "nats_monitor": NOWHERE,
        "database": deployment.settings.database_url,
    }
    schema = load_schema(deployment.settings.nomnom_schema)
    endpoints = Endpoints(**{**given, **changes})
    async with Pipeline(endpoints, schema, deployment.streams, actor="tester@here", spool=folder) as pipeline:
        yield pipeline


async def bury(
    deployment: Deployment,
    payload: str | bytes = BROKEN,
    *,
    entity: str = "orders",
    reason: Reason = Reason.RECORD,
    error: str = ERROR,
    message_id: str | None = None,
    received_at: datetime = RECEIVED,
    failed_at: datetime | None = None,
    replays: int = 0,
    attempts: int = 3,
    position: int = 0,
) -> tuple[int, str]:
    """Publish a dead letter like a worker; returns its sequence and message id."""
    identity = message_id or new_message_id()
    envelope = Envelope(identity, entity, received_at, replays, position)
    headers = dead_headers(envelope, reason, error, attempts, failed_at or datetime.now(UTC))
    data = payload.encode() if isinstance(payload, str) else payload
    ack = await deployment.jetstream.publish(dead_subject(entity, identity), data, headers=headers)
    return ack.seq, identity


async def bury_many(deployment: Deployment, payloads: Sequence[str], **given: str) -> list[tuple[int, str]]:
    """Publish dead letters, in this order."""
    found: list[tuple[int, str]] = []
    for start in range(0, len(payloads), 200):
        found += await asyncio.gather(*(bury(deployment, each, **given) for each in payloads[start : start + 200]))
    return found


async def stored(deployment: Deployment, stream: str) -> list[RawStreamMsg]:
    """All messages of a stream in order, read through another JetStream API than the one under test."""
    state = (await deployment.jetstream.stream_info(stream)).state
    sequence, found = state.first_seq, list[RawStreamMsg]()
    while len(found) < state.messages:
        message = await deployment.jetstream.get_msg(stream, seq=sequence, subject=">", next=True)
        found.append(message)
        sequence = int(message.seq or 0) + 1
    return found


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for a condition; fails after ``seconds``."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  (the condition has no event to wait for)
            await asyncio.sleep(0.02)
