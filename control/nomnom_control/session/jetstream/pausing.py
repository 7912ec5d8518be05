"""Pausing and resuming a consumer's deliveries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from nomnom.inspection.jetstream import ConsumerReport, JetStream, checked
from nomnom.inspection.jetstream.requests import call
from nomnom_control.errors import ControlError

LAST_MOMENT = 0.1
_POLL = 0.05
_POLLS = 40


async def pause_consumer(jetstream: JetStream, stream: str, consumer: str, until: datetime) -> ConsumerReport:
    """Stop deliveries until then, by the server's clock; returns when the pause is effective."""
    return await _set_pause(jetstream, stream, consumer, until, paused=True)


async def resume_consumer(jetstream: JetStream, stream: str, consumer: str) -> ConsumerReport:
    """Resume deliveries; returns when they are resumed.

    nats-server (2.15) does not wake the pulls that wait when a pause is lifted, so workers would get nothing until
    their pulls expire; it does when a pause ends by itself. So the pause is shortened to the next moment.
    """
    report = await jetstream.consumer(stream, consumer)
    if not report.paused:
        return report
    soon = (report.ts or datetime.now(UTC)) + timedelta(seconds=LAST_MOMENT)
    return await _set_pause(jetstream, stream, consumer, soon, paused=False)


@asynccontextmanager
async def paused(jetstream: JetStream, stream: str, consumer: str, seconds: float) -> AsyncGenerator[None, None]:
    """Pause a consumer during the block; if this session ends in it, for at most ``seconds``.

    A pause that someone else has set is kept.
    """
    report = await jetstream.consumer(stream, consumer)
    if report.paused:
        yield
        return
    # Use the server's clock: the local one may differ by minutes.
    until = (report.ts or datetime.now(UTC)) + timedelta(seconds=seconds)
    await pause_consumer(jetstream, stream, consumer, until)
    try:
        yield
    finally:
        if (await jetstream.consumer(stream, consumer)).paused_until == until:
            await resume_consumer(jetstream, stream, consumer)


async def _set_pause(
    jetstream: JetStream, stream: str, consumer: str, until: datetime, *, paused: bool
) -> ConsumerReport:
    subject, what = f"CONSUMER.PAUSE.{checked(stream)}.{checked(consumer)}", f"consumer {consumer} of {stream}"
    await call(jetstream.nats, subject, {"pause_until": until.isoformat()}, dict[str, Any], what)
    for _ in range(_POLLS):
        report = await jetstream.consumer(stream, consumer)
        if report.paused is paused:
            return report
        await asyncio.sleep(_POLL)  # in a cluster, the servers have to agree on the pause first
    state = "not paused" if paused else "still paused"
    raise ControlError(f"{what} is {state} {_POLLS * _POLL:g} s after the request; check it and try again")
