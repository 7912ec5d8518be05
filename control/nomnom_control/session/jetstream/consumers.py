"""The properties of consumers as text: all that ``nats consumer info`` and ``nats consumer report`` show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nomnom.inspection.jetstream import ConsumerReport, Pin, Position
from nomnom.presentation.figures import Property, ago, count, duration, limit, moment, yes
from nomnom_control.session.jetstream.streams import cluster_properties, configuration, host, listed, nanoseconds


def consumer_properties(report: ConsumerReport) -> list[Property]:
    """Everything about a consumer, a line each."""
    lines = [
        Property("Consumer", "Name", report.name),
        Property("Consumer", "Stream", report.stream_name),
        Property("Consumer", "Created", moment(report.created, zone=True)),
        Property("Configuration", "Mode", "pull" if report.pull else "push"),
    ]
    lines += [Property("Configuration", label, value) for label, value in configuration(report.config, _LABELS)]
    lines += cluster_properties(report.cluster)
    most = int(report.config.get("max_ack_pending", -1))
    waiting = int(report.config.get("max_waiting", -1))
    state = [
        ("Paused", _pause(report)),
        ("Last delivered", _position(report.delivered)),
        ("Acknowledgement floor", _position(report.ack_floor)),
        ("Outstanding acks", count(report.num_ack_pending) + (f" of at most {count(most)}" if most > 0 else "")),
        ("Redelivered messages", count(report.num_redelivered)),
        ("Unprocessed messages", count(report.num_pending)),
        ("Lag", count(report.lag)),
    ]
    if report.pull:
        most_waiting = f" of at most {count(waiting)}" if waiting > 0 else ""
        state.append(("Waiting pulls", count(report.num_waiting) + most_waiting))
    else:
        state.append(("Active interest", yes(report.push_bound)))
    state += [("Pinned client", _pin(each)) for each in report.priority_groups]
    state += host(report.config)
    return lines + [Property("State", label, value) for label, value in state]


def consumer_row(report: ConsumerReport) -> dict[str, str]:
    """A consumer as a line of ``nats consumer report``."""
    return {
        "Consumer": report.name,
        "Mode": "pull" if report.pull else "push",
        "Ack policy": str(report.config.get("ack_policy", "")),
        "Ack wait": ack_wait(report),
        "Ack pending": count(report.num_ack_pending),
        "Redelivered": count(report.num_redelivered),
        "Unprocessed": count(report.num_pending),
        "Ack floor": count(report.ack_floor.stream_seq),
        "Paused": yes(report.paused),
        "Cluster": leader(report),
    }


def ack_wait(report: ConsumerReport) -> str:
    """How long it waits for an acknowledgement."""
    return nanoseconds(report.config.get("ack_wait", 0))


def leader(report: ConsumerReport) -> str:
    """The server that leads it; empty without a cluster."""
    return report.cluster.leader if report.cluster else ""


def _pause(report: ConsumerReport) -> str:
    if not report.paused:
        return "no"
    return f"until {moment(report.paused_until, zone=True)} (another {duration(report.pause_remaining / 1e9)})"


def _position(position: Position) -> str:
    active = f", {ago(position.last_active)}" if position.last_active else ""
    return f"consumer sequence {count(position.consumer_seq)}, stream sequence {count(position.stream_seq)}{active}"


def _pin(pin: Pin) -> str:
    if not pin.pinned_client_id:
        return f"{pin.group}: none"
    return f"{pin.group}: {pin.pinned_client_id}" + (f", {ago(pin.pinned_ts)}" if pin.pinned_ts else "")


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
