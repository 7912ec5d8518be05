"""Server-side apply of manifests through the API server, as ``kubectl apply --server-side`` does it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from typing import Any

import yaml

from nomnom.connections.errors import Unavailable
from nomnom_control.environments.cluster.api import Cluster, ClusterRefused, Object
from nomnom_control.errors import ControlError

_FIRST = ("Namespace", "CustomResourceDefinition")
_AT_ONCE = 8
_TIMEOUT = 60.0
_POLL = 0.5


def read_manifest(text: str, source: str) -> list[Object]:
    """The objects of a manifest; lists are flattened. Raises ControlError if the manifest is not valid."""
    try:
        found: Iterable[Any] = list(yaml.load_all(text, Loader=_Loader))
    except yaml.YAMLError as error:
        raise ControlError(f"{source} is not a valid manifest: {error}") from error
    objects: list[Object] = []
    for each in found:
        if not each:
            continue
        if not isinstance(each, dict) or "kind" not in each or "apiVersion" not in each:
            raise ControlError(f"{source} is not a valid manifest: expected objects with apiVersion and kind")
        given: Object = each  # pyright: ignore[reportUnknownVariableType]
        objects += given["items"] if str(given["kind"]).endswith("List") else [given]
    return objects


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # CSafeLoader: ten times faster
    """Reads a plain ``=`` as text: in YAML 1.1 it has a type of its own, which PyYAML cannot construct."""


def _plain(_: Any, node: yaml.ScalarNode) -> str:
    return str(node.value)


_Loader.add_constructor("tag:yaml.org,2002:value", _plain)


async def apply(cluster: Cluster, objects: Sequence[Object], *, dry_run: bool = False) -> None:
    """Create or change the objects, namespaces and CRDs first. Raises ControlError with the name of the object.

    With ``dry_run`` nothing is changed, but errors of the API server are raised. Objects that are rejected because a
    CRD or a webhook is not served yet are retried.
    """
    kinds = _Kinds(cluster)
    slots = asyncio.Semaphore(_AT_ONCE)

    async def one(each: Object) -> None:
        async with slots:
            await _apply_one(cluster, kinds, each, dry_run=dry_run)

    for wave in ("Namespace",), ("CustomResourceDefinition",):
        await asyncio.gather(*(one(each) for each in objects if each["kind"] in wave))
    await asyncio.gather(*(one(each) for each in objects if each["kind"] not in _FIRST))


async def _apply_one(cluster: Cluster, kinds: _Kinds, each: Object, *, dry_run: bool) -> None:
    name = f"{each['kind']} {each['metadata']['name']}"
    deadline = time.monotonic() + _TIMEOUT
    while True:
        try:
            plural, namespaced = await kinds.find(each["apiVersion"], each["kind"])
            await cluster.patch(_path(each, plural, namespaced=namespaced), each, "apply", dry_run=dry_run)
        except (ClusterRefused, Unavailable, _NotServed) as error:
            temporary = not isinstance(error, ClusterRefused) or error.status in (404, 409, 429, 500, 503)
            if not temporary or time.monotonic() > deadline:
                raise ControlError(f"cannot apply {name}: {error}") from error
            await asyncio.sleep(_POLL)
        else:
            return


def _path(each: Object, plural: str, *, namespaced: bool) -> str:
    version = str(each["apiVersion"])
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    metadata = each["metadata"]
    where = f"/namespaces/{metadata.get('namespace', 'default')}" if namespaced else ""
    return f"{root}{where}/{plural}/{metadata['name']}"


class _NotServed(ControlError):  # noqa: N818
    """The API server does not serve a kind yet."""


class _Kinds:
    """The resource name of a kind, and whether it is namespaced, from the API server's discovery."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._known: dict[tuple[str, str], tuple[str, bool]] = {}
        self._lock = asyncio.Lock()

    async def find(self, version: str, kind: str) -> tuple[str, bool]:
        async with self._lock:
            if (version, kind) not in self._known:
                root = f"/apis/{version}" if "/" in version else f"/api/{version}"
                group = await self._cluster.find(root)
                for each in (group or {}).get("resources") or []:
                    if "/" not in each["name"]:
                        self._known[version, each["kind"]] = (each["name"], each["namespaced"])
            if (version, kind) not in self._known:
                raise _NotServed(f"the API server does not serve {version} {kind}")
            return self._known[version, kind]
