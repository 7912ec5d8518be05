"""The workers' autoscaling by KEDA: its ScaledObject, the HPA it creates, and their events."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

from nomnom.connections.nats import NatsConnection
from nomnom.inspection.jetstream import JetStream
from nomnom.scaling import KEDA_DEFAULTS, ScalingPolicy
from nomnom.settings.streams import StreamSettings
from nomnom_control.environments import WORKER, Scaling
from nomnom_control.environments.cluster.api import Object
from nomnom_control.environments.cluster.reasons import event_time
from nomnom_control.environments.cluster.release import Release
from nomnom_control.errors import ControlError

PAUSED = "autoscaling.keda.sh/paused-replicas"
"""KEDA's annotation that pauses autoscaling at a number of replicas."""
_PAUSED_AS_IS = "autoscaling.keda.sh/paused"
CHANGED = "nomnom/scaling-rule"
"""Set if the policy was changed here: an upgrade by nomnom keeps it."""
_KIND = "keda.sh/v1alpha1/scaledobjects"
_REASONS = ("SuccessfulRescale", "KEDAScaleTargetActivated", "KEDAScaleTargetDeactivated")


async def find_scaled_object(release: Release) -> Object | None:
    """The workers' ScaledObject; None if KEDA does not scale them."""
    from nomnom_control.environments.cluster.api import ClusterRefused

    try:
        found = await release.cluster.list(release.path(_KIND), release.part(WORKER))
    except ClusterRefused as error:
        if error.status == 404:  # KEDA is not installed
            return None
        raise
    return found[0] if found else None


async def scaled_object(release: Release) -> Object:
    """The workers' ScaledObject. Raises ControlError if KEDA does not scale them."""
    found = await find_scaled_object(release)
    if found is None:
        raise ControlError(f"KEDA does not scale the workers of {release.where}; set the chart's value keda.enabled")
    return found


def policy_of(scaled: Object) -> ScalingPolicy:
    """The policy in a ScaledObject, with KEDA's defaults for missing values."""
    spec = scaled["spec"]
    trigger: dict[str, Any] = next((each for each in spec["triggers"] if each["type"] == "nats-jetstream"), {})
    return ScalingPolicy(
        minimum=spec.get("minReplicaCount", KEDA_DEFAULTS.minimum),
        maximum=spec.get("maxReplicaCount", KEDA_DEFAULTS.maximum),
        threshold=int((trigger.get("metadata") or {}).get("lagThreshold", KEDA_DEFAULTS.threshold)),
        cooldown=float(spec.get("cooldownPeriod", KEDA_DEFAULTS.cooldown)),
        polling=float(spec.get("pollingInterval", KEDA_DEFAULTS.polling)),
    )


async def read_scaling(release: Release, nats: NatsConnection, streams: StreamSettings) -> Scaling:
    """The current scaling. The lag is None while NATS is unavailable. Raises ControlError."""
    deployment, scaled, lag = await asyncio.gather(
        release.deployment(WORKER),
        find_scaled_object(release),
        JetStream(nats).lag(streams.stream, streams.consumer),
    )
    status = deployment.get("status", {})
    desired = int(deployment["spec"].get("replicas", 1))
    paused = scaled is not None and paused_at(scaled) is not None
    at, decision = await _decision(release, scaled, desired)
    return Scaling(
        policy=ScalingPolicy(minimum=desired, maximum=desired) if scaled is None else policy_of(scaled),
        lag=lag,
        desired=desired,
        actual=int(status.get("replicas", 0)),
        ready=int(status.get("readyReplicas", 0)),
        paused=paused,
        decided_at=at,
        decision=decision,
    )


def paused_at(scaled: Object) -> str | None:
    """The number of workers that autoscaling is paused at (``now``: the current one); None if it is not paused."""
    annotations = scaled["metadata"].get("annotations") or {}
    if PAUSED in annotations:
        return str(annotations[PAUSED])
    return "now" if annotations.get(_PAUSED_AS_IS) == "true" else None


async def _decision(release: Release, scaled: Object | None, desired: int) -> tuple[datetime | None, str]:
    """Time and reason of the last decision."""
    if scaled is None:
        return None, f"KEDA does not scale the workers; the chart's values set {desired}"
    if (pinned := paused_at(scaled)) is not None:
        return None, f"manual override: pinned at {desired if pinned == 'now' else pinned}"
    conditions = {each["type"]: each for each in scaled.get("status", {}).get("conditions") or []}
    ready = conditions.get("Ready", {})
    if ready.get("status") == "False":
        return None, f"KEDA cannot scale: {ready.get('message', ready.get('reason', '(no reason given)'))}"
    name = scaled["metadata"]["name"]
    events = await release.cluster.list(release.path("v1/events"))
    objects = {name, scaled.get("status", {}).get("hpaName") or f"keda-hpa-{name}"}
    decisions = [
        each
        for each in events
        if each.get("reason") in _REASONS and (each.get("involvedObject") or {}).get("name") in objects
    ]
    if decisions:
        last = max(decisions, key=event_time)
        return datetime.fromisoformat(event_time(last)), str(last.get("message", "")).strip()
    active = conditions.get("Active", {}).get("status") == "True"
    return None, f"{desired} desired: " + ("messages are pending" if active else "no messages are pending")


async def change_policy(release: Release, policy: ScalingPolicy) -> None:
    """Change the ScaledObject. An upgrade by nomnom passes the policy on; helm alone would set the chart's again."""
    scaled = await scaled_object(release)
    triggers = scaled["spec"]["triggers"]
    for each in triggers:
        if each["type"] == "nats-jetstream":
            each["metadata"]["lagThreshold"] = str(policy.threshold)
    body = {
        "metadata": {"annotations": {CHANGED: "changed"}},
        "spec": {
            "minReplicaCount": policy.minimum,
            "maxReplicaCount": policy.maximum,
            "cooldownPeriod": int(policy.cooldown),
            "pollingInterval": int(policy.polling),
            "triggers": triggers,
        },
    }
    await release.cluster.patch(release.path(_KIND, scaled["metadata"]["name"]), body)


async def pin(release: Release, replicas: int | None) -> None:
    """Set the number of workers by hand; None lets the policy decide."""
    scaled = await scaled_object(release)
    annotations = {PAUSED: None if replicas is None else str(replicas), _PAUSED_AS_IS: None}
    path = release.path(_KIND, scaled["metadata"]["name"])
    await release.cluster.patch(path, {"metadata": {"annotations": annotations}})


def policy_values(scaled: Object) -> list[str]:
    """The chart's values that state this ScaledObject's policy, as ``name=value``."""
    policy = policy_of(scaled)
    return [
        f"keda.minReplicas={policy.minimum}",
        f"keda.maxReplicas={policy.maximum}",
        f"keda.lagThreshold={policy.threshold}",
        f"keda.cooldownPeriod={policy.cooldown:.0f}",
        f"keda.pollingInterval={policy.polling:.0f}",
    ]
