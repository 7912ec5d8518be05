"""A stream: all that ``nats stream info`` and ``nats stream report`` show, typed, and as lines for people."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast

import msgspec

from nomnom.presentation.figures import Property, age, count, duration, limit, moment, size, size_limit, when, yes

_NEVER = datetime.fromisoformat("0001-01-01T00:00:00+00:00")


class Peer(msgspec.Struct, frozen=True):
    """A replica of a stream or consumer. ``active`` in nanoseconds since it was heard of, ``lag`` in operations."""

    name: str
    current: bool = False
    offline: bool = False
    active: int = 0
    lag: int = 0

    def __str__(self) -> str:
        state = "offline" if self.offline else "current" if self.current else "outdated"
        return f"{self.name} ({state}, {count(self.lag)} behind, seen {duration(self.active / 1e9)} ago)"


class Cluster(msgspec.Struct, frozen=True):
    """Where a stream or consumer lives."""

    name: str = ""
    leader: str = ""
    leader_since: datetime | None = None
    replicas: tuple[Peer, ...] = ()
    raft_group: str = ""

    def properties(self) -> list[Property]:
        """As lines."""
        lines = [("Name", self.name), ("Raft group", self.raft_group), ("Leader", self._led())]
        lines += [("Replica", str(each)) for each in self.replicas]
        return [Property("Cluster", label, value) for label, value in lines if value]

    def _led(self) -> str:
        return f"{self.leader} (for {age(self.leader_since)})" if self.leader_since else self.leader


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


class Source(msgspec.Struct, frozen=True):
    """A mirror's or source's progress."""

    name: str
    lag: int = 0
    active: int = 0

    def __str__(self) -> str:
        seen = "never seen" if self.active < 0 else f"seen {duration(self.active / 1e9)} ago"
        return f"{self.name} ({count(self.lag)} behind, {seen})"


class StreamReport(msgspec.Struct, frozen=True):
    """A stream's configuration (nats-server's own names and units: nanoseconds, bytes), state and place."""

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
    def fill(self) -> float | None:
        """Share of ``max_bytes`` in use, from 0 to 1; None without a limit."""
        most = int(self.config.get("max_bytes", -1))
        return self.state.bytes / most if most > 0 else None

    def properties(self) -> list[Property]:
        """Everything, a line each."""
        state = self.state
        lines = [Property("Stream", "Name", self.name), Property("Stream", "Created", moment(self.created, zone=True))]
        lines += [
            Property("Configuration", label, value)
            for label, value in configuration({**_LEFT_OUT, **self.config}, _LABELS)
        ]
        lines += self.cluster.properties() if self.cluster else []
        lines += [Property("Sources", "Mirror", str(self.mirror))] if self.mirror else []
        lines += [Property("Sources", "Source", str(each)) for each in self.sources]
        lost = len(self.state.lost.msgs or ()) if self.state.lost else 0
        lines += [
            Property("State", label, value)
            for label, value in (
                ("Messages", count(state.messages)),
                ("Bytes", size(state.bytes) + (f" ({self.fill:.1%} of the limit)" if self.fill is not None else "")),
                ("First sequence", count(state.first_seq)),
                (
                    "First message",
                    when(state.oldest),
                ),
                ("Last sequence", count(state.last_seq)),
                (
                    "Last message",
                    when(state.newest),
                ),
                ("Deleted messages", count(state.num_deleted)),
                ("Lost messages", count(lost)),
                ("Subjects", count(state.num_subjects)),
                ("Active consumers", count(state.consumer_count)),
                *host(self.config),
            )
        ]
        return lines

    def row(self) -> dict[str, str]:
        """The stream as a line of ``nats stream report``."""
        return {
            "Stream": self.name,
            "Storage": str(self.config.get("storage", "")),
            "Consumers": count(self.state.consumer_count),
            "Messages": count(self.state.messages),
            "Bytes": size(self.state.bytes),
            "Lost": count(len(self.state.lost.msgs or ()) if self.state.lost else 0),
            "Deleted": count(self.state.num_deleted),
            "Replicas": self.cluster.leader if self.cluster and not self.cluster.replicas else _replicas(self.cluster),
        }


def _replicas(cluster: Cluster | None) -> str:
    if cluster is None:
        return ""
    return ", ".join(
        [f"{cluster.leader}*", *(f"{each.name}{'!' if each.offline else ''}" for each in cluster.replicas)]
    )


def nanoseconds(value: Any) -> str:
    """A duration that nats-server gives."""
    return duration(int(value) / 1e9)


def nanoseconds_limit(value: Any) -> str:
    """A duration that nats-server gives, where 0 means none."""
    return nanoseconds(value) if int(value) > 0 else "unlimited"


def listed(value: Any) -> str:
    """Several values on one line."""
    return ", ".join(str(each) for each in value) if isinstance(value, list) else str(value)  # pyright: ignore[reportUnknownArgumentType]


def _no(value: object) -> str:
    return yes(not value)


def placement(value: Any) -> str:
    """Where a stream is asked to live: the cluster and the servers' tags."""
    if not isinstance(value, dict):
        return ""
    asked = cast("dict[str, Any]", value)
    return ", ".join(str(each) for each in (asked.get("cluster"), *(asked.get("tags") or ())) if each)


