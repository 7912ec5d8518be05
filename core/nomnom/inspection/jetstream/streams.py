"""A stream: what ``nats stream info`` reports, typed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

_NEVER = datetime.fromisoformat("0001-01-01T00:00:00+00:00")


class Peer(msgspec.Struct, frozen=True):
    """A replica of a stream or consumer. ``active``: nanoseconds since it was last seen; ``lag`` in operations."""

    name: str
    current: bool = False
    offline: bool = False
    active: int = 0
    lag: int = 0


class Cluster(msgspec.Struct, frozen=True):
    """The servers that hold a stream or consumer."""

    name: str = ""
    leader: str = ""
    leader_since: datetime | None = None
    replicas: tuple[Peer, ...] = ()
    raft_group: str = ""


class Lost(msgspec.Struct, frozen=True):
    """Messages that the storage lost."""

    msgs: tuple[int, ...] | None = None
    bytes: int = 0


class StreamState(msgspec.Struct, frozen=True):
    """What a stream holds."""

    messages: int = 0
    bytes: int = 0
    first_seq: int = 0
    first_ts: datetime = _NEVER
    last_seq: int = 0
    last_ts: datetime = _NEVER
    consumer_count: int = 0
    num_subjects: int = 0
    num_deleted: int = 0
    deleted: tuple[int, ...] | None = None
    lost: Lost | None = None

    @property
    def oldest(self) -> datetime | None:
        """When the oldest message was stored; None in an empty stream."""
        return self.first_ts if self.messages else None

    @property
    def newest(self) -> datetime | None:
        """When the last message was stored, whether it is still there or not."""
        return self.last_ts if self.last_ts != _NEVER else None

    @property
    def lost_messages(self) -> int:
        """How many messages the storage lost."""
        return len(self.lost.msgs or ()) if self.lost else 0


class Source(msgspec.Struct, frozen=True):
    """The progress of a mirror or source. ``active``: nanoseconds since it was last seen, negative for never."""

    name: str
    lag: int = 0
    active: int = 0


class StreamReport(msgspec.Struct, frozen=True):
    """A stream's configuration (with nats-server's names and units: nanoseconds, bytes), state and servers."""

    config: Mapping[str, Any]
    created: datetime
    state: StreamState
    cluster: Cluster | None = None
    mirror: Source | None = None
    sources: tuple[Source, ...] = ()
    ts: datetime | None = None

    @property
    def name(self) -> str:
        """The stream's name."""
        return str(self.config["name"])

    @property
    def max_bytes(self) -> int | None:
        """How many bytes it may hold; None without a limit."""
        most = int(self.config.get("max_bytes", -1))
        return most if most > 0 else None

    @property
    def fill(self) -> float | None:
        """Share of ``max_bytes`` in use, from 0 to 1; None without a limit."""
        return self.state.bytes / self.max_bytes if self.max_bytes else None
