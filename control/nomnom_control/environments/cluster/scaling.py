"""The workers' scaling by KEDA: what its ScaledObject, the autoscaler that it makes, and their events say."""

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
"""KEDA's annotation: keep this number of workers, and decide nothing."""
_PAUSED_AS_IS = "autoscaling.keda.sh/paused"
CHANGED = "nomnom/scaling-rule"
"""Set if the policy was changed here: an upgrade by nomnom keeps it."""
_KIND = "keda.sh/v1alpha1/scaledobjects"
_REASONS = ("SuccessfulRescale", "KEDAScaleTargetActivated", "KEDAScaleTargetDeactivated")


async def find_scaled_object(release: Release) -> Object | None:
    """The workers' ScaledObject; None where KEDA does not scale them."""
    from nomnom_control.environments.cluster.api import ClusterRefused

    try:
        found = await release.cluster.list(release.path(_KIND), release.part(WORKER))
    except ClusterRefused as error:
        if error.status == 404:  # KEDA is not installed
            return None
        raise
    return found[0] if found else None


async def scaled_object(release: Release) -> Object:
    """The workers' ScaledObject; raises ControlError where KEDA does not scale them."""
    found = await find_scaled_object(release)
    if found is None:
        raise ControlError(f"KEDA does not scale the workers of {release.where}: see keda.enabled of the chart")
    return found


def policy_of(scaled: Object) -> ScalingPolicy:
    """The policy that a ScaledObject states; what it does not state has KEDA's default."""
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
    """The scaling now. Raises ControlError. The lag is None while it is unknown."""
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
    """The number that autoscaling is paused at (``now``: at the present one); None where it is not."""
    annotations = scaled["metadata"].get("annotations") or {}
    if PAUSED in annotations:
        return str(annotations[PAUSED])
    return "now" if annotations.get(_PAUSED_AS_IS) == "true" else None


async def _decision(release: Release, scaled: Object | None, desired: int) -> tuple[datetime | None, str]:
    """When what was decided last, and why."""
    if scaled is None:
        return None, f"KEDA does not scale the workers: {desired} by the chart's values"
    if (pinned := paused_at(scaled)) is not None:
        return None, f"manual override: pinned at {desired if pinned == 'now' else pinned}"
    conditions = {each["type"]: each for each in scaled.get("status", {}).get("conditions") or []}
    ready = conditions.get("Ready", {})
    if ready.get("status") == "False":
        return None, f"KEDA cannot scale: {ready.get('message', ready.get('reason', 'it does not say why'))}"
    name = scaled["metadata"]["name"]
    events = await release.cluster.list(release.path("v1/events"))
    objects = {name, scaled.get("status", {}).get("hpaName") or f"keda-hpa-{name}"}
    told = [
        each
        for each in events
        if each.get("reason") in _REASONS and (each.get("involvedObject") or {}).get("name") in objects
    ]
    if told:
        last = max(told, key=event_time)
        return datetime.fromisoformat(event_time(last)), str(last.get("message", "")).strip()
    active = conditions.get("Active", {}).get("status") == "True"
    return None, f"{desired} wanted: " + ("messages wait" if active else "nothing waits")


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
