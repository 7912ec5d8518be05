"""Components of cluster environments that need no cluster: settings, names, reasons, manifests, programs."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nomnom.scaling import ScalingError, ScalingPolicy
from nomnom.settings import SettingsError
from nomnom_control.environments import Progress, Step, catalog
from nomnom_control.environments.cluster.configuration import (
    SavedEnvironment,
    read_configuration,
    save_environment,
    split_args,
    use_environment,
)
from nomnom_control.environments.cluster.environment import KubeEnvironment
from nomnom_control.environments.cluster.manifests import read_manifest
from nomnom_control.environments.cluster.names import spelled
from nomnom_control.environments.cluster.reasons import pod_problem, pod_ready, pod_replica
from nomnom_control.environments.cluster.release import Release
from nomnom_control.environments.cluster.source import ClusterEnvironments
from nomnom_control.environments.cluster.variables import read_streams, read_variables, shown_variables
from nomnom_control.environments.kind.addons import Addon, customize, read_addons
from nomnom_control.environments.kind.environment import KindEnvironment
from nomnom_control.environments.merging import merge
from nomnom_control.environments.variables import describe_settings
from nomnom_control.errors import ControlError
from nomnom_control.programs import ProgramError, run_lines, run_text

_ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Separate settings and a separate kubeconfig for each test."""
    kubeconfig = tmp_path / "config"
    names = ["kind-one", "prod", "arn:aws:eks:eu-west-1:1:cluster/big"]
    kubeconfig.write_text(yaml.safe_dump({"contexts": [{"name": each, "context": {}} for each in names]}))
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    path = tmp_path / "config folder" / "clusters.yaml"
    monkeypatch.setenv("NOMNOM_CLUSTERS", str(path))
    monkeypatch.delenv("NOMNOM_ENV", raising=False)
    return path


# Settings and names


def test_variables_override_the_file_and_the_file_overrides_defaults(own_settings: Path) -> None:
    assert read_configuration({}).node_image.startswith("kindest/node:")
    own_settings.parent.mkdir()
    own_settings.write_text("node_image: mirror/node:1\nhelm: /opt/helm\n")
    assert read_configuration({}).node_image == "mirror/node:1"
    assert read_configuration({"NOMNOM_NODE_IMAGE": "other:2"}).node_image == "other:2"
    assert read_configuration({"NOMNOM_NODE_IMAGE": "other:2"}).helm == "/opt/helm"


def test_misspelt_setting_is_rejected(own_settings: Path) -> None:
    own_settings.parent.mkdir()
    own_settings.write_text("nodeimage: x\n")
    with pytest.raises(ControlError, match="nodeimage"):
        read_configuration({})


def test_image_name_has_registry_and_tag() -> None:
    settings = read_configuration({"NOMNOM_IMAGE_REGISTRY": "mirror/nomnom/", "NOMNOM_IMAGE_TAG": "9"})
    assert settings.image("nomnom-ingestion-api") == "mirror/nomnom/nomnom-ingestion-api:9"


def test_chart_values_and_addons_are_found() -> None:
    settings = read_configuration({})
    assert (settings.chart_folder / "Chart.yaml").is_file()
    assert settings.values_file("dev").name == "values-dev.yaml"
    assert settings.kind_file.is_file()
    assert (settings.source_folder / "images" / "service.Dockerfile").is_file()
    with pytest.raises(ControlError, match="dev"):
        settings.values_file("nowhere")


@given(st.lists(st.text()))
def test_quoted_arguments_are_split_back(given: list[str]) -> None:
    assert split_args(shlex.join(given)) == given


