"""Pausing a consumer's deliveries, and letting them go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from nomnom_control.errors import ControlError
from nomnom_control.session.connections import NatsConnection
from nomnom_control.session.jetstream.consumers import ConsumerReport
from nomnom_control.session.jetstream.requests import call

LAST_MOMENT = 0.1
_POLL = 0.05
_LOOKS = 40


async def read_consumer(nats: NatsConnection, stream: str, consumer: str) -> ConsumerReport:
    """A consumer's report; raises NatsUnavailable, NotSetUp or JetStreamError."""
    return await call(
        nats, f"CONSUMER.INFO.{stream}.{consumer}", None, ConsumerReport, f"consumer {consumer} of {stream}"
    )


async def pause_consumer(nats: NatsConnection, stream: str, consumer: str, until: datetime) -> ConsumerReport:
    """Deliver nothing until then, by the server's clock; returns once that is in force."""
    body = {"pause_until": until.isoformat()}
    await call(nats, f"CONSUMER.PAUSE.{stream}.{consumer}", body, dict[str, Any], f"consumer {consumer} of {stream}")
    for _ in range(_LOOKS):
        report = await read_consumer(nats, stream, consumer)
        if report.paused:
            return report
        await asyncio.sleep(_POLL)  # in a cluster the pause is agreed on first
    raise ControlError(f"consumer {consumer} of {stream} is not paused {_LOOKS * _POLL:g} s after it was asked to be")


async def resume_consumer(nats: NatsConnection, stream: str, consumer: str) -> ConsumerReport:
    """Deliver again; returns once it does.

    nats-server (2.15) does not wake the pulls that wait when a pause is lifted, so workers would get nothing until
    their pulls expire; it does when a pause ends by itself. So the pause is shortened to the next moment.
    """
    report = await read_consumer(nats, stream, consumer)
    if not report.paused:
        return report
    soon = (report.ts or datetime.now(UTC)) + timedelta(seconds=LAST_MOMENT)
    body = {"pause_until": soon.isoformat()}
    await call(nats, f"CONSUMER.PAUSE.{stream}.{consumer}", body, dict[str, Any], f"consumer {consumer} of {stream}")
    for _ in range(_LOOKS):
        report = await read_consumer(nats, stream, consumer)
        if not report.paused:
            return report
        await asyncio.sleep(_POLL)
    raise ControlError(f"consumer {consumer} of {stream} is still paused {_LOOKS * _POLL:g} s after it was resumed")


@asynccontextmanager
async def held(nats: NatsConnection, stream: str, consumer: str, seconds: float) -> AsyncGenerator[None, None]:
    """Keep a consumer from delivering inside the block, and for ``seconds`` at most should this session end there.

    A pause that someone else has set stays theirs.
    """
    report = await read_consumer(nats, stream, consumer)
    if report.paused:
        yield
        return
    # By the server's clock: ours may be minutes off.
    until = (report.ts or datetime.now(UTC)) + timedelta(seconds=seconds)
    await pause_consumer(nats, stream, consumer, until)
    try:
        yield
    finally:
        if (await read_consumer(nats, stream, consumer)).paused_until == until:
            await resume_consumer(nats, stream, consumer)
