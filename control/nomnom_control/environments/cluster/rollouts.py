"""Rollouts of a component: changed variables, restarts, revisions, and the wait for completion."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

from nomnom_control.environments import Progress, Revision, Step
from nomnom_control.environments.cluster.api import Object
from nomnom_control.environments.cluster.reasons import explain, first_problem
from nomnom_control.environments.cluster.release import Release
from nomnom_control.environments.cluster.variables import shown_variables
from nomnom_control.errors import ControlError

CAUSE = "kubernetes.io/change-cause"
_CHANGED_AT = "nomnom/changed-at"
_REVISION = "deployment.kubernetes.io/revision"
_RESTARTED = "kubectl.kubernetes.io/restartedAt"
_DEPLOYMENTS = "apps/v1/deployments"
_POLL = 0.5
_CHECK = 3.0
ROLLOUT = 300.0
"""Timeout of a rollout in seconds."""


async def restart(release: Release, component: str) -> AsyncIterator[Progress]:
    """Replace every pod, one after another."""
    kind, found = await release.workload(component)
    stamp = {_RESTARTED: datetime.now(UTC).isoformat(timespec="seconds")}
    body = {
        "metadata": {"annotations": _why(f"restart of {component}")},
        "spec": {"template": {"metadata": {"annotations": stamp}}},
    }
    changed = await release.cluster.patch(release.path(kind, found["metadata"]["name"]), body)
    async for each in wait_for(release, component, kind, changed, f"restart {component}"):
        yield each


async def roll_out(release: Release, component: str, changes: Mapping[str, str], cause: str) -> AsyncIterator[Progress]:
    """Roll out environment variables; an empty one is removed, so that the component's default counts."""
    found = await release.deployment(component)
    container = found["spec"]["template"]["spec"]["containers"][0]
    present = {each["name"] for each in container.get("env") or []}
    variables = [
        {"name": name, "value": value} if value else {"name": name, "$patch": "delete"}
        for name, value in changes.items()
        if value or name in present
    ]
    body = {
        "metadata": {"annotations": _why(cause)},
        "spec": {"template": {"spec": {"containers": [{"name": container["name"], "env": variables}]}}},
    }
    path = release.path(_DEPLOYMENTS, found["metadata"]["name"])
    changed = await release.cluster.patch(path, body, "strategic")
    async for each in wait_for(release, component, _DEPLOYMENTS, changed, f"roll out {component}"):
        yield each


async def history(release: Release, component: str) -> list[Revision]:
    """The revisions kept by the Deployment, newest first."""
    found = await release.deployment(component)
    sets = await _replica_sets(release, found)
    now = (found["metadata"].get("annotations") or {}).get(_REVISION)
    revisions: list[Revision] = []
    before: tuple[str, str] | None = None
    for each in sets:
        annotations = each["metadata"].get("annotations") or {}
        why = (annotations.get(CAUSE, ""), annotations.get(_CHANGED_AT, ""))
        # helm does not update the cause: if it is that of the revision before, helm made this revision.
        chart = (each["spec"]["template"]["metadata"].get("labels") or {}).get("helm.sh/chart", "the chart")
        cause = why[0] if why[0] and why != before else f"helm, {chart}"
        before = why
        revisions.append(
            Revision(
                int(annotations.get(_REVISION, 0)),
                datetime.fromisoformat(why[1] if cause == why[0] and why[1] else each["metadata"]["creationTimestamp"]),
                cause,
                annotations.get(_REVISION) == now,
                shown_variables(component, each),
            )
        )
    return revisions[::-1]