def test_values_are_split_like_in_a_shell(tmp_path: Path) -> None:
    assert split_args(r"ingress.annotations.a\.b/c=d global.note='two words'") == [
        r"ingress.annotations.a\.b/c=d",
        "global.note=two words",
    ]
    with pytest.raises(ControlError, match="unclosed quote"):
        split_args("global.note='two")
    file = tmp_path / "of the shop.yaml"
    file.write_text("{}")
    here = KindEnvironment("any", read_configuration(), options={"values": shlex.quote(str(file)), "set": "a.b='x y'"})
    assert here.chosen_values() == ([file], ["a.b=x y"])
    assert here.command("start") == f"nomnom kind create any --values '{file}' --set 'a.b=x y'"


def test_saved_environments() -> None:
    save_environment("shop", SavedEnvironment(context="prod", namespace="shop"))
    found = ClusterEnvironments().find("shop")
    assert found is not None
    assert (found.cluster.context, found.release.namespace) == ("prod", "shop")
    use_environment("shop")
    assert catalog.default_name() == "shop"
    assert catalog.open_environment("local").kind == "local"
    save_environment("shop", None)
    assert catalog.default_name() == "local"
    assert ClusterEnvironments().find("shop") is None


def test_names_contain_cluster_namespace_and_release() -> None:
    assert spelled("kind:one") == SavedEnvironment(kind="one")
    assert spelled("kube:prod/shop/second") == SavedEnvironment(context="prod", namespace="shop", release="second")
    cloud = "arn:aws:eks:eu-west-1:1:cluster/big"
    assert spelled(f"kube:{cloud}") == SavedEnvironment(context=cloud)
    assert spelled(f"kube:{cloud}/shop") == SavedEnvironment(context=cloud, namespace="shop")
    with pytest.raises(ControlError, match="NAMESPACE"):
        spelled("kind:one/a/b/c")


def test_only_kind_clusters_and_saved_environments_are_listed() -> None:
    clusters = ClusterEnvironments()
    assert list(clusters.names()) == ["kind:one", "kube:prod", "kube:arn:aws:eks:eu-west-1:1:cluster/big"]
    before = clusters.listed()
    assert [each.name for each in before] == ["kind:one"]
    assert isinstance(before[0], KindEnvironment)
    # It holds connections, so it must stay the same object.
    assert clusters.listed()[0] is before[0]
    save_environment("shop", SavedEnvironment(context="prod"))
    assert [each.name for each in clusters.listed()] == ["shop", "kind:one"]


# Reasons


def _pod(**status: object) -> dict[str, object]:
    return {"metadata": {"name": "pod"}, "status": {"phase": "Pending", **status}}


def _container(**state: object) -> dict[str, object]:
    return {"name": "c", "ready": False, "restartCount": 0, "state": {}, **state}


def test_pod_problem_image_pull_failure() -> None:
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "x:1"'}}
    assert pod_problem(_pod(containerStatuses=[_container(state=waiting)])) == (
        'ImagePullBackOff: Back-off pulling image "x:1"'
    )


def test_pod_problem_crash() -> None:
    ended = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
    crash = _container(restartCount=3, lastState=ended, state={"waiting": {"reason": "CrashLoopBackOff"}})
    assert pod_problem(_pod(containerStatuses=[crash])) == "CrashLoopBackOff (OOMKilled, exit code 137)"


def test_pod_problem_unschedulable() -> None:
    condition = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}
    assert pod_problem(_pod(conditions=[condition])) == "not scheduled: 0/3 nodes are available"


def test_starting_pod_has_no_problem() -> None:
    starting = _container(state={"waiting": {"reason": "ContainerCreating"}})
    assert pod_problem(_pod(containerStatuses=[starting])) == ""


def test_terminating_pod_is_not_ready() -> None:
    pod = _pod(phase="Running", startTime="2026-01-01T00:00:00Z", conditions=[{"type": "Ready", "status": "True"}])
    assert pod_ready(pod)
    assert pod_replica(pod).started_at == datetime(2026, 1, 1, tzinfo=UTC)
    pod["metadata"] = {"name": "pod", "deletionTimestamp": "2026-01-01T00:00:00Z"}
    assert not pod_ready(pod)
    assert pod_replica(pod).state == "terminating"


