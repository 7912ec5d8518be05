"""A kind cluster with a pipeline: one operation creates all of it, another one deletes it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from nomnom_control.environments import Component, EnvironmentAction, Health, Progress, Step
from nomnom_control.environments.cluster.actions import value_arguments
from nomnom_control.environments.cluster.api import ClusterUnavailable
from nomnom_control.environments.cluster.configuration import IMAGES, ClusterConfiguration
from nomnom_control.environments.cluster.environment import KubeEnvironment
from nomnom_control.environments.cluster.images import build_images, missing_images
from nomnom_control.environments.cluster.installation import lines_as_step
from nomnom_control.environments.cluster.reasons import explain
from nomnom_control.environments.kind.addons import install_addon, read_addons
from nomnom_control.environments.merging import merge
from nomnom_control.errors import ControlError
from nomnom_control.programs import run_lines, run_text

_CREATE = 300.0
_LOAD = 300.0
_READY = 120.0
_POLL = 0.5


class KindEnvironment(KubeEnvironment):
    """A release on a kind cluster; the cluster is created and deleted with it."""

    kind = "kind"

    def __init__(
        self,
        cluster: str,
        configuration: ClusterConfiguration,
        *,
        name: str | None = None,
        namespace: str = "nomnom",
        release: str = "nomnom",
        kubeconfig: Path | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            name or f"kind:{cluster}",
            f"kind-{cluster}",
            configuration,
            namespace=namespace,
            release=release,
            kubeconfig=kubeconfig,
            options={"values": "dev", **(options or {})},
        )
        self.cluster_name = cluster
        self._kubeconfig = kubeconfig

    async def exists(self) -> bool:
        """Whether the cluster exists."""
        listed = await run_text([self.configuration.kind, "get", "clusters"])
        return self.cluster_name in listed.split()

    async def components(self) -> list[Component]:
        try:
            return await super().components()
        except ClusterUnavailable:
            if await self.exists():
                raise
            return [Component("cluster", 0, 0, Health.STOPPED, detail="not created")]

    def plan(self, operation: str) -> Sequence[str]:
        if operation == "start":
            addons = ", ".join(each.name for each in read_addons(self.configuration.addons_path))
            return (
                f"create the kind cluster {self.cluster_name} with {self.configuration.node_image.partition('@')[0]}",
                f"install {addons}",
                "build missing images, and load them",
                *super().plan("start"),
                "existing parts are kept as they are",
            )
        if operation == "destroy" and self._owns_cluster:
            return (f"delete the kind cluster {self.cluster_name}",)
        return super().plan(operation)

    def command(self, operation: str) -> str:
        if operation == "stop":
            return super().command(operation)
        if operation == "destroy":
            return f"nomnom kind delete {self.cluster_name} --yes" if self._owns_cluster else super().command(operation)
        if not self._owns_cluster:
            return " ".join(("nomnom up --yes", *self.selector))
        return " ".join(
            each for each in ("nomnom kind create", self.cluster_name, value_arguments(self._options)) if each
        )

    @property
    def _owns_cluster(self) -> bool:
        """Whether the cluster belongs to this pipeline: an additional one has another namespace or release name."""
        return self.release.namespace == self.release.name == "nomnom"

    def actions(self) -> Sequence[EnvironmentAction]:
        load = EnvironmentAction(
            "load",
            f"Reload the images into {self.cluster_name}",
            lambda _: self.load(again=True),
            lambda _: f"nomnom kind load {self.cluster_name}",
            plan=lambda _: (
                f"load the images onto the nodes of {self.cluster_name}",
                "restart a component to use them",
            ),
        )
        return (*super().actions(), load)

    def losses(self) -> Sequence[str]:
        return (
            (f"the kind cluster {self.cluster_name} with everything in it",) if self._owns_cluster else super().losses()
        )

    async def start(self) -> AsyncIterator[Progress]:
        async for each in self.prepare():
            yield each
        async for each in super().start():
            yield each

    async def prepare(self) -> AsyncIterator[Progress]:
        """Create the cluster with add-ons and images, ready for the chart."""
        # Report invalid values before the cluster is created.
        self.chosen_values()
        read_addons(self.configuration.addons_path)
        async for each in merge(self.create(), self._built_images()):
            yield each
        addons = [install_addon(self.cluster, each) for each in read_addons(self.configuration.addons_path)]
        async for each in merge(self.load(), *addons):
            yield each

    async def create(self) -> AsyncIterator[Progress]:
        """Create the cluster and wait for its nodes; skipped if it exists."""
        step = f"cluster {self.cluster_name}"
        if await self.exists():
            yield Progress(step, Step.SKIPPED, "already exists")
        else:
            command = [self.configuration.kind, "create", "cluster", "--name", self.cluster_name]
            command += ["--image", self.configuration.node_image, "--config", str(self.configuration.kind_file)]
            command += self._kubeconfig_arguments()
            async for each in lines_as_step(step, run_lines(command, limit=_CREATE)):
                yield each
        async for each in self._wait_for_nodes():
            yield each

    def _kubeconfig_arguments(self) -> list[str]:
        return ["--kubeconfig", str(self._kubeconfig)] if self._kubeconfig else []

    async def _wait_for_nodes(self) -> AsyncIterator[Progress]:
        step, began = "nodes ready", time.monotonic()
        yield Progress(step, Step.STARTED)
        shown = ""
        while True:
            nodes = await self.cluster.list("/api/v1/nodes")
            unready = [
                str(each["metadata"]["name"])
                for each in nodes
                if not any(
                    one["type"] == "Ready" and one["status"] == "True" for one in each["status"].get("conditions") or []
                )
            ]
            if not unready:
                break
            text = f"waiting for {', '.join(unready)}"
            if text != shown:
                shown = text
                yield Progress(step, Step.OUTPUT, text)
            if time.monotonic() - began > _READY:
                why = await explain(self.cluster, "kube-system", "")
                text = f"nodes are not ready after {_READY:g}s: {', '.join(unready)}\n{why}"
                yield Progress(step, Step.FAILED, text, time.monotonic() - began)
                raise ControlError(text)
            await asyncio.sleep(_POLL)
        yield Progress(step, Step.DONE, f"{len(nodes)} nodes", time.monotonic() - began)

    async def _built_images(self) -> AsyncIterator[Progress]:
        missing = await missing_images(self.configuration)
        if not missing:
            yield Progress("images", Step.SKIPPED, "already built")
            return
        async for each in build_images(self.configuration, missing):
            yield each

    async def load(self, *, again: bool = False) -> AsyncIterator[Progress]:
        """Load the images onto the nodes that run pods; skipped if all nodes have them, unless ``again``."""
        step = "load images"
        names = [self.configuration.image(each) for each in IMAGES]
        nodes = await self._nodes()
        if not again and await self._loaded(nodes, names):
            yield Progress(step, Step.SKIPPED, "already loaded")
            return
        command = [self.configuration.kind, "load", "docker-image", *names, "--name", self.cluster_name]
        command += ["--nodes", ",".join(nodes)]
        async for each in lines_as_step(step, run_lines(command, limit=_LOAD)):
            yield each

    async def _nodes(self) -> list[str]:
        """The nodes that run pods: those without a NoSchedule taint, or all."""
        nodes = await self.cluster.list("/api/v1/nodes")
        names = [str(each["metadata"]["name"]) for each in nodes]
        return [
            name
            for name, each in zip(names, nodes, strict=True)
            if not any(one["effect"] == "NoSchedule" for one in each["spec"].get("taints") or [])
        ] or names

    async def _loaded(self, nodes: Sequence[str], names: Sequence[str]) -> bool:
        """Whether every node has exactly these images."""
        docker = self.configuration.docker
        wanted = await run_text([docker, "image", "inspect", "--format", "{{.Id}}", *names])
        for node in nodes:
            listed = await run_text([docker, "exec", node, "crictl", "images", "--no-trunc", "--quiet"])
            if not set(wanted.split()) <= set(listed.split()):
                return False
        return True

    async def destroy(self) -> AsyncIterator[Progress]:
        """Delete the cluster, if it exists; if it belongs to another pipeline, uninstall only the release."""
        if not self._owns_cluster:
            async for each in super().destroy():
                yield each
            return
        await self.close()
        command = [
            self.configuration.kind,
            "delete",
            "cluster",
            "--name",
            self.cluster_name,
            *self._kubeconfig_arguments(),
        ]
        async for each in lines_as_step(f"delete cluster {self.cluster_name}", run_lines(command, limit=_CREATE)):
            yield each
