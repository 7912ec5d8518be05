"""Rollouts and failures of pods under load: no accepted message is lost, and every request gets a response."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import httpx
import pytest

from e2e.conftest import ROOT, eventually, finish, kill, life, ready
from e2e.traffic import completed, flowing, region
from nomnom.envelope import Status
from nomnom_control.environments import WORKER, Health, Step
from nomnom_control.environments.cluster.manifests import apply, read_manifest
from nomnom_control.environments.cluster.reasons import explain, pod_ready
from nomnom_control.environments.kind.environment import KindEnvironment
from nomnom_control.errors import ControlError
from nomnom_control.programs import ProgramError, run_text
from nomnom_control.session.messages import UnknownMessage
from nomnom_control.session.pipeline import Pipeline


async def test_rollouts_under_load_lose_no_message_or_request(
    lab: KindEnvironment, pipeline: Pipeline, outside: httpx.AsyncClient
) -> None:
    async with flowing(outside) as traffic:
        await asyncio.sleep(1)
        await finish(lab.restart("api"))
        await finish(lab.restart(WORKER))
        await asyncio.sleep(1)
    assert traffic.problems == []
    assert len(traffic.accepted) > 50
    await completed(pipeline, traffic)


async def test_settings_create_a_revision_that_can_be_rolled_back(lab: KindEnvironment) -> None:
    await finish(lab.configure("api", {"LOG_LEVEL": "debug", "NOMNOM_API_DRAIN": "3"}, "debug logging"))
    revisions = await lab.history("api")
    assert revisions[0].current
    assert revisions[0].cause == "debug logging"
    assert revisions[0].variables["LOG_LEVEL"] == "debug"
    assert revisions[1].variables["LOG_LEVEL"] == "info"
    await finish(lab.rollback("api"))
    after = await lab.history("api")
    assert after[0].variables == revisions[1].variables
    assert after[0].cause == f"rollback to revision {revisions[1].number}"
    assert after[0].number > revisions[0].number


async def test_release_rollback(lab: KindEnvironment) -> None:
    before = (await lab.scaling()).policy
    await finish(lab.installation.install((), [f"keda.maxReplicas={before.maximum + 1}"]))
    assert (await lab.scaling()).policy.maximum == before.maximum + 1
    await finish(lab.rollback("release"))
    assert (await lab.scaling()).policy.maximum == before.maximum
    assert (await lab.history("release"))[0].current


async def test_chart_tests_pass(lab: KindEnvironment) -> None:
    events = await finish(lab.installation.test())
    assert any("Succeeded" in each.text for each in events), events


async def test_scaling_policy_is_kept_by_an_upgrade(lab: KindEnvironment) -> None:
    before = (await lab.scaling()).policy
    await lab.set_scaling_policy(replace(before, maximum=before.maximum + 2, threshold=50))
    await finish(lab.installation.install())
    now = (await lab.scaling()).policy
    assert (now.maximum, now.threshold) == (before.maximum + 2, 50)
    await lab.set_scaling_policy(before)


@pytest.mark.parametrize("component", ["nats", WORKER, "api"])
async def test_killed_pod_loses_no_message(
    lab: KindEnvironment, pipeline: Pipeline, outside: httpx.AsyncClient, component: str
) -> None:
    async with flowing(outside) as traffic:

        async def available() -> bool:
            return bool((await ready(lab, component))[0])

        await eventually(available, 60, f"a {component}")
        killed = next(each for each in await lab.release.pods(component) if pod_ready(each))
        await kill(lab, killed)

        async def replaced() -> bool:
            pods = await lab.release.pods(component)
            return life(killed) not in map(life, pods) and any(map(pod_ready, pods))

        await eventually(replaced, 120, f"another {component}")
        before = len(traffic.accepted)

        async def continues() -> bool:
            return len(traffic.accepted) > before + 20

        await eventually(continues, 60, f"records are accepted after {component} was killed: {traffic.problems[-3:]}")
    await completed(pipeline, traffic)


async def test_drained_node_loses_no_message(
    lab: KindEnvironment, pipeline: Pipeline, outside: httpx.AsyncClient
) -> None:
    pod = (await lab.release.pods("api"))[0]
    node = pod["spec"]["nodeName"]
    try:
        async with flowing(outside) as traffic:
            await lab.cluster.patch(f"/api/v1/nodes/{node}", {"spec": {"unschedulable": True}})
            # Volumes of the lab are local to their node: stateful pods cannot move.
            moving = [
                each
                for name in ("api", WORKER, "dashboard", "page")
                for each in await lab.release.pods(name)
                if each["spec"].get("nodeName") == node
            ]
            for each in moving:
                name = each["metadata"]["name"]
                eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
                await lab.cluster.create(lab.release.path("v1/pods", f"{name}/eviction"), eviction)

            async def moved() -> bool:
                pods = [each for name in ("api", "dashboard") for each in await lab.release.pods(name)]
                found = [each for each in await lab.components() if each.name in ("api", "dashboard")]
                return all(each["spec"].get("nodeName") != node for each in pods) and all(
                    each.health is Health.HEALTHY for each in found
                )

            await eventually(moved, 120, "the pods on other nodes")
        assert len(traffic.accepted) > 20
        await completed(pipeline, traffic)
    finally:
        await lab.cluster.patch(f"/api/v1/nodes/{node}", {"spec": {"unschedulable": False}})


async def test_port_forwards_reconnect_to_new_pods(lab: KindEnvironment) -> None:
    async with await Pipeline.of(lab) as opened:
        before = (await lab.endpoints()).api
        await opened.messages.post(region(1))
        await finish(lab.restart("api"))
        await opened.messages.post(region(2))
        assert (await lab.endpoints()).api == before


async def test_failures_have_a_reason(lab: KindEnvironment) -> None:
    given = lab.release.path("apps/v1/deployments", "nomnom-api")
    image = (await lab.release.deployment("api"))["spec"]["template"]["spec"]["containers"][0]["image"]

    def patch(name: str) -> dict[str, object]:
        return {"spec": {"template": {"spec": {"containers": [{"name": "api", "image": name}]}}}}

    await lab.cluster.patch(given, patch("localhost/no-such-image:1"), "strategic")
    try:

        async def explained() -> bool:
            text = await explain(lab.cluster, lab.release.namespace, lab.release.part("api"))
            return "no-such-image" in text and "Pull" in text

        await eventually(explained, 90, "why the pod does not start")
        assert (await ready(lab, "api"))[0] >= 1
    finally:
        await lab.cluster.patch(given, patch(image), "strategic")


async def test_two_releases_side_by_side_are_removed_completely(lab: KindEnvironment, pipeline: Pipeline) -> None:
    other = KindEnvironment(
        lab.cluster_name,
        lab.configuration,
        namespace="shop",
        kubeconfig=lab.cluster.kubeconfig,
        options={"values": "dev ecommerce", "set": "ingress.enabled=false"},
    )
    try:
        await finish(other.start())
        assert (await other.schema()).name == "ecommerce"
        async with await Pipeline.of(other) as shop:
            posted = await shop.messages.post("PR|e2e|Test|tools|1.00|1|1|true")
            seen = [each.status async for each in shop.messages.follow(posted.message_id, timeout=90)]
            assert seen[-1] == "completed"
        assert (await lab.schema()).name == "tpch"
        with pytest.raises(UnknownMessage):
            await pipeline.messages.state(posted.message_id)
    finally:
        await finish(other.installation.uninstall(data=True))
        await other.close()
    kinds = (
        "v1/pods", "v1/services", "v1/configmaps", "v1/secrets", "v1/persistentvolumeclaims", "apps/v1/deployments",
        "apps/v1/statefulsets", "batch/v1/jobs", "keda.sh/v1alpha1/scaledobjects",
        "autoscaling/v2/horizontalpodautoscalers", "networking.k8s.io/v1/networkpolicies",
        "policy/v1/poddisruptionbudgets",
    )  # fmt: skip
    left = [
        f"{kind} {each['metadata']['name']}"
        for kind in kinds
        for each in await lab.cluster.list(other.release.path(kind))
        if each["metadata"]["name"] != "kube-root-ca.crt"
    ]
    assert left == []


@pytest.mark.parametrize("values", ["", "dev", "prod", "tpch", "ecommerce"])
async def test_rendered_objects_are_valid(lab: KindEnvironment, values: str) -> None:
    chart = ROOT / "helm" / "nomnom"
    files = ["--values", str(chart / f"values-{values}.yaml")] if values else []
    strict = [lab.configuration.helm, "lint", "--strict", str(chart), *files]
    try:
        await run_text(strict)
    except ProgramError as error:
        pytest.fail(str(error))
    version = (await lab.cluster.get("/version"))["gitVersion"]
    command = [lab.configuration.helm, "template", "nomnom", str(chart), "--namespace", lab.release.namespace]
    command += ["--kube-version", version, *files]
    objects = read_manifest(await run_text(command), f"the chart with {values or 'no'} values")
    served = [each for each in objects if not str(each["apiVersion"]).startswith("monitoring.coreos.com")]
    assert len(served) > 10
    immutable = ("StatefulSet", "Job", "PersistentVolumeClaim")
    for each in served:
        # A separate name, so that immutable fields of the existing object do not matter.
        if each["kind"] in immutable or each["kind"] == "Deployment":
            each["metadata"]["name"] = f"dry-run-{each['metadata']['name']}"
    await apply(lab.cluster, served, dry_run=True)


async def test_change_that_would_lose_the_streams_is_rejected(lab: KindEnvironment, pipeline: Pipeline) -> None:
    before = await pipeline.overview()
    with pytest.raises(ControlError, match="dead letters would be lost"):
        await finish(lab.installation.install((), ["nats.replicas=3"]))
    assert (await ready(lab, "nats"))[0] == 1
    assert (await pipeline.overview()).dead_letters == before.dead_letters


async def test_interrupted_installation_is_resumed_and_kept_data_is_used(
    lab: KindEnvironment,
) -> None:
    other = KindEnvironment(
        lab.cluster_name,
        lab.configuration,
        namespace="half",
        kubeconfig=lab.cluster.kubeconfig,
        options={
            "values": "dev",
            "set": "ingress.enabled=false dashboard.enabled=false "
            "postgresql.storage.deleteOnUninstall=false nats.storage.deleteOnUninstall=false",
        },
    )
    try:
        steps = other.start()
        async for each in steps:
            if each.step == "postgres ready":
                break
        await steps.aclose()  # type: ignore[attr-defined]
        # The state that a killed helm leaves.
        names = [each["metadata"]["name"] for each in await lab.cluster.list(other.release.path("v1/secrets"))]
        record = next(each for each in names if each.startswith("sh.helm.release"))
        pending = {"metadata": {"labels": {"status": "pending-install"}}}
        await lab.cluster.patch(other.release.path("v1/secrets", record), pending)
        events = await finish(other.start())
        assert {"setup", "api ready"} <= {each.step for each in events if each.state is Step.DONE}
        async with await Pipeline.of(other) as half:
            posted = await half.messages.post(region(7))
            async for state in half.messages.follow(posted.message_id, timeout=120):
                seen = state.status
            assert seen is Status.COMPLETED
        await finish(other.installation.uninstall(data=False))
        await finish(other.start())
        async with await Pipeline.of(other) as half:
            assert (await half.messages.state(posted.message_id)).status is Status.COMPLETED
    finally:
        await finish(other.installation.uninstall(data=True))
        assert await lab.cluster.list(other.release.path("v1/secrets"), other.release.selector) == []

        async def empty() -> bool:
            return await lab.cluster.list(other.release.path("v1/persistentvolumeclaims")) == []

        await eventually(empty, 30, "no volume claim is left")
        await other.close()
