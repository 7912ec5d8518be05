"""Add-ons of a cluster: KEDA, metrics-server and an ingress controller, from manifests that can be replaced."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import yaml

from nomnom.errors import NomnomError
from nomnom_control.environments import Progress, Step
from nomnom_control.environments.cluster.api import Cluster, Object
from nomnom_control.environments.cluster.manifests import apply, read_manifest
from nomnom_control.environments.cluster.reasons import explain
from nomnom_control.errors import ControlError
from nomnom_control.http_client import HttpClient, HttpError

_DOWNLOAD = 60.0
_READY = 180.0
_POLL = 0.5
_RECORD = "/api/v1/namespaces/kube-system/configmaps/nomnom-addons"
"""Which add-ons were brought up, and from where: a later run needs no manifest for those."""


class Addon(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One add-on. ``manifest`` is a file, relative to the definition's, or an address; {version} stands for it."""

    name: str
    manifest: str
    version: str = ""
    arguments: dict[str, list[str]] = {}
    """More arguments for the first container of these Deployments."""
    nodes: dict[str, dict[str, str]] = {}
    """Labels of the nodes that these Deployments have to run on."""


class _AddonsFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    addons: list[Addon]


def read_addons(place: Path) -> list[Addon]:
    """The add-ons of a definition file, or of a folder with a manifest for each; raises ControlError."""
    if place.is_dir():
        found = [Addon(each.stem, str(each)) for each in sorted(place.glob("*.yaml"))]
        if not found:
            raise ControlError(f"{place} has no manifest NAME.yaml")
        return found
    try:
        file = msgspec.convert(yaml.safe_load(place.read_text(encoding="utf-8")), _AddonsFile)
    except (OSError, yaml.YAMLError, msgspec.ValidationError) as error:
        raise ControlError(f"{place} does not define add-ons: {error}") from error
    return [
        msgspec.structs.replace(each, manifest=_located(each.manifest.replace("{version}", each.version), place.parent))
        for each in file.addons
    ]


def _located(manifest: str, folder: Path) -> str:
    return manifest if "://" in manifest else str(folder / Path(manifest).expanduser())


async def install_addon(cluster: Cluster, addon: Addon) -> AsyncIterator[Progress]:
    """Apply an add-on and wait until its workloads and the APIs that it serves are ready; done is skipped."""
    step, began = f"add-on {addon.name}", time.monotonic()
    yield Progress(step, Step.STARTED, addon.version)
    recorded = await _recorded(cluster, addon.name)
    if recorded == addon.manifest and "://" in addon.manifest:
        yield Progress(step, Step.SKIPPED, "it is there")
        return
    try:
        try:
            text = await _manifest(addon)
        except NomnomError as error:
            if not recorded:
                raise
            yield Progress(step, Step.SKIPPED, f"the one from {recorded} stays: {error}")
            return
        objects = await asyncio.to_thread(read_manifest, text, addon.manifest)
        fit(objects, addon)
        if await _unready(cluster, objects) == "":
            await _record(cluster, addon)
            yield Progress(step, Step.SKIPPED, "it is ready")
            return
        yield Progress(step, Step.OUTPUT, f"{len(objects)} objects")
        await apply(cluster, objects)
        said = ""
        while waits := await _unready(cluster, objects):
            if waits != said:
                said = waits
                yield Progress(step, Step.OUTPUT, f"waits for {waits}")
            if time.monotonic() - began > _READY:
                namespaces = {_namespace(each) for each in objects if each["kind"] in ("Deployment", "DaemonSet")}
                why = "\n".join([await explain(cluster, each, "") for each in sorted(namespaces)])
                text = f"add-on {addon.name} is not ready after {_READY:g} s: {waits}\n{why}"
                raise ControlError(text)
            await asyncio.sleep(_POLL)
        await _record(cluster, addon)
    except NomnomError as error:
        yield Progress(step, Step.FAILED, str(error), time.monotonic() - began)
        raise
    yield Progress(step, Step.DONE, seconds=time.monotonic() - began)


async def _recorded(cluster: Cluster, name: str) -> str:
    """The manifest that an add-on was brought up from; empty where it was not, or not to its end."""
    found = await cluster.find(_RECORD)
    return str(((found or {}).get("data") or {}).get(name, ""))


async def _record(cluster: Cluster, addon: Addon) -> None:
    body: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "nomnom-addons"}}
    await cluster.patch(_RECORD, body, "apply")
    await cluster.patch(_RECORD, {"data": {addon.name: addon.manifest}})


async def _manifest(addon: Addon) -> str:
    if "://" not in addon.manifest:
        try:
            return await asyncio.to_thread(Path(addon.manifest).read_text, encoding="utf-8")
        except OSError as error:
            raise ControlError(f"add-on {addon.name}: {addon.manifest} cannot be read: {error}") from error
    try:
        async with HttpClient(_DOWNLOAD, proxies=True, redirects=True) as client:
            answer = await client.get(addon.manifest)
        problem = f"HTTP {answer.status}" if answer.status >= 400 else ""
    except HttpError as error:
        answer, problem = None, str(error)
    if answer is None or problem:
        raise ControlError(
            f"add-on {addon.name}: {addon.manifest} cannot be downloaded: {problem}; "
            "NOMNOM_ADDONS can name a folder with the manifests instead"
        )
    return answer.text


def fit(objects: list[Object], addon: Addon) -> None:
    """Put into an add-on's objects what its definition asks for beside its manifest."""
    for each in objects:
        if each["kind"] != "Deployment":
            continue
        name, pod = str(each["metadata"]["name"]), each["spec"]["template"]["spec"]
        if more := addon.arguments.get(name):
            container = pod["containers"][0]
            container["args"] = [*(container.get("args") or []), *more]
        if labels := addon.nodes.get(name):
            pod["nodeSelector"] = {**(pod.get("nodeSelector") or {}), **labels}


async def _unready(cluster: Cluster, objects: list[Object]) -> str:
    """The first of an add-on's workloads and APIs that is not ready; empty where all are."""
    for each in objects:
        name = each["metadata"]["name"]
        if each["kind"] in ("Deployment", "DaemonSet"):
            plural = f"{each['kind'].lower()}s"
            found = await cluster.find(f"/apis/apps/v1/namespaces/{_namespace(each)}/{plural}/{name}")
            if found is None or not _workload_ready(found):
                return f"{each['kind']} {name}"
        elif each["kind"] == "APIService":
            found = await cluster.find(f"/apis/apiregistration.k8s.io/v1/apiservices/{name}")
            conditions = ((found or {}).get("status") or {}).get("conditions") or []
            if not any(one["type"] == "Available" and one["status"] == "True" for one in conditions):
                return f"APIService {name}"
    return ""


def _workload_ready(found: Object) -> bool:
    status = found.get("status") or {}
    if status.get("observedGeneration", 0) < found["metadata"].get("generation", 0):
        return False
    if found["kind"] == "DaemonSet":
        return status.get("numberReady", 0) >= status.get("desiredNumberScheduled", 1)
    return status.get("availableReplicas", 0) >= found["spec"].get("replicas", 1)


def _namespace(each: Object) -> str:
    return str(each["metadata"].get("namespace", "default"))
