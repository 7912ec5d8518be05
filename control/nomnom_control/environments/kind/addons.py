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
"""Records the installed add-ons with the source of their manifests, so that a later run can skip them."""


class Addon(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One add-on. ``manifest`` is a URL or a file relative to the definition; {version} is replaced by the version."""

    name: str
    manifest: str
    version: str = ""
    arguments: dict[str, list[str]] = {}
    """Additional arguments for the first container of Deployments, by their names."""
    nodes: dict[str, dict[str, str]] = {}
    """Node selectors of Deployments, by their names."""


class _AddonsFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    addons: list[Addon]


def read_addons(path: Path) -> list[Addon]:
    """The add-ons of a definition file, or of a folder with one manifest each. Raises ControlError."""
    if path.is_dir():
        found = [Addon(each.stem, str(each)) for each in sorted(path.glob("*.yaml"))]
        if not found:
            raise ControlError(f"no manifest NAME.yaml in {path}")
        return found
    try:
        file = msgspec.convert(yaml.safe_load(path.read_text(encoding="utf-8")), _AddonsFile)
    except (OSError, yaml.YAMLError, msgspec.ValidationError) as error:
        raise ControlError(f"{path} is not a valid definition of add-ons: {error}") from error
    return [
        msgspec.structs.replace(each, manifest=_located(each.manifest.replace("{version}", each.version), path.parent))
        for each in file.addons
    ]


def _located(manifest: str, folder: Path) -> str:
    return manifest if "://" in manifest else str(folder / Path(manifest).expanduser())


async def install_addon(cluster: Cluster, addon: Addon) -> AsyncIterator[Progress]:
    """Apply an add-on and wait until its workloads and APIs are ready; skipped if it is installed."""
    step, began = f"add-on {addon.name}", time.monotonic()
    yield Progress(step, Step.STARTED, addon.version)
    recorded = await _recorded(cluster, addon.name)
    if recorded == addon.manifest and "://" in addon.manifest:
        yield Progress(step, Step.SKIPPED, "already installed")
        return
    try:
        try:
            text = await _manifest(addon)
        except NomnomError as error:
            if not recorded:
                raise
            yield Progress(step, Step.SKIPPED, f"keeping the one installed from {recorded}: {error}")
            return
        objects = await asyncio.to_thread(read_manifest, text, addon.manifest)
        customize(objects, addon)
        if await _unready(cluster, objects) == "":
            await _record(cluster, addon)
            yield Progress(step, Step.SKIPPED, "already ready")
            return
        yield Progress(step, Step.OUTPUT, f"{len(objects)} objects")
        await apply(cluster, objects)
        shown = ""
        while unready := await _unready(cluster, objects):
            if unready != shown:
                shown = unready
                yield Progress(step, Step.OUTPUT, f"waiting for {unready}")
            if time.monotonic() - began > _READY:
                namespaces = {_namespace(each) for each in objects if each["kind"] in ("Deployment", "DaemonSet")}
                why = "\n".join([await explain(cluster, each, "") for each in sorted(namespaces)])
                text = f"add-on {addon.name} is not ready after {_READY:g}s: {unready}\n{why}"
                raise ControlError(text)
            await asyncio.sleep(_POLL)
        await _record(cluster, addon)
    except NomnomError as error:
        yield Progress(step, Step.FAILED, str(error), time.monotonic() - began)
        raise
    yield Progress(step, Step.DONE, seconds=time.monotonic() - began)


async def _recorded(cluster: Cluster, name: str) -> str:
    """The manifest that an add-on was installed from; empty if it was not installed completely."""
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
            raise ControlError(f"add-on {addon.name}: cannot read {addon.manifest}: {error}") from error
    try:
        async with HttpClient(_DOWNLOAD, proxies=True, redirects=True) as client:
            answer = await client.get(addon.manifest)
        problem = f"HTTP {answer.status}" if answer.status >= 400 else ""
    except HttpError as error:
        answer, problem = None, str(error)
    if answer is None or problem:
        raise ControlError(
            f"add-on {addon.name}: cannot download {addon.manifest}: {problem}; "
            "set NOMNOM_ADDONS to a folder with the manifests"
        )
    return answer.text


def customize(objects: list[Object], addon: Addon) -> None:
    """Apply the arguments and node selectors of an add-on's definition to its objects."""
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
    """The first workload or API of an add-on that is not ready; empty if all are ready."""
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
