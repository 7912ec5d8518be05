"""A consumer: what ``nats consumer info`` reports, typed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from nomnom.inspection.jetstream.streams import Cluster


class Position(msgspec.Struct, frozen=True):
    """A position in a consumer's deliveries."""

    consumer_seq: int = 0
    stream_seq: int = 0
    last_active: datetime | None = None


class Pin(msgspec.Struct, frozen=True):
    """Which client a priority group is pinned to, and since when."""

    group: str = ""
    pinned_client_id: str = ""
    pinned_ts: datetime | None = None


class ConsumerReport(msgspec.Struct, frozen=True):
    """A consumer's configuration (with nats-server's names and units), state and servers."""

    stream_name: str
    name: str
    created: datetime
    config: Mapping[str, Any]
    delivered: Position = Position()
    ack_floor: Position = Position()
    num_ack_pending: int = 0
    num_redelivered: int = 0
    num_waiting: int = 0
    """Pull requests that wait for messages."""
    num_pending: int = 0
    push_bound: bool = False
    paused: bool = False
    pause_remaining: int = 0
    cluster: Cluster | None = None
    priority_groups: tuple[Pin, ...] = ()
    ts: datetime | None = None

    @property
    def lag(self) -> int:
        """Messages that are not acknowledged yet, delivered or not (as KEDA counts)."""
        return self.num_pending + self.num_ack_pending

    @property
    def pull(self) -> bool:
        """Whether its clients request messages, instead of having them pushed."""
        return not self.config.get("deliver_subject")

    @property
    def paused_until(self) -> datetime | None:
        """The end of the pause; None while it is not paused."""
        until = self.config.get("pause_until")
        return datetime.fromisoformat(until) if self.paused and isinstance(until, str) else None
