"""Explain why pods are not ready, from their state, events and last log lines."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from nomnom_control.environments import Replica
from nomnom_control.environments.cluster.api import Cluster, ClusterRefused, Object

_LINES = 8
_EVENTS = 4
_PODS = 2


def pod_ready(pod: Object) -> bool:
    """Whether a pod is ready and not terminating."""
    if pod["metadata"].get("deletionTimestamp"):
        return False
    conditions = pod.get("status", {}).get("conditions") or []
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def pod_problem(pod: Object) -> str:
    """Why a pod is not ready, in one line; empty if there is no problem."""
    status = pod.get("status", {})
    for each in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        if problem := _container_problem(each):
            return problem
    for each in status.get("conditions") or []:
        if each["type"] == "PodScheduled" and each["status"] == "False":
            return f"not scheduled: {each.get('message', each.get('reason', ''))}"
    if status.get("phase") == "Failed":
        return f"failed: {status.get('message') or status.get('reason') or 'exited with an error'}"
    return ""


def _container_problem(container: Object) -> str:
    state = container.get("state") or {}
    last = (container.get("lastState") or {}).get("terminated")
    waiting, ended = state.get("waiting"), state.get("terminated")
    if waiting and waiting.get("reason") not in ("ContainerCreating", "PodInitializing"):
        text = f"{waiting.get('reason')}: {waiting.get('message', '')}".removesuffix(": ")
        return f"{text} ({_describe_exit(last)})" if last else text
    if ended and ended.get("exitCode"):
        return _describe_exit(ended)
    if last and not container.get("ready") and container.get("restartCount"):
        return f"restarted {container['restartCount']} times: {_describe_exit(last)}"
    return ""


def _describe_exit(ended: Object) -> str:
    reason = ended.get("reason") or "exited"
    message = (ended.get("message") or "").strip().splitlines()
    return f"{reason}, exit code {ended.get('exitCode')}" + (f": {message[-1]}" if message else "")


def pod_replica(pod: Object) -> Replica:
    """A pod as a replica of its component."""
    status = pod.get("status", {})
    containers = status.get("containerStatuses") or []
    terminating = bool(pod["metadata"].get("deletionTimestamp"))
    started = status.get("startTime")
    return Replica(
        pod["metadata"]["name"],
        "terminating" if terminating else str(status.get("phase", "Unknown")).lower(),
        pod_ready(pod),
        datetime.fromisoformat(started) if started else None,
        sum(each.get("restartCount", 0) for each in containers),
        "" if terminating else pod_problem(pod),
    )


def first_problem(pods: Sequence[Object]) -> str:
    """The problem of the first pod that has one, with its name; empty if there is none."""
    for each in pods:
        if not each["metadata"].get("deletionTimestamp") and (problem := pod_problem(each)):
            return f"{each['metadata']['name']}: {problem}"
    return ""


async def explain(cluster: Cluster, namespace: str, selector: str) -> str:
    """Why pods are not ready, as indented lines: state, warnings and the end of their logs."""
    pods = await cluster.list(f"/api/v1/namespaces/{namespace}/pods", selector)
    found = [each for each in pods if not pod_ready(each) and each.get("status", {}).get("phase") != "Succeeded"]
    parts = await asyncio.gather(*(_explain_pod(cluster, namespace, each) for each in found[:_PODS]))
    claims = await cluster.list(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims")
    pending = [each["metadata"]["name"] for each in claims if each.get("status", {}).get("phase") == "Pending"]
    lines = [line for part in parts for line in part]
    if len(found) > _PODS:
        lines.append(f"{len(found) - _PODS} more pods are not ready")
    for name in pending:
        lines.append(f"volume claim {name} is pending")
        lines += await warnings_of(cluster, namespace, name)
    return "\n".join(f"  {line}" for line in lines) or "  (no reason given)"


async def _explain_pod(cluster: Cluster, namespace: str, pod: Object) -> list[str]:
    name = pod["metadata"]["name"]
    phase = pod.get("status", {}).get("phase", "Unknown")
    lines = [f"pod {name}: {pod_problem(pod) or f'{phase}, not ready'}"]
    lines += await warnings_of(cluster, namespace, name)
    statuses = pod.get("status", {}).get("containerStatuses") or []
    crashed = any((each.get("state") or {}).get("waiting") and each.get("restartCount") for each in statuses)
    log = await last_lines(cluster, namespace, name, previous=crashed)
    if log:
        lines += ["last log lines:", *(f"  {each}" for each in log)]
    return lines


async def warnings_of(cluster: Cluster, namespace: str, name: str) -> list[str]:
    """The last warnings about an object, oldest first."""
    path = f"/api/v1/namespaces/{namespace}/events"
    found = await cluster.list(path, fields=f"involvedObject.name={name},type=Warning")
    found.sort(key=event_time)
    messages = dict.fromkeys(f"{each.get('reason')}: {str(each.get('message', '')).strip()}" for each in found)
    return list(messages)[-_EVENTS:]


def event_time(event: Object) -> str:
    """When an event was last seen, in the API server's format."""
    found: Any = event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp")
    return str(found or "")


async def last_lines(cluster: Cluster, namespace: str, pod: str, *, previous: bool = False) -> list[str]:
    """The end of a pod's log; empty if it has none yet."""
    parameters = {"tailLines": str(_LINES)} | ({"previous": "true"} if previous else {})
    try:
        text = await cluster.text(f"/api/v1/namespaces/{namespace}/pods/{pod}/log", **parameters)
    except ClusterRefused:
        # A container that never started has no log; its state gives the reason.
        return []
    return text.splitlines()