# Manifests and add-ons


def test_manifest_is_split_into_objects() -> None:
    text = """
apiVersion: v1
kind: Namespace
metadata: {name: a}
---
---
apiVersion: v1
kind: List
items:
  - {apiVersion: v1, kind: ConfigMap, metadata: {name: b}, data: {operator: =}}
"""
    objects = read_manifest(text, "here")
    assert [each["kind"] for each in objects] == ["Namespace", "ConfigMap"]
    assert objects[1]["data"] == {"operator": "="}


@pytest.mark.parametrize("text", ["a: [", "just a text", "{kind: Pod}"])
def test_invalid_manifest_is_rejected(text: str) -> None:
    with pytest.raises(ControlError, match="here is not a valid manifest"):
        read_manifest(text, "here")


def test_addons_are_pinned_and_public() -> None:
    found = {each.name: each for each in read_addons(_ROOT / "kind" / "addons.yaml")}
    assert set(found) == {"keda", "metrics-server", "ingress"}
    for each in found.values():
        assert each.version in each.manifest
        assert each.manifest.startswith("https://")


def test_addon_is_adapted_to_the_cluster() -> None:
    pod = {"nodeSelector": {"kubernetes.io/os": "linux"}, "containers": [{"name": "it", "args": ["--one"]}]}
    objects = [{"kind": "Deployment", "metadata": {"name": "it"}, "spec": {"template": {"spec": pod}}}]
    customize(objects, Addon("any", "it.yaml", arguments={"it": ["--two"]}, nodes={"it": {"ingress-ready": "true"}}))
    assert pod["containers"][0]["args"] == ["--one", "--two"]
    assert pod["nodeSelector"] == {"kubernetes.io/os": "linux", "ingress-ready": "true"}
    ingress = next(each for each in read_addons(_ROOT / "kind" / "addons.yaml") if each.name == "ingress")
    labels = yaml.safe_load((_ROOT / "kind" / "cluster.yaml").read_text())["nodes"][0]["labels"]
    assert all(required.items() <= labels.items() for required in ingress.nodes.values())


def test_folder_of_manifests_replaces_the_addons(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="no manifest"):
        read_addons(tmp_path)
    (tmp_path / "keda.yaml").write_text("")
    assert [each.name for each in read_addons(tmp_path)] == ["keda"]


# Programs and concurrent operations


async def test_program_output_is_yielded_and_part_of_the_error() -> None:
    command = [sys.executable, "-c", "import sys; print('one'); print('two', file=sys.stderr); sys.exit(3)"]
    lines: list[str] = []

    async def run() -> None:
        async for each in run_lines(command, limit=20):
            lines.append(each)  # noqa: PERF401 (items before the error are checked)

    with pytest.raises(ProgramError, match=r"(?s)failed with exit code 3:.*two"):
        await run()
    assert sorted(lines) == ["one", "two"]


async def test_missing_program_is_reported() -> None:
    with pytest.raises(ProgramError, match="NOMNOM_NO-SUCH-PROGRAM"):
        await run_text(["no-such-program"])


async def test_program_time_limit() -> None:
    with pytest.raises(ProgramError, match=r"timed out after 0\.2s"):
        await run_text([sys.executable, "-c", "import time; time.sleep(60)"], limit=0.2)


async def test_closing_the_output_terminates_the_program(tmp_path: Path) -> None:
    written = tmp_path / "written"
    program = (
        "import pathlib, signal, sys, time\n"
        f"def end(*_): pathlib.Path({str(written)!r}).write_text('cleaned up'); sys.exit()\n"
        "signal.signal(signal.SIGTERM, end)\nprint('started', flush=True)\ntime.sleep(60)"
    )
    lines = run_lines([sys.executable, "-c", program], limit=30)
    assert await anext(lines) == "started"
    await lines.aclose()  # type: ignore[attr-defined]
    assert written.read_text() == "cleaned up"


