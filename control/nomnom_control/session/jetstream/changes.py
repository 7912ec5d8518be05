"""Purging a stream."""

from __future__ import annotations

import msgspec

from nomnom.connections.nats import NatsConnection
from nomnom.inspection.jetstream.requests import call


class _Purged(msgspec.Struct, frozen=True):
    purged: int


async def purge(nats: NatsConnection, stream: str, last: int) -> int:
    """Delete the messages of a stream up to sequence ``last``; returns how many there were."""
    # nats-server purges up to a sequence, without it.
    return (await call(nats, f"STREAM.PURGE.{stream}", {"seq": last + 1}, _Purged, f"stream {stream}")).purged