async def rollback(release: Release, component: str, revision: int | None) -> AsyncIterator[Progress]:
    """Roll back to a revision of the Deployment. Raises ControlError if it does not exist."""
    found = await release.deployment(component)
    now = (found["metadata"].get("annotations") or {}).get(_REVISION)
    sets = [(_number(each), each) for each in await _replica_sets(release, found)]
    earlier = [(number, each) for number, each in sets if str(number) != now and revision in (None, number)]
    if not earlier:
        numbers = ", ".join(str(number) for number, _ in sets) or "none"
        raise ControlError(f"{component} has no revision {revision or 'before the current one'}; available: {numbers}")
    number, chosen = earlier[-1]
    template = chosen["spec"]["template"]
    template["metadata"].get("labels", {}).pop("pod-template-hash", None)
    annotations = (found["metadata"].get("annotations") or {}) | _why(f"rollback to revision {number}")
    body: list[dict[str, Any]] = [
        {"op": "replace", "path": "/spec/template", "value": template},
        {"op": "replace", "path": "/metadata/annotations", "value": annotations},
    ]
    path = release.path(_DEPLOYMENTS, found["metadata"]["name"])
    changed = await release.cluster.patch(path, body, "json")
    async for each in wait_for(release, component, _DEPLOYMENTS, changed, f"roll back {component}"):
        yield each


async def wait_for(
    release: Release, component: str, kind: str, workload: Object, step: str, *, limit: float = ROLLOUT
) -> AsyncIterator[Progress]:
    """Follow a rollout until every pod is of the newest revision and ready.

    Raises ControlError with the state of the pods if that takes more than ``limit`` seconds.
    """
    began = time.monotonic()
    path = release.path(kind, workload["metadata"]["name"])
    yield Progress(step, Step.STARTED)
    shown, problem, checked_at = "", "", began
    while True:
        done, text = _rolled_out(workload)
        if text != shown:
            shown = text
            yield Progress(step, Step.OUTPUT, text)
        taken = time.monotonic() - began
        if done:
            yield Progress(step, Step.DONE, seconds=taken)
            return
        if taken > limit:
            why = await explain(release.cluster, release.namespace, release.part(component))
            text = f"{component} is not ready after {limit:g}s: {shown}\n{why}"
            yield Progress(step, Step.FAILED, text, taken)
            raise ControlError(text)
        if time.monotonic() - checked_at > _CHECK:
            # Report problems early instead of only at the timeout.
            checked_at = time.monotonic()
            found = first_problem(await release.pods(component))
            if found and found != problem:
                problem = found
                yield Progress(step, Step.OUTPUT, found)
        await asyncio.sleep(_POLL)
        workload = await release.cluster.get(path)


def _rolled_out(workload: Object) -> tuple[bool, str]:
    """Whether a rollout is complete, and its progress as text."""
    status = workload.get("status", {})
    desired = int(workload["spec"].get("replicas", 1))
    updated = int(status.get("updatedReplicas", 0))
    ready = int(status.get("availableReplicas", status.get("readyReplicas", 0)))
    total = int(status.get("replicas", 0))
    if status.get("observedGeneration", 0) < workload["metadata"].get("generation", 0):
        return False, "waiting for the controller to observe the change"
    if workload.get("kind") == "StatefulSet" and status.get("currentRevision") == status.get("updateRevision"):
        updated = total  # the field is omitted when no update is in progress
    text = f"{updated} of {desired} new, {ready} ready" + (f", {total - updated} old" if total > updated else "")
    return updated >= desired and ready >= desired and total <= desired, text


def _why(cause: str) -> dict[str, str]:
    return {CAUSE: cause, _CHANGED_AT: datetime.now(UTC).isoformat()}


async def _replica_sets(release: Release, deployment: Object) -> list[Object]:
    """A Deployment's ReplicaSets, oldest revision first."""
    labels = deployment["spec"]["selector"]["matchLabels"]
    selector = ",".join(f"{name}={value}" for name, value in labels.items())
    uid = deployment["metadata"]["uid"]
    found = await release.cluster.list(release.path("apps/v1/replicasets"), selector)
    owned = [each for each in found if any(one["uid"] == uid for one in each["metadata"].get("ownerReferences") or [])]
    return sorted(owned, key=_number)


def _number(replica_set: Object) -> int:
    return int((replica_set["metadata"].get("annotations") or {}).get(_REVISION, 0))
