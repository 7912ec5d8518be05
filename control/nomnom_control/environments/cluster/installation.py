"""Installing, upgrading, stopping and removing a release, step by step, each with its own time limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import nomnom
from nomnom.errors import NomnomError
from nomnom_control.environments import WORKER, Progress, Step
from nomnom_control.environments.cluster import scaling
from nomnom_control.environments.cluster.api import Object
from nomnom_control.environments.cluster.configuration import ClusterConfiguration, words
from nomnom_control.environments.cluster.helm import Helm
from nomnom_control.environments.cluster.reasons import explain, first_problem
from nomnom_control.environments.cluster.release import PARTS, NotInstalled, Release
from nomnom_control.environments.cluster.rollouts import wait_for
from nomnom_control.errors import ControlError
from nomnom_control.programs import ProgramError

READY = 240.0
"""Seconds that each component may take until it is ready."""
_POLL = 0.5
_IMAGES = ("ingestion.api", "ingestion.worker", "dashboard.backend", "dashboard.frontend")
_STOPPED = "nomnom/stopped-replicas"
_KEDA = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/scaledobjects.keda.sh"


async def lines_as_step(step: str, lines: AsyncIterator[str]) -> AsyncIterator[Progress]:
    """A program's lines as one step; what it fails with is told by the step, too."""
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
    """One release's life. Every operation can be repeated: what is done already is left as it is."""

    release: Release
    helm: Helm
    configuration: ClusterConfiguration

    async def install(
        self, files: Sequence[Path] = (), values: Sequence[str] = (), *, description: str = ""
    ) -> AsyncIterator[Progress]:
        """Install or upgrade the release and wait until all of it is ready; raises ControlError with the reason.

        Without values files, the values of the last revision are kept. A policy that was changed here always is.
        """
        mine = self.configuration
        chosen = [f"global.imageRegistry={mine.image_registry}"] if mine.image_registry else []
        if mine.image_tag != nomnom.__version__:
            chosen += [f"{each}.image.tag={mine.image_tag}" for each in _IMAGES]
        chosen += [*words(mine.values), *values]
        revisions = await self.helm.history()
        reuse = bool(revisions) and not files
        scaled = await scaling.find_scaled_object(self.release) if revisions else None
        if scaled is not None and scaling.CHANGED in (scaled["metadata"].get("annotations") or {}):
            chosen = scaling.policy_values(scaled) + chosen
        if "keda.enabled=false" not in chosen:
            await self._require_keda()

        async def work() -> AsyncIterator[str]:
            async for line in self.helm.mend():
                yield line
            lines = self.helm.upgrade(mine.chart_folder, files, chosen, reuse=reuse, description=description)
            async for line in lines:
                yield line

        async for each in lines_as_step(f"chart {self.release.name}", work()):
            yield each
        async for each in self._wake():
            yield each
        async for each in self.wait():
            yield each

    async def wait(self) -> AsyncIterator[Progress]:
        """Wait until the setup has run and every component is ready."""
        found: list[tuple[str, str, Object]] = []
        for name in ("postgres", "nats", "api", "dashboard", "page", WORKER):
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
        """Take an earlier revision of the release again and wait until it is ready."""
        async for each in lines_as_step(f"roll back {self.release.name}", self.helm.rollback(revision)):
            yield each
        async for each in self.wait():
            yield each

    async def test(self) -> AsyncIterator[Progress]:
        """Run the chart's own tests: a record from the api to the dashboard; a failure tells the end of its log."""

        async def work() -> AsyncIterator[str]:
            try:
                async for line in self.helm.test():
                    yield line
            except ProgramError as error:
                selector = f"{self.release.selector},app.kubernetes.io/component=test"
                why = await explain(self.release.cluster, self.release.namespace, selector)
                raise ControlError(f"the release's test failed:\n{why}\n{error}") from error

        async for each in lines_as_step(f"test {self.release.name}", work()):
            yield each

    async def uninstall(self, *, data: bool) -> AsyncIterator[Progress]:
        """Remove the release; with ``data`` its volume claims, too."""
        async for each in lines_as_step(f"remove {self.release.name}", self.helm.uninstall()):
            yield each
        async for each in self._gone(None, "pods gone"):
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
        # What the chart keeps for the volumes' sake goes with them.
        for each in await self.release.cluster.list(self.release.path("v1/secrets"), self.release.selector):
            if (each["metadata"].get("annotations") or {}).get("helm.sh/resource-policy") == "keep":
                yield Progress(step, Step.OUTPUT, each["metadata"]["name"])
                await self.release.cluster.delete(self.release.path("v1/secrets", each["metadata"]["name"]))
        yield Progress(step, Step.DONE, seconds=time.monotonic() - began)

    async def stop(self) -> AsyncIterator[Progress]:
        """Scale everything to zero, workers first; the volumes stay, and so does the number of each for the start."""
        if await scaling.find_scaled_object(self.release) is not None:
            await scaling.pin(self.release, 0)
        for name in (WORKER, "page", "dashboard", "api", "nats", "postgres"):
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
            # The controller does not count pods that are still finishing; what they need has to stay until then.
            async for each in self._gone(name, f"{name} gone"):
                yield each

    async def _gone(self, component: str | None, step: str) -> AsyncIterator[Progress]:
        """Wait until no pod of a component (of all) is left, not even one that is finishing."""
        began, left = time.monotonic(), -1
        while pods := await self.release.pods(component):
            if left < 0:
                yield Progress(step, Step.STARTED)
            if len(pods) != left:
                left = len(pods)
                yield Progress(step, Step.OUTPUT, f"{left} pods are finishing")
            if time.monotonic() - began > READY:
                names = ", ".join(str(each["metadata"]["name"]) for each in pods)
                text = f"pods of {self.release.where} do not end within {READY:g} s: {names}"
                yield Progress(step, Step.FAILED, text, time.monotonic() - began)
                raise ControlError(text)
            await asyncio.sleep(_POLL)
        yield Progress(step, Step.DONE, seconds=time.monotonic() - began)

    async def _wake(self) -> AsyncIterator[Progress]:
        """Take back a stop: the numbers of before, and the autoscaling."""
        woken = False
        for name in PARTS:
            try:
                kind, workload = await self.release.workload(name)
            except NotInstalled:
                continue
            before = (workload["metadata"].get("annotations") or {}).get(_STOPPED)
            if before is None:
                continue
            body: Object = {"metadata": {"annotations": {_STOPPED: None}}}
            if workload["spec"].get("replicas", 1) == 0:
                body["spec"] = {"replicas": int(before)}
            await self.release.cluster.patch(self.release.path(kind, workload["metadata"]["name"]), body)
            woken = True
            yield Progress("start what was stopped", Step.OUTPUT, f"{name}: {before}")
        if woken and await scaling.find_scaled_object(self.release) is not None:
            await scaling.pin(self.release, None)
        if woken:
            yield Progress("start what was stopped", Step.DONE)

    async def _require_keda(self) -> None:
        if await self.release.cluster.find(_KEDA) is None:
            raise ControlError(
                f"{self.release.cluster.title} has no KEDA: install it there, or choose the value keda.enabled=false"
            )

    async def _wait_for_setup(self) -> AsyncIterator[Progress]:
        """Wait for the newest setup job; a failed one tells the end of its log."""
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
                text = f"the setup job {'failed' if failed else f'is not done after {READY:g} s'}:\n{why}"
                yield Progress(step, Step.FAILED, text, taken)
                raise ControlError(text)
            found = first_problem(await self.release.cluster.list(self.release.path("v1/pods"), selector))
            if found and found != problem:
                problem = found
                yield Progress(step, Step.OUTPUT, found)
            await asyncio.sleep(_POLL)
