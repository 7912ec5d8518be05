"""A newly created cluster: all components are installed, ready, reachable and scaled by KEDA or an HPA."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import asyncpg
import httpx

from conftest import ORDER
from e2e.conftest import Start, eventually, finish, ready
from e2e.traffic import Traffic, completed, post, region
from nomnom.envelope import Status
from nomnom_control.environments import WORKER, Health, Step
from nomnom_control.environments.kind.environment import KindEnvironment
from nomnom_control.session.pipeline import Pipeline

_HPAS = "autoscaling/v2/horizontalpodautoscalers"


@asynccontextmanager
async def locked(lab: KindEnvironment, table: str) -> AsyncIterator[None]:
    """Lock a table against writes."""
    password = (await lab.release.secret(f"{lab.release.name}-database"))["owner-password"]
    address = urlsplit((await lab.endpoints()).database)
    connection = await asyncpg.connect(
        f"postgresql://nomnom:{password}@{address.hostname}:{address.port}{address.path}"
    )
    try:
        async with connection.transaction():
            await connection.execute(f"LOCK TABLE {table} IN EXCLUSIVE MODE")
            yield
    finally:
        await connection.close()


async def test_create_cluster_and_pipeline_in_time(lab: KindEnvironment, start: Start) -> None:
    done = {each.step for each in start.steps if each.state in (Step.DONE, Step.SKIPPED)}
    assert {f"cluster {lab.cluster_name}", "nodes ready", "add-on keda", "load images", "setup"} <= done
    if start.images_built:
        assert start.seconds < 150, [(each.step, each.seconds) for each in start.steps if each.seconds]


async def test_second_run_skips_finished_steps(lab: KindEnvironment) -> None:
    events = await finish(lab.prepare())
    assert {each.step for each in events if each.state is Step.SKIPPED} >= {
        f"cluster {lab.cluster_name}", "images", "load images", "add-on keda", "add-on metrics-server", "add-on ingress"
    }  # fmt: skip


async def test_components_are_healthy(lab: KindEnvironment) -> None:
    found = {each.name: each for each in await lab.components()}
    assert set(found) == {"api", "nats", WORKER, "postgres", "dashboard", "housekeeper", "page"}
    assert {each.health for name, each in found.items() if name != WORKER} == {Health.HEALTHY}


async def test_jetstream_uses_file_storage(pipeline: Pipeline) -> None:
    overview = await pipeline.overview()
    assert overview.stream is not None
    assert overview.stream.config["storage"] == "file"
    assert overview.dead is not None
    assert overview.consumer is not None


async def test_containers_have_passing_probes(lab: KindEnvironment) -> None:
    pods = [each for each in await lab.release.pods() if each["status"]["phase"] == "Running"]
    assert len(pods) >= 5
    for pod in pods:
        for container in pod["spec"]["containers"]:
            assert {"startupProbe", "livenessProbe", "readinessProbe"} <= set(container), pod["metadata"]["name"]


async def test_keda_scales_the_workers(lab: KindEnvironment) -> None:
    autoscalers = await lab.cluster.list(lab.release.path(_HPAS))
    worker = next(each for each in autoscalers if each["spec"]["scaleTargetRef"]["name"].endswith("-worker"))
    assert [each["kind"] for each in worker["metadata"]["ownerReferences"]] == ["ScaledObject"]
    managers = (await lab.release.deployment(WORKER))["metadata"]["managedFields"]
    helm = [each for each in managers if each["manager"] == "helm"]
    assert helm
    assert all("f:replicas" not in each["fieldsV1"].get("f:spec", {}) for each in helm)


async def test_upgrade_scales_api_and_dashboards(lab: KindEnvironment) -> None:
    def minima(number: int) -> list[str]:
        parts = ("ingestion.api", "dashboard.backend", "dashboard.frontend")
        return [f"{each}.autoscaling.minReplicas={number}" for each in parts]

    async def have(number: int) -> None:
        for name in ("api", "dashboard", "page"):

            async def scaled(component: str = name) -> bool:
                return await ready(lab, component) == (number, number)

            await eventually(scaled, 90, f"{number} of {name}")

    await finish(lab.installation.install((), minima(2)))
    await have(2)
    # Values are kept by the next upgrade that does not set them.
    await finish(lab.installation.install((), ["keda.cooldownPeriod=20"]))
    await have(2)
    assert (await lab.scaling()).policy.cooldown == 20
    await finish(lab.installation.install((), minima(1)))


async def test_ingress_routes_all_components(lab: KindEnvironment, outside: httpx.AsyncClient) -> None:
    page = await outside.get("/")
    assert "<!doctype html>" in page.text.lower()
    script = re.search(r'src="(/assets/[^"]+\.js)"', page.text)
    assert script
    assert (await outside.get(script[1])).status_code == 200
    assert (await outside.get("/api/stats")).status_code == 200
    assert (await outside.post("/api/ingest/message", content="R|0|AFRICA||")).status_code == 202
    assert (await outside.get("/api/ingest/status/none")).status_code in (400, 404, 422)


async def test_record_is_accepted_and_completed(lab: KindEnvironment, pipeline: Pipeline) -> None:
    async def no_worker() -> bool:
        return (await lab.scaling()).actual == 0

    async def processing() -> bool:
        return (await pipeline.messages.state(posted.message_id)).status is Status.PROCESSING

    await lab.scale(WORKER, 0)
    await eventually(no_worker, 120, "no worker while scaled to zero by hand")
    posted = await pipeline.messages.post(ORDER)
    assert (await pipeline.messages.state(posted.message_id)).status is Status.ACCEPTED
    async with locked(lab, "orders"):
        await lab.resume_autoscaling()
        await eventually(processing, 60, "a worker is processing it")
    seen = [each.status async for each in pipeline.messages.follow(posted.message_id, timeout=60)]
    assert seen[-1] is Status.COMPLETED


async def test_dead_letters_after_the_last_attempt(lab: KindEnvironment, pipeline: Pipeline) -> None:
    posted = await pipeline.messages.post(ORDER.replace("123.45", "12,50"))
    seen = [each async for each in pipeline.messages.follow(posted.message_id, timeout=120)]
    assert seen[-1].status is Status.DLQ
    dead_letters = await pipeline.dead_letters.find(posted.message_id)
    given = {each["name"]: each.get("value") for each in await _env(lab)}
    assert [each.attempts for each in dead_letters] == [int(given["MAX_DELIVER"] or 0)]


async def _env(lab: KindEnvironment) -> list[dict[str, str]]:
    return (await lab.release.deployment(WORKER))["spec"]["template"]["spec"]["containers"][0]["env"]


async def test_logs_and_metrics_through_the_api_server(lab: KindEnvironment) -> None:
    lines = [each async for each in lab.logs(["api"], tail=20)]
    assert any(each.fields for each in lines)
    assert {each.component for each in lines} == {"api"}
    texts = await lab.metrics("api")
    assert texts
    assert all("# TYPE" in each for each in texts.values())


async def test_keda_scales_up_with_the_backlog_and_back_to_zero(
    lab: KindEnvironment, pipeline: Pipeline, outside: httpx.AsyncClient
) -> None:
    async def scaled_to(number: int) -> bool:
        now = await lab.scaling()
        return now.actual == number == now.desired

    await lab.scale(WORKER, 0)
    assert (await lab.scaling()).paused
    await eventually(lambda: scaled_to(0), 120, "no worker while scaled to zero by hand")
    traffic = Traffic()
    for first in range(0, 900, 30):
        await asyncio.gather(*(post(outside, region(first + each), traffic) for each in range(30)))
    assert (await lab.scaling()).lag == 900

    async def several() -> bool:
        return (await lab.scaling()).actual >= 2

    # One worker would process them before the next poll: the locked table delays them.
    async with locked(lab, "region"):
        await lab.resume_autoscaling()
        await eventually(several, 120, "more than one worker for 900 messages")
    await completed(pipeline, traffic)
    await eventually(lambda: scaled_to(0), 180, "no worker when nothing is pending")
    now = await lab.scaling()
    assert now.lag == 0
    assert now.decision