async def test_concurrent_operations_are_cancelled_by_the_first_error() -> None:
    cancelled = asyncio.Event()

    async def waits() -> AsyncIterator[Progress]:
        try:
            yield Progress("waits", Step.STARTED)
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    async def fails() -> AsyncIterator[Progress]:
        yield Progress("fails", Step.STARTED)
        raise ControlError("expected failure")

    seen: list[str] = []

    async def run() -> None:
        async for each in merge(waits(), fails()):
            seen.append(each.step)  # noqa: PERF401 (items before the error are checked)

    with pytest.raises(ControlError, match="expected failure"):
        await run()
    assert sorted(seen) == ["fails", "waits"]
    assert cancelled.is_set()


# Templates and actions


def test_templates_for_kind_clusters_and_contexts() -> None:
    found = {each.name: each for each in ClusterEnvironments().templates()}
    assert set(found) == {"kind", "kube"}
    made = found["kind"].make({"cluster": "one", "namespace": "nomnom", "values": "dev tpch", "set": ""})
    assert made.location == "kind-one, namespace nomnom"
    assert made.command("start") == "nomnom kind create one --values dev --values tpch"
    assert made.command("destroy") == "nomnom kind delete one --yes"
    values = {"name": "shop", "context": "prod", "namespace": "s", "release": "r", "values": "prod", "set": "a.b=1"}
    made = found["kube"].make(values)
    assert made.location == "prod, namespace s, release r"
    assert made.command("start") == "nomnom install --yes --values prod --set a.b=1 --env shop"
    assert ClusterEnvironments().find("shop") is None
    found["kube"].keep(values)
    again = ClusterEnvironments().find("shop")
    assert again is not None
    assert again.location == made.location


def test_additional_release_on_a_kind_cluster_does_not_delete_the_cluster() -> None:
    (kind, _) = ClusterEnvironments().templates()
    second = kind.make({"cluster": "one", "namespace": "shop", "values": "dev", "set": ""})
    assert second.command("destroy") == "nomnom uninstall --yes --env kind:one/shop"
    assert "delete the kind cluster" not in " ".join(second.plan("destroy"))
    assert "the kind cluster" not in " ".join(second.losses())


@pytest.mark.parametrize(
    ("name", "option", "text", "problem"),
    [
        ("kind", "cluster", "Big One", "expected lowercase letters"),
        ("kube", "context", "nowhere", "expected a context of the kubeconfig: kind-one, prod"),
        ("kube", "name", "local", "this name is already in use"),
        ("kube", "namespace", "-x", "expected lowercase letters"),
        ("kind", "values", "nowhere", "values file nowhere not found"),
        ("kind", "set", "alone", "expected name=value, found alone"),
    ],
)
def test_invalid_options_are_rejected(name: str, option: str, text: str, problem: str) -> None:
    template = next(each for each in ClusterEnvironments().templates() if each.name == name)
    (found,) = (each for each in template.options if each.name == option)
    assert problem in (found.check(text) or "")
    assert found.check(found.value) is None or not found.value


def test_release_actions_have_commands() -> None:
    here = ClusterEnvironments().find("kube:prod")
    assert here is not None
    found = {each.name: each for each in here.actions()}
    assert set(found) == {"upgrade", "rollback", "uninstall"}
    assert found["upgrade"].command({"values": "dev", "set": ""}) == "nomnom upgrade --yes --values dev --env kube:prod"
    assert found["rollback"].command({"revision": "3"}) == "nomnom rollback release 3 --env kube:prod"
    assert found["rollback"].options[0].check("0") == "expected a number of at least 1, found 0"
    assert found["uninstall"].losses == ("the pipeline on prod, namespace nomnom; its volume claims are kept",)
    kind = ClusterEnvironments().find("kind:one")
    assert kind is not None
    assert [each.name for each in kind.actions()][-1] == "load"