def api_level(config: Mapping[str, Any]) -> str:
    """The API level that a configuration needs of a server; 0 for what every server knows."""
    return str(config.get("metadata", {}).get(_REQUIRED_LEVEL, 0))


def host(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The version of the server that holds it and the API levels, which nats-server keeps in the metadata."""
    metadata = config.get("metadata", {})
    if _HOST_VERSION not in metadata:
        return []
    level = f"{api_level(config)}, hosted at level {metadata.get(_HOST_LEVEL, 0)}"
    return [("Host version", str(metadata[_HOST_VERSION])), ("Required API level", level)]


_HOST_VERSION, _HOST_LEVEL, _REQUIRED_LEVEL = _SERVERS = ("_nats.ver", "_nats.level", "_nats.req.level")
_LEFT_OUT: Mapping[str, Any] = dict.fromkeys(
    ("no_ack", "allow_atomic", "allow_batched", "allow_msg_counter", "allow_msg_schedules"), False
)
"""What nats-server leaves out of its answers where it is false."""

_LABELS: Mapping[str, tuple[str, Any]] = {
    "name": ("", None),
    "description": ("Description", str),
    "subjects": ("Subjects", listed),
    "num_replicas": ("Replicas", count),
    "storage": ("Storage", str),
    "compression": ("Compression", str),
    "placement": ("Placement", placement),
    "retention": ("Retention", str),
    "no_ack": ("Acknowledgements", _no),
    "discard": ("Discard policy", str),
    "discard_new_per_subject": ("Discard new per subject", yes),
    "duplicate_window": ("Duplicate window", nanoseconds),
    "allow_direct": ("Direct get", yes),
    "mirror_direct": ("Mirror direct get", yes),
    "deny_delete": ("Deletes denied", yes),
    "deny_purge": ("Purges denied", yes),
    "allow_rollup_hdrs": ("Rollups allowed", yes),
    "allow_msg_ttl": ("Per-message TTL", yes),
    "allow_msg_schedules": ("Message schedules", yes),
    "allow_atomic": ("Atomic batches", yes),
    "allow_batched": ("Fast batches", yes),
    "allow_msg_counter": ("Counter", yes),
    "persist_mode": ("Persist mode", str),
    "subject_delete_marker_ttl": ("Delete marker TTL", nanoseconds),
    "max_msgs": ("Maximum messages", limit),
    "max_msgs_per_subject": ("Maximum per subject", limit),
    "max_bytes": ("Maximum bytes", size_limit),
    "max_age": ("Maximum age", nanoseconds_limit),
    "max_msg_size": ("Maximum message size", size_limit),
    "max_consumers": ("Maximum consumers", limit),
    "first_seq": ("First sequence", count),
    "sealed": ("Sealed", yes),
}


def configuration(config: Mapping[str, Any], labels: Mapping[str, tuple[str, Any]]) -> list[tuple[str, str]]:
    """A configuration as labels and values: what is known in its order, then whatever else the server has."""
    lines = [(label, render(config[key])) for key, (label, render) in labels.items() if label and key in config]
    rest = [(key, value) for key, value in config.items() if key not in labels and key != "metadata" and value]
    lines += [(key.replace("_", " ").capitalize(), _plain(value)) for key, value in rest]
    lines += [(f"Metadata {key}", str(value)) for key, value in _metadata(config)]
    return lines


def _metadata(config: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return sorted((key, value) for key, value in config.get("metadata", {}).items() if key not in _SERVERS)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
