"""Install, upgrade, stop and remove a release in steps, each with its own timeout."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import nomnom
from nomnom.errors import NomnomError
from nomnom_control.environments import HOUSEKEEPER, WORKER, Progress, Step
from nomnom_control.environments.cluster import scaling
from nomnom_control.environments.cluster.api import Object
from nomnom_control.environments.cluster.configuration import ClusterConfiguration, split_args
from nomnom_control.environments.cluster.helm import Helm
from nomnom_control.environments.cluster.reasons import explain, first_problem
from nomnom_control.environments.cluster.release import PARTS, NotInstalled, Release
from nomnom_control.environments.cluster.rollouts import wait_for
from nomnom_control.errors import ControlError
from nomnom_control.programs import ProgramError

READY = 240.0
"""Timeout in seconds until a component is ready."""
_POLL = 0.5
_IMAGES = ("ingestion.api", "ingestion.worker", "dashboard.backend", "dashboard.frontend", "housekeeper")
_STOPPED = "nomnom/stopped-replicas"
_KEDA = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/scaledobjects.keda.sh"


async def lines_as_step(step: str, lines: AsyncIterator[str]) -> AsyncIterator[Progress]:
    """The output of a program as one step, which also reports the program's failure."""
    began = time.monotonic()
    yield Progress(step, Step.STARTED)
    try:
        async for line in lines:
            yield Progress(step, Step.OUTPUT, line)
    except NomnomError as error:
        yield Progress(step, Step.FAILED, str(error), time.monotonic() - began)
        raise
    yield Progress(step, Step.DONE, seconds=time.monotonic() - began)


