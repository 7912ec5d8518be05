"""A release on a Kubernetes cluster; all it needs is a kubeconfig."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from nomnom.connections.nats import NatsConnection
from nomnom.scaling import ScalingPolicy, check_number
from nomnom.schema import Schema, parse_schema
from nomnom.settings.streams import StreamSettings
from nomnom_control.environments import (
    HOUSEKEEPER,
    WORKER,
    Component,
    Endpoints,
    Environment,
    EnvironmentAction,
    Health,
    LogLine,
    Progress,
    Revision,
    Scaling,
    StartOption,
)
from nomnom_control.environments.cluster import rollouts, scaling
from nomnom_control.environments.cluster.actions import chosen_values, release_actions, value_arguments, value_options
from nomnom_control.environments.cluster.api import Cluster, Object
from nomnom_control.environments.cluster.configuration import ClusterConfiguration
from nomnom_control.environments.cluster.forwards import Forward
from nomnom_control.environments.cluster.helm import Helm
from nomnom_control.environments.cluster.installation import Installation
from nomnom_control.environments.cluster.logs import follow_pods
from nomnom_control.environments.cluster.reasons import pod_ready, pod_replica
from nomnom_control.environments.cluster.release import PARTS, Release, component_of
from nomnom_control.environments.cluster.variables import read_streams, read_variables
from nomnom_control.environments.variables import Variables, declaration_of
from nomnom_control.errors import ControlError
from nomnom_control.http_client import HttpClient, HttpError

RELEASE = "release"
"""A pseudo component for the whole release: its history and rollback are those of helm."""
_PORTS = {"api": 8080, "nats": 4222, "nats_monitor": 8222, "postgres": 5432, "page": 5173}
_METRICS = {"api": 8080, WORKER: 8081, "dashboard": 3000, HOUSEKEEPER: 8082}
_SCRAPE = 3.0


class KubeEnvironment(Environment):
    """A release of the chart in one namespace of one context."""

    kind = "kube"

    def __init__(
        self,
        name: str,
        context: str | None,
        configuration: ClusterConfiguration,
        *,
        namespace: str = "nomnom",
        release: str = "nomnom",
        kubeconfig: Path | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.selector = ("--env", name)
        self.configuration = configuration
        self.cluster = Cluster(context, kubeconfig)
        self.release = Release(self.cluster, namespace, release)
        self.location = f"{self.cluster.title}, namespace {namespace}" + (
            "" if release == "nomnom" else f", release {release}"
        )
        self.helm = Helm(configuration.helm, namespace, release, context, kubeconfig)
        self._options = dict(options or {})
        self._forwards: dict[str, Forward] = {}
        self._nats: NatsConnection | None = None
        self._streams: StreamSettings | None = None
        self._opening = asyncio.Lock()

    @property
    def installation(self) -> Installation:
        """Installing, upgrading and removing the release."""
        return Installation(self.release, self.helm, self.configuration)

    async def close(self) -> None:
        """Close the port-forwards and the session; port-forwards that are opened again use the same local ports."""
        nats, self._nats, self._streams = self._nats, None, None
        if nats is not None:
            await nats.close()
        for each in self._forwards.values():
            await each.close()
        await self.cluster.close()

    # Inspection

    async def components(self) -> list[Component]:
        path, selector = self.release.path, self.release.selector
        deployments, stateful, pods = await asyncio.gather(
            self.cluster.list(path("apps/v1/deployments"), selector),
            self.cluster.list(path("apps/v1/statefulsets"), selector),
            self.release.pods(),
        )
        found = [_component(each, pods) for each in [*deployments, *stateful] if component_of(each) in PARTS]
        if not found:
            return [Component(name, 0, 0, Health.STOPPED, detail="not installed") for name in PARTS]
        return sorted(found, key=lambda each: list(PARTS).index(each.name))

    async def endpoints(self) -> Endpoints:
        access = await self.release.access()
        parts = {each.name for each in await self.components()}
        api = await self._forward("api", "api")
        nats = access.nats_servers.replace("$(NATS_PASSWORD)", access.nats_password)
        monitor = ""
        if "nats" in parts:
            local, watched = await self._forward("nats", "nats"), await self._forward("nats_monitor", "nats")
            nats = f"nats://operator:{access.nats_password}@127.0.0.1:{local}"
            monitor = f"http://127.0.0.1:{watched}"
        server = access.database_server
        if "postgres" in parts:
            server = f"127.0.0.1:{await self._forward('postgres', 'postgres')}"
        page = f"http://127.0.0.1:{await self._forward('page', 'page')}" if "page" in parts else None
        return Endpoints(
            api=f"http://127.0.0.1:{api}",
            nats=nats,
            nats_monitor=monitor,
            database=f"postgresql://{access.role}:{access.database_password}@{server}/{access.database}",
            dashboard=page,
            api_token=access.token,
        )

    async def _forward(self, name: str, component: str) -> int:
        async with self._opening:
            if name not in self._forwards:

                async def ready() -> list[str]:
                    pods = await self.release.pods(component)
                    return [each["metadata"]["name"] for each in pods if pod_ready(each)]

                self._forwards[name] = Forward(
                    self.cluster, self.release.namespace, _PORTS[name], ready, f"{component} of {self.name}"
                )
            return await self._forwards[name].open()

    async def streams(self) -> StreamSettings:
        # The streams belong to a release as long as it lives: one reading is enough.
        if self._streams is None:
            self._streams = read_streams(await self.release.deployment(WORKER))
        return self._streams

    async def schema(self) -> Schema:
        return parse_schema(await self.release.schema_text(), f"the schema of {self.location}")

    async def metrics(self, component: str) -> dict[str, str]:
        if component not in _METRICS:
            return {}
        pods = [each for each in await self.release.pods(component) if pod_ready(each)]
        names = [str(each["metadata"]["name"]) for each in pods]
        texts = await asyncio.gather(*(self._scrape(each, _METRICS[component]) for each in names))
        return {name: text for name, text in zip(names, texts, strict=True) if text}

    async def _scrape(self, pod: str, port: int) -> str:
        """Read one pod's metrics through a port-forward, which works regardless of network policies."""

        async def only_this_pod() -> list[str]:
            return [pod]

        forward = Forward(self.cluster, self.release.namespace, port, only_this_pod, pod)
        local = await forward.open()
        try:
            async with HttpClient(_SCRAPE) as client:
                return (await client.get(f"http://127.0.0.1:{local}/metrics")).text
        except HttpError:
            return ""  # a pod that does not answer is left out
        finally:
            await forward.close()

    def logs(
        self, components: Sequence[str] = (), *, follow: bool = False, tail: int | None = 100
    ) -> AsyncIterator[LogLine]:
        for each in components:
            self.release.part(each)
        return follow_pods(self.release, components, follow=follow, tail=tail)

    # Scaling

    async def scaling(self) -> Scaling:
        return await scaling.read_scaling(self.release, await self._connection(), await self.streams())

    async def _connection(self) -> NatsConnection:
        if self._nats is None:
            self._nats = NatsConnection((await self.endpoints()).nats, "nomnom-control")
        return self._nats

    async def set_scaling_policy(self, policy: ScalingPolicy) -> None:
        policy.check(self.worker_limit)
        await scaling.change_policy(self.release, policy)

    async def scale(self, component: str, replicas: int) -> None:
        check_number(replicas, self.worker_limit)
        if component == WORKER and await scaling.find_scaled_object(self.release) is not None:
            await scaling.pin(self.release, replicas)
            return
        found = await self.release.deployment(component)
        name = found["metadata"]["name"]
        for each in await self.cluster.list(self.release.path("autoscaling/v2/horizontalpodautoscalers")):
            if each["spec"]["scaleTargetRef"]["name"] == name:
                spec = each["spec"]
                raise ControlError(
                    f"{component} is scaled automatically between {spec.get('minReplicas', 1)} and "
                    f"{spec['maxReplicas']} replicas; change its autoscaling in the chart's values"
                )
        path = self.release.path("apps/v1/deployments", f"{name}/scale")
        await self.cluster.patch(path, {"spec": {"replicas": replicas}})

    async def pause_autoscaling(self) -> None:
        worker = await self.release.deployment(WORKER)
        await scaling.pin(self.release, int(worker["spec"].get("replicas", 0)))

    async def resume_autoscaling(self) -> None:
        await scaling.pin(self.release, None)

    # Rollouts

    def restart(self, component: str) -> AsyncIterator[Progress]:
        return rollouts.restart(self.release, component)

    async def variables(self, component: str) -> Variables:
        declaration_of(component)
        return read_variables(await self.release.deployment(component))

    def roll_out(self, component: str, changes: Mapping[str, str], cause: str) -> AsyncIterator[Progress]:
        return rollouts.roll_out(self.release, component, changes, cause)

    async def history(self, component: str) -> list[Revision]:
        if component == RELEASE:
            return [
                Revision(each.number, each.at, f"{each.chart}: {each.description}", each.status == "deployed")
                for each in await self.helm.history()
            ]
        return await rollouts.history(self.release, component)

    def rollback(self, component: str, revision: int | None = None) -> AsyncIterator[Progress]:
        if component == RELEASE:
            return self.installation.rollback(revision)
        return rollouts.rollback(self.release, component, revision)

    # Lifecycle

    def start_options(self) -> Sequence[StartOption]:
        return value_options(self.configuration, self._options.get("values", ""), self._options.get("set", ""))

    def actions(self) -> Sequence[EnvironmentAction]:
        return release_actions(self)

    def command(self, operation: str) -> str:
        text = {"start": "install --yes", "stop": "down --yes", "destroy": "uninstall --yes"}[operation]
        more = value_arguments(self._options) if operation == "start" else ""
        return " ".join(each for each in ("nomnom", text, more, *self.selector) if each)

    def with_options(self, values: Mapping[str, str]) -> KubeEnvironment:
        self._options.update(values)
        return self

    def chosen_values(self) -> tuple[list[Path], list[str]]:
        """The values files and values for the next installation."""
        return chosen_values(self.configuration, self._options)

    def plan(self, operation: str) -> Sequence[str]:
        place = self.location
        steps = {
            "start": (
                f"install or upgrade {self.release.name} on {place}",
                "wait until PostgreSQL and NATS are ready, and streams and tables are set up",
                "wait until API and dashboard are ready",
            ),
            "stop": (f"on {place}:", "scale everything to zero, workers first", "keep the data in the volumes"),
            "destroy": (f"helm uninstall {self.release.name} on {place}", "remove its volume claims"),
        }
        return steps.get(operation, ())

    def losses(self) -> Sequence[str]:
        return (f"{self.location}: every table, every stream with its messages and dead letters",)

    async def start(self) -> AsyncIterator[Progress]:
        async for each in self.installation.install(*self.chosen_values()):
            yield each

    async def stop(self) -> AsyncIterator[Progress]:
        async for each in self.installation.stop():
            yield each

    async def destroy(self) -> AsyncIterator[Progress]:
        async for each in self.installation.uninstall(data=True):
            yield each


def _component(workload: Object, pods: Sequence[Object]) -> Component:
    name = component_of(workload)
    status = workload.get("status", {})
    desired = int(workload["spec"].get("replicas", 1))
    ready = int(status.get("readyReplicas", 0))
    replicas = tuple(pod_replica(each) for each in pods if component_of(each) == name)
    detail = next((each.detail for each in replicas if each.detail), "")
    image = str(workload["spec"]["template"]["spec"]["containers"][0]["image"])
    if desired == 0:
        health, detail = Health.STOPPED, "scaled to zero" if name == WORKER else ""
    elif ready >= desired:
        health, detail = Health.HEALTHY, ""
    elif detail:
        health = Health.DEGRADED if ready else Health.FAILED
    else:
        health = Health.DEGRADED if ready else Health.STARTING
    return Component(name, desired, ready, health, image.rpartition(":")[2], detail, replicas)
