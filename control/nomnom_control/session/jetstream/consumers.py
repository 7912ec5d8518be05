"""A consumer: all that ``nats consumer info`` and ``nats consumer report`` show, typed, and as lines for people."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from nomnom.presentation.figures import Property, ago, count, duration, limit, moment, yes
from nomnom_control.session.jetstream.streams import Cluster, configuration, host, listed, nanoseconds


class Position(msgspec.Struct, frozen=True):
    """A place in a consumer's deliveries."""

    consumer_seq: int = 0
    stream_seq: int = 0
    last_active: datetime | None = None

    def __str__(self) -> str:
        active = f", {ago(self.last_active)}" if self.last_active else ""
        return f"consumer sequence {count(self.consumer_seq)}, stream sequence {count(self.stream_seq)}{active}"


class Pin(msgspec.Struct, frozen=True):
    """Which client a priority group is pinned to, and since when."""

    group: str = ""
    pinned_client_id: str = ""
    pinned_ts: datetime | None = None

    def __str__(self) -> str:
        if not self.pinned_client_id:
            return f"{self.group}: none"
        return f"{self.group}: {self.pinned_client_id}" + (f", {ago(self.pinned_ts)}" if self.pinned_ts else "")


class ConsumerReport(msgspec.Struct, frozen=True):
    """A consumer's configuration (nats-server's own names and units), state and place."""

    stream_name: str
    name: str
    created: datetime
    config: Mapping[str, Any]
    delivered: Position = Position()
    ack_floor: Position = Position()
    num_ack_pending: int = 0
    num_redelivered: int = 0
    num_waiting: int = 0
    num_pending: int = 0
    push_bound: bool = False
    paused: bool = False
    pause_remaining: int = 0
    cluster: Cluster | None = None
    priority_groups: tuple[Pin, ...] = ()
    ts: datetime | None = None

    @property
    def lag(self) -> int:
        """Messages that are not answered yet: not delivered, or delivered and not acknowledged (as KEDA counts)."""
        return self.num_pending + self.num_ack_pending

    @property
    def pull(self) -> bool:
        """Whether workers ask for messages (or have them pushed)."""
        return not self.config.get("deliver_subject")

    @property
    def paused_until(self) -> datetime | None:
        """The end of the pause, where there is one."""
        until = self.config.get("pause_until")
        return datetime.fromisoformat(until) if self.paused and isinstance(until, str) else None

    def properties(self) -> list[Property]:
        """Everything, a line each."""
        lines = [
            Property("Consumer", "Name", self.name),
            Property("Consumer", "Stream", self.stream_name),
            Property("Consumer", "Created", moment(self.created, zone=True)),
            Property("Configuration", "Mode", "pull" if self.pull else "push"),
        ]
        lines += [Property("Configuration", label, value) for label, value in configuration(self.config, _LABELS)]
        lines += self.cluster.properties() if self.cluster else []
        most = int(self.config.get("max_ack_pending", -1))
        waiting = int(self.config.get("max_waiting", -1))
        state = [
            ("Paused", self._pause()),
            ("Last delivered", str(self.delivered)),
            ("Acknowledgement floor", str(self.ack_floor)),
            ("Outstanding acks", count(self.num_ack_pending) + (f" of at most {count(most)}" if most > 0 else "")),
            ("Redelivered messages", count(self.num_redelivered)),
            ("Unprocessed messages", count(self.num_pending)),
            ("Lag", count(self.lag)),
        ]
        if self.pull:
            most_waiting = f" of at most {count(waiting)}" if waiting > 0 else ""
            state.append(("Waiting pulls", count(self.num_waiting) + most_waiting))
        else:
            state.append(("Active interest", yes(self.push_bound)))
        state += [("Pinned client", str(each)) for each in self.priority_groups]
        state += host(self.config)
        return lines + [Property("State", label, value) for label, value in state]

    def row(self) -> dict[str, str]:
        """The consumer as a line of ``nats consumer report``."""
        return {
            "Consumer": self.name,
            "Mode": "pull" if self.pull else "push",
            "Ack policy": str(self.config.get("ack_policy", "")),
            "Ack wait": nanoseconds(self.config.get("ack_wait", 0)),
            "Ack pending": count(self.num_ack_pending),
            "Redelivered": count(self.num_redelivered),
            "Unprocessed": count(self.num_pending),
            "Ack floor": count(self.ack_floor.stream_seq),
            "Paused": yes(self.paused),
            "Cluster": self.cluster.leader if self.cluster else "",
        }

    def _pause(self) -> str:
        if not self.paused:
            return "no"
        return f"until {moment(self.paused_until, zone=True)} (another {duration(self.pause_remaining / 1e9)})"


def _each_nanoseconds(value: Any) -> str:
    return ", ".join(nanoseconds(each) for each in value)


_LABELS: Mapping[str, tuple[str, Any]] = {
    "name": ("", None),
    "durable_name": ("Durable name", str),
    "description": ("Description", str),
    "deliver_subject": ("Delivery subject", str),
    "deliver_group": ("Delivery group", str),
    "filter_subject": ("Filter subject", str),
    "filter_subjects": ("Filter subjects", listed),
    "deliver_policy": ("Deliver policy", str),
    "opt_start_seq": ("Start sequence", count),
    "opt_start_time": ("Start time", str),
    "ack_policy": ("Ack policy", str),
    "ack_wait": ("Ack wait", nanoseconds),
    "replay_policy": ("Replay policy", str),
    "max_deliver": ("Maximum deliveries", limit),
    "backoff": ("Backoff", _each_nanoseconds),
    "max_ack_pending": ("Maximum ack pending", limit),
    "max_waiting": ("Maximum waiting pulls", limit),
    "max_expires": ("Maximum pull expiry", nanoseconds),
    "max_batch": ("Maximum pull batch", limit),
    "max_bytes": ("Maximum pull bytes", limit),
    "inactive_threshold": ("Inactive threshold", nanoseconds),
    "rate_limit_bps": ("Rate limit (bits/s)", count),
    "sample_freq": ("Sampling", str),
    "idle_heartbeat": ("Heartbeat", nanoseconds),
    "flow_control": ("Flow control", yes),
    "priority_groups": ("Priority groups", listed),
    "priority_policy": ("Priority policy", str),
    "priority_timeout": ("Pin timeout", nanoseconds),
    "headers_only": ("Headers only", yes),
    "num_replicas": ("Replicas", count),
    "mem_storage": ("Memory storage", yes),
    "pause_until": ("", None),
}