@dataclass(frozen=True)
class Installation:
    """The lifecycle of one release. Every operation can be repeated: finished steps are skipped."""

    release: Release
    helm: Helm
    configuration: ClusterConfiguration

    async def install(
        self, files: Sequence[Path] = (), values: Sequence[str] = (), *, description: str = ""
    ) -> AsyncIterator[Progress]:
        """Install or upgrade the release and wait until it is ready. Raises ControlError with the reason.

        Without values files, those of the last revision are kept; a changed autoscaling policy is always kept.
        """
        mine = self.configuration
        chosen = [f"global.imageRegistry={mine.image_registry}"] if mine.image_registry else []
        if mine.image_tag != nomnom.__version__:
            chosen += [f"{each}.image.tag={mine.image_tag}" for each in _IMAGES]
        chosen += [*split_args(mine.values), *values]
        revisions = await self.helm.history()
        reuse = bool(revisions) and not files
        scaled = await scaling.find_scaled_object(self.release) if revisions else None
        if scaled is not None and scaling.CHANGED in (scaled["metadata"].get("annotations") or {}):
            chosen = scaling.policy_values(scaled) + chosen
        if "keda.enabled=false" not in chosen:
            await self._require_keda()

        async def work() -> AsyncIterator[str]:
            async for line in self.helm.recover():
                yield line
            lines = self.helm.upgrade(mine.chart_folder, files, chosen, reuse=reuse, description=description)
            async for line in lines:
                yield line

        async for each in lines_as_step(f"chart {self.release.name}", work()):
            yield each
        async for each in self._start_stopped():
            yield each
        async for each in self.wait():
            yield each

    async def wait(self) -> AsyncIterator[Progress]:
        """Wait until the setup is complete and every component is ready."""
        found: list[tuple[str, str, Object]] = []
        for name in ("postgres", "nats", "api", "dashboard", "page", HOUSEKEEPER, WORKER):
            try:
                kind, workload = await self.release.workload(name)
            except NotInstalled:
                continue
            found.append((name, kind, workload))
        for name, kind, workload in found:
            if name == "api":
                async for each in self._wait_for_setup():
                    yield each
            now = await self.release.cluster.get(self.release.path(kind, workload["metadata"]["name"]))
            async for each in wait_for(self.release, name, kind, now, f"{name} ready", limit=READY):
                yield each

    async def rollback(self, revision: int | None = None) -> AsyncIterator[Progress]:
        """Roll back to a revision of the release and wait until it is ready."""
        async for each in lines_as_step(f"roll back {self.release.name}", self.helm.rollback(revision)):
            yield each
        async for each in self.wait():
            yield each

    async def test(self) -> AsyncIterator[Progress]:
        """Run the chart's tests: send a record from API to dashboard. A failure includes the end of the test's log."""

        async def work() -> AsyncIterator[str]:
            try:
                async for line in self.helm.test():
                    yield line
            except ProgramError as error:
                selector = f"{self.release.selector},app.kubernetes.io/component=test"
                why = await explain(self.release.cluster, self.release.namespace, selector)
                raise ControlError(f"the test of the release failed:\n{why}\n{error}") from error

        async for each in lines_as_step(f"test {self.release.name}", work()):
            yield each

    async def uninstall(self, *, data: bool) -> AsyncIterator[Progress]:
        """Remove the release; with ``data`` also its volume claims."""
        async for each in lines_as_step(f"remove {self.release.name}", self.helm.uninstall()):
            yield each
        async for each in self._wait_until_gone(None, "wait for pods to terminate"):
            yield each
        if not data:
            return
        step, began = "remove the data", time.monotonic()
        yield Progress(step, Step.STARTED)
        kind = "v1/persistentvolumeclaims"
        selector = f"app.kubernetes.io/instance={self.release.name}"
        for each in await self.release.cluster.list(self.release.path(kind), selector):
            name = each["metadata"]["name"]
            if (each["metadata"].get("labels") or {}).get("app.kubernetes.io/name", "nomnom") == "nomnom":
                yield Progress(step, Step.OUTPUT, name)
                await self.release.cluster.delete(self.release.path(kind, name))
        # Secrets that the chart keeps are of no use without the volumes.
        for each in await self.release.cluster.list(self.release.path("v1/secrets"), self.release.selector):
            if (each["metadata"].get("annotations") or {}).get("helm.sh/resource-policy") == "keep":
                yield Progress(step, Step.OUTPUT, each["metadata"]["name"])
                await self.release.cluster.delete(self.release.path("v1/secrets", each["metadata"]["name"]))
        yield Progress(step, Step.DONE, seconds=time.monotonic() - began)

    async def stop(self) -> AsyncIterator[Progress]:
        """Scale everything to zero, workers first. Volumes are kept, and the numbers of replicas for the next start."""
        if await scaling.find_scaled_object(self.release) is not None:
            await scaling.pin(self.release, 0)
        for name in (WORKER, HOUSEKEEPER, "page", "dashboard", "api", "nats", "postgres"):
            try:
                kind, workload = await self.release.workload(name)
            except NotInstalled:
                continue
            path = self.release.path(kind, workload["metadata"]["name"])
            replicas = workload["spec"].get("replicas", 1)
            body: Object = {"spec": {"replicas": 0}}
            if replicas:
                body["metadata"] = {"annotations": {_STOPPED: str(replicas)}}
            workload = await self.release.cluster.patch(path, body)
            async for each in wait_for(self.release, name, kind, workload, f"stop {name}", limit=READY):
                yield each
            # The controller does not count terminating pods, but they still need the components that are stopped next.
            async for each in self._wait_until_gone(name, f"wait for {name} pods to terminate"):
                yield each

    async def _wait_until_gone(self, component: str | None, step: str) -> AsyncIterator[Progress]:
        """Wait until all pods of a component (None: of all components) are gone, terminating ones included."""
        began, remaining = time.monotonic(), -1
        while pods := await self.release.pods(component):
            if remaining < 0:
                yield Progress(step, Step.STARTED)
            if len(pods) != remaining:
                remaining = len(pods)
                yield Progress(step, Step.OUTPUT, f"{remaining} {'pod' if remaining == 1 else 'pods'} terminating")
            if time.monotonic() - began > READY:
                names = ", ".join(str(each["metadata"]["name"]) for each in pods)
                text = f"pods of {self.release.where} still running after {READY:g}s: {names}"
                yield Progress(step, Step.FAILED, text, time.monotonic() - began)
                raise ControlError(text)
            await asyncio.sleep(_POLL)
        yield Progress(step, Step.DONE, seconds=time.monotonic() - began)

    async def _start_stopped(self) -> AsyncIterator[Progress]:
        """Undo :meth:`stop`: restore the previous numbers of replicas, and resume autoscaling."""
        started = False
        for name in PARTS:
            try:
                kind, workload = await self.release.workload(name)
            except NotInstalled:
                continue
            replicas = (workload["metadata"].get("annotations") or {}).get(_STOPPED)
            if replicas is None:
                continue
            body: Object = {"metadata": {"annotations": {_STOPPED: None}}}
            if workload["spec"].get("replicas", 1) == 0:
                body["spec"] = {"replicas": int(replicas)}
            await self.release.cluster.patch(self.release.path(kind, workload["metadata"]["name"]), body)
            started = True
            yield Progress("start stopped components", Step.OUTPUT, f"{name}: {replicas}")
        if started and await scaling.find_scaled_object(self.release) is not None:
            await scaling.pin(self.release, None)
        if started:
            yield Progress("start stopped components", Step.DONE)

    async def _require_keda(self) -> None:
        if await self.release.cluster.find(_KEDA) is None:
            raise ControlError(
                f"KEDA is not installed on {self.release.cluster.title}; install it, or set keda.enabled=false"
            )

    async def _wait_for_setup(self) -> AsyncIterator[Progress]:
        """Wait for the newest setup job. A failure includes the end of its log."""
        step, began = "setup", time.monotonic()
        selector = f"{self.release.selector},app.kubernetes.io/component=setup"
        problem = ""
        yield Progress(step, Step.STARTED)
        while True:
            jobs = await self.release.cluster.list(self.release.path("batch/v1/jobs"), selector)
            jobs.sort(key=lambda each: str(each["metadata"]["creationTimestamp"]))
            conditions = {
                each["type"]: each for each in (jobs[-1].get("status", {}).get("conditions") or [] if jobs else [])
            }
            taken = time.monotonic() - began
            if not jobs or conditions.get("Complete", {}).get("status") == "True":
                yield Progress(step, Step.DONE, "streams, tables and roles" if jobs else "", taken)
                return
            failed = conditions.get("Failed", {}).get("status") == "True"
            if failed or taken > READY:
                why = await explain(self.release.cluster, self.release.namespace, selector)
                text = f"the setup job {'failed' if failed else f'has not finished after {READY:g}s'}:\n{why}"
                yield Progress(step, Step.FAILED, text, taken)
                raise ControlError(text)
            found = first_problem(await self.release.cluster.list(self.release.path("v1/pods"), selector))
            if found and found != problem:
                problem = found
                yield Progress(step, Step.OUTPUT, found)
            await asyncio.sleep(_POLL)
