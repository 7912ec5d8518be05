"""The properties of streams as text: all that ``nats stream info`` and ``nats stream report`` show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import msgspec

from nomnom.inspection.jetstream import Cluster, Peer, Source, StreamReport
from nomnom.inspection.retention import MAX_AGE, maximum_age
from nomnom.presentation.figures import Property, age, count, duration, limit, moment, size, size_limit, when, yes


def stream_properties(report: StreamReport) -> list[Property]:
    """Everything about a stream, a line each."""
    state = report.state
    lines = [Property("Stream", "Name", report.name), Property("Stream", "Created", moment(report.created, zone=True))]
    lines += [
        Property("Configuration", label, value)
        for label, value in configuration({**_LEFT_OUT, **report.config}, _LABELS)
    ]
    lines += cluster_properties(report.cluster)
    lines += [Property("Sources", "Mirror", _source(report.mirror))] if report.mirror else []
    lines += [Property("Sources", "Source", _source(each)) for each in report.sources]
    lines += [
        Property("State", label, value)
        for label, value in (
            ("Messages", count(state.messages)),
            ("Bytes", size(state.bytes) + (f" ({report.fill:.1%} of the limit)" if report.fill is not None else "")),
            ("First sequence", count(state.first_seq)),
            ("First message", when(state.oldest)),
            ("Last sequence", count(state.last_seq)),
            ("Last message", when(state.newest)),
            ("Deleted messages", count(state.num_deleted)),
            ("Lost messages", count(state.lost_messages)),
            ("Subjects", count(state.num_subjects)),
            ("Active consumers", count(state.consumer_count)),
            *host(report.config),
        )
    ]
    return lines


def stream_row(report: StreamReport) -> dict[str, str]:
    """A stream as a line of ``nats stream report``."""
    return {
        "Stream": report.name,
        "Storage": str(report.config.get("storage", "")),
        "Consumers": count(report.state.consumer_count),
        "Messages": count(report.state.messages),
        "Bytes": size(report.state.bytes),
        "Lost": count(report.state.lost_messages),
        "Deleted": count(report.state.num_deleted),
        "Replicas": replicas(report.cluster),
    }


def cluster_properties(cluster: Cluster | None) -> list[Property]:
    """The servers that hold a stream or consumer, as lines."""
    if cluster is None:
        return []
    leader = f"{cluster.leader} (for {age(cluster.leader_since)})" if cluster.leader_since else cluster.leader
    lines = [("Name", cluster.name), ("Raft group", cluster.raft_group), ("Leader", leader)]
    lines += [("Replica", _peer(each)) for each in cluster.replicas]
    return [Property("Cluster", label, value) for label, value in lines if value]


def replicas(cluster: Cluster | None) -> str:
    """The servers on one line: the leader with a star, those that are offline with an exclamation mark."""
    if cluster is None:
        return ""
    if not cluster.replicas:
        return cluster.leader
    others = [f"{each.name}{'!' if each.offline else ''}" for each in cluster.replicas]
    return ", ".join([f"{cluster.leader}*", *others])


def _peer(peer: Peer) -> str:
    state = "offline" if peer.offline else "current" if peer.current else "outdated"
    return f"{peer.name} ({state}, {count(peer.lag)} behind, seen {duration(peer.active / 1e9)} ago)"


def _source(source: Source) -> str:
    seen = "never seen" if source.active < 0 else f"seen {duration(source.active / 1e9)} ago"
    return f"{source.name} ({count(source.lag)} behind, {seen})"


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
"""Fields that nats-server omits if they are false."""

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
    kept_for = maximum_age(config.get("metadata"))
    lines += [("Expires after", duration(kept_for))] if kept_for is not None else []
    lines += [(f"Metadata {key}", str(value)) for key, value in _metadata(config)]
    return lines


def _metadata(config: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return sorted((key, value) for key, value in config.get("metadata", {}).items() if key not in (*_SERVERS, MAX_AGE))


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