def test_additional_pipeline_does_not_hide_the_first() -> None:
    save_environment("shop", SavedEnvironment(context="kind-one", namespace="shop", release="shop"))
    assert "kind:one" in ClusterEnvironments().names()


# Variables of a release's components


def deployment(*env: dict[str, Any]) -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"containers": [{"name": "api", "env": list(env)}]}}}}


PASSWORD = {"name": "NATS_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "nats", "key": "api-password"}}}
TOKENS = {"name": "NOMNOM_API_TOKENS", "valueFrom": {"secretKeyRef": {"name": "tokens", "key": "tokens"}}}
WORKLOAD = deployment(
    PASSWORD,
    {"name": "NATS_URL", "value": "nats://api:$(NATS_PASSWORD)@nats:4222"},
    {"name": "NATS_STREAM", "value": "ORDERS"},
    {"name": "NATS_CONSUMER", "value": "clerks"},
    {"name": "LOG_LEVEL", "value": "debug"},
    {"name": "SOMEONES_KEY", "value": "their-secret"},
    TOKENS,
)


def test_variables_of_a_release_and_its_secrets() -> None:
    variables = read_variables(WORKLOAD)
    listed = {each.name: each for each in describe_settings("api", variables)}
    assert (listed["LOG_LEVEL"].value, listed["LOG_LEVEL"].changed, listed["LOG_LEVEL"].managed) == ("debug", True, "")
    assert (listed["NOMNOM_API_GRACE"].value, listed["NOMNOM_API_GRACE"].changed) == ("20", False)
    assert listed["NATS_URL"].value == listed["NOMNOM_API_TOKENS"].value == "***"
    assert "Secret" in listed["NOMNOM_API_TOKENS"].managed
    assert "nats.stream" in listed["NATS_STREAM"].managed
    assert listed["NATS_STREAM"].value == "ORDERS"
    assert "SOMEONES_KEY" not in listed
    shown = shown_variables("api", WORKLOAD)
    assert "their-secret" not in str(shown)
    assert shown["LOG_LEVEL"] == "debug"
    streams = read_streams(WORKLOAD)
    assert (streams.stream, streams.dead_stream, streams.consumer) == ("ORDERS", "ORDERSDLQ", "clerks")


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("LOG_LEVEL", "loud", "expected one of"),
        ("LOG_LEVLE", "info", "did you mean LOG_LEVEL"),
        ("NATS_URL", "nats://other:4222", "comes from a Secret"),
        ("NATS_STREAM", "OTHER", "the chart's value nats.stream"),
        ("NOMNOM_API_MAX_BODY", "0", "at least 1"),
    ],
)
async def test_invalid_change_is_rejected_before_a_rollout(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, problem: str
) -> None:
    here = KubeEnvironment("any", None, read_configuration({}))

    async def found(_: Release, __: str) -> dict[str, Any]:
        return WORKLOAD

    def rolled_out(*_: object) -> AsyncIterator[Progress]:
        raise AssertionError("it was rolled out")

    monkeypatch.setattr(Release, "deployment", found)
    monkeypatch.setattr(here, "roll_out", rolled_out)
    with pytest.raises(SettingsError, match=problem):
        async for _ in here.configure("api", {name: value}, "a test"):
            pass
    with pytest.raises(ControlError, match="nats has no settings"):
        async for _ in here.configure("nats", {name: value}, "a test"):
            pass


async def test_number_of_workers_on_a_cluster_is_limited() -> None:
    here = KubeEnvironment("any", None, read_configuration({}))
    with pytest.raises(ScalingError, match="maximum <= 1,000"):
        await here.set_scaling_policy(ScalingPolicy(maximum=1001))
    with pytest.raises(ScalingError, match="0 to 1,000 workers"):
        await here.scale("worker", 1001)
