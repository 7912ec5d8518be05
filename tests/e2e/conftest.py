"""A real cluster for all tests of a session, created by nomnom itself and deleted at the end.

It requires a lab: LAB_NODE_IMAGE and LAB_ADDONS, or a file with them in LAB_HOME, and a running Docker. Without a lab
the tests are skipped; with NOMNOM_LAB=1 that is an error. NOMNOM_E2E_CLUSTER names a cluster to use and keep, which
makes later runs faster.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import yaml

from nomnom_control.environments import Environment, Progress, Step
from nomnom_control.environments.cluster.configuration import ClusterConfiguration
from nomnom_control.environments.cluster.images import missing_images
from nomnom_control.environments.kind.environment import KindEnvironment
from nomnom_control.programs import run_text
from nomnom_control.session.pipeline import Pipeline

ROOT = Path(__file__).parents[2]


def _lab() -> str | None:
    """Read the lab's variables; returns why there is no lab, or None."""
    file = Path(os.environ.get("LAB_HOME", "/var/cache/nomnom-lab")) / "env"
    if "LAB_NODE_IMAGE" not in os.environ and file.is_file():
        for line in shlex.split(file.read_text()):
            name, equals, value = line.partition("=")
            if equals:
                os.environ[name] = os.path.expandvars(value)
    if not os.environ.get("LAB_NODE_IMAGE"):
        return "no lab: LAB_NODE_IMAGE is not set"
    missing = [each for each in ("kind", "helm", "docker") if shutil.which(each) is None]
    if missing:
        return f"no lab: {', '.join(missing)} not on PATH"
    answers = subprocess.run(["docker", "info"], check=False, capture_output=True, timeout=30).returncode == 0
    return None if answers else "no lab: Docker is unreachable"


# Before the tests are imported: they check for helm.
REASON = _lab()
if REASON and os.environ.get("NOMNOM_LAB") == "1":
    raise pytest.UsageError(f"NOMNOM_LAB is 1: {REASON}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that use the cluster need the lab; the first one waits for the cluster to be created."""
    if REASON is None and "PYTEST_XDIST_WORKER" in os.environ:
        raise pytest.UsageError("tests/e2e shares one cluster: run it without -n")
    for each in (each for each in items if "lab" in getattr(each, "fixturenames", ())):
        each.add_marker(pytest.mark.lab)
        if each.get_closest_marker("timeout") is None:
            each.add_marker(pytest.mark.timeout(600))
        if REASON:
            each.add_marker(pytest.mark.skip(reason=REASON))


@dataclass
class Start:
    """The events and the duration of the start."""

    steps: list[Progress] = field(default_factory=list)
    seconds: float = 0.0
    images_built: bool = True


@pytest.fixture(scope="session")
def ingress_port() -> int:
    """The port of the ingress controller on the host."""
    return int(os.environ.get("NOMNOM_E2E_INGRESS", "0")) or free_port()


@pytest.fixture(scope="session")
def settings(ingress_port: int, tmp_path_factory: pytest.TempPathFactory) -> ClusterConfiguration:
    """The lab's node image and add-ons, and free host ports; everything else has its defaults."""
    config: Any = yaml.safe_load((ROOT / "kind" / "cluster.yaml").read_text())
    for node in config["nodes"]:
        for each in node.get("extraPortMappings", []):
            each["hostPort"] = ingress_port if each["containerPort"] == 80 else free_port()
    file = tmp_path_factory.mktemp("kind") / "cluster.yaml"
    file.write_text(yaml.safe_dump(config))
    listed = ["docker", "image", "ls", "nats", "--format", "{{.Tag}}"]
    tags = subprocess.run(listed, check=True, capture_output=True, text=True, timeout=30).stdout.split()
    wanted = yaml.safe_load((ROOT / "helm" / "nomnom" / "values.yaml").read_text())["nats"]["image"]["tag"]
    return ClusterConfiguration(
        node_image=os.environ["LAB_NODE_IMAGE"],
        addons=os.environ["LAB_ADDONS"],
        kind_config=str(file),
        values="" if wanted in tags else f"nats.image.tag={max(tags, key=len)}",
    )


@pytest.fixture(scope="session")
def start() -> Start:
    """The start of the cluster, filled by the fixture ``lab``."""
    return Start()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def lab(
    settings: ClusterConfiguration, start: Start, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[KindEnvironment]:
    """The cluster with a ready pipeline that uses values-dev."""
    kept = os.environ.get("NOMNOM_E2E_CLUSTER")
    name = kept or f"nomnom-e2e-{uuid.uuid4().hex[:6]}"
    kubeconfig = Path(os.environ["NOMNOM_E2E_KUBECONFIG"]) if kept else tmp_path_factory.mktemp("kube") / "config"
    namespace = os.environ.get("NOMNOM_E2E_NAMESPACE", "nomnom")
    here = KindEnvironment(name, settings, kubeconfig=kubeconfig, namespace=namespace)
    start.images_built = not await missing_images(settings)
    began = time.monotonic()
    try:
        start.steps = await finish(here.start())
        start.seconds = time.monotonic() - began
        yield here
    finally:
        if not kept:
            await finish(here.destroy())
        await here.close()


@pytest_asyncio.fixture(loop_scope="session")
async def pipeline(lab: KindEnvironment) -> AsyncIterator[Pipeline]:
    """A session through port-forwards; it only needs a kubeconfig."""
    async with await Pipeline.of(lab) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="session")
async def outside(lab: KindEnvironment, ingress_port: int) -> AsyncIterator[httpx.AsyncClient]:
    """A client that connects through the ingress."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{ingress_port}", timeout=20, trust_env=False) as client:

        async def routed() -> bool:
            try:
                return (await client.get("/healthz")).status_code == 200
            except httpx.TransportError:
                return False

        await eventually(routed, 60, "the ingress routes to the page")
        yield client


async def finish(steps: AsyncIterator[Progress]) -> list[Progress]:
    """Run an operation to its end; no step may fail."""
    events = [each async for each in steps]
    assert not [each for each in events if each.state is Step.FAILED], events
    return events


async def kill(here: KindEnvironment, pod: Mapping[str, Any]) -> None:
    """Send SIGKILL to a pod's process on its node, like the kernel's OOM killer.

    A pod that is deleted without a grace period is replaced while its process may still be running: two servers would
    use the same volume for a moment, which is not the failure to be tested.
    """
    container = pod["status"]["containerStatuses"][0]["containerID"].rpartition("/")[2]
    on_node = [here.configuration.docker, "exec", pod["spec"]["nodeName"]]
    await run_text([*on_node, "ctr", "--namespace", "k8s.io", "tasks", "kill", "--signal", "SIGKILL", container])


def life(pod: Mapping[str, Any]) -> tuple[str, int]:
    """Identifies a pod and the run of its container; it changes when the pod is replaced or the container restarted."""
    statuses = pod["status"].get("containerStatuses") or [{}]
    return pod["metadata"]["uid"], statuses[0].get("restartCount", 0)


def free_port() -> int:
    """A free TCP port on the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def eventually(check: Callable[[], Awaitable[bool]], seconds: float, what: str) -> None:
    """Wait until a check succeeds."""
    try:
        async with asyncio.timeout(seconds):
            while not await check():  # noqa: ASYNC110 (the cluster has no event to wait for)
                await asyncio.sleep(0.5)
    except TimeoutError:
        pytest.fail(f"timed out after {seconds:g}s: {what}")


async def ready(environment: Environment, component: str) -> tuple[int, int]:
    """The numbers of ready and desired replicas of a component."""
    found = next(each for each in await environment.components() if each.name == component)
    return found.ready, found.desired
