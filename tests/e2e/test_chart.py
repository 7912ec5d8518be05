"""The rendered chart: lint, labels, restricted pods, secrets, routes, values and network policies."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from nomnom_api.telemetry import Metrics as ApiMetrics
from nomnom_dashboard.telemetry import Metrics as DashboardMetrics
from nomnom_housekeeper.metrics import Metrics as HousekeeperMetrics
from nomnom_worker.metrics import Metrics as WorkerMetrics

HELM = shutil.which("helm")
CHART = Path(__file__).parents[2] / "helm" / "nomnom"
VALUES = ["values.yaml", *sorted(path.name for path in CHART.glob("values-*.yaml"))]
pytestmark = pytest.mark.skipif(HELM is None, reason="helm is not on PATH")
ELSEWHERE = "nats.external.servers={a:4222},nats.external.monitoringEndpoint=a:8222"


def helm(*arguments: str, fails: bool = False) -> str:
    done = subprocess.run([str(HELM), *arguments], check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stderr if fails else done.stdout


def render(*arguments: str, release: str = "nomnom", namespace: str = "nomnom") -> list[dict[str, Any]]:
    text = helm("template", release, str(CHART), "--namespace", namespace, "--kube-version", "1.34", *arguments)
    return [each for each in yaml.safe_load_all(text) if each]


def pods(manifests: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for each in manifests:
        name = f"{each['kind']}/{each['metadata']['name']}"
        if each["kind"] == "Pod":
            yield name, each
        elif "template" in each.get("spec", {}):
            yield name, each["spec"]["template"]


@pytest.mark.parametrize("values", VALUES)
def test_chart_lints(values: str) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART), "--values", str(CHART / values))


@pytest.mark.parametrize("values", VALUES)
def test_manifests_have_labels_and_namespace(values: str) -> None:
    for each in render("--values", str(CHART / values)):
        labels = each["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == "nomnom", each["metadata"]
        assert labels["app.kubernetes.io/part-of"] == "nomnom"
        assert each["metadata"]["namespace"] == "nomnom"


@pytest.mark.parametrize("values", VALUES)
def test_containers_are_restricted_and_have_limits(values: str) -> None:
    found = list(pods(render("--values", str(CHART / values))))
    assert len(found) >= 6
    for name, pod in found:
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] > 0, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["automountServiceAccountToken"] is False, name
        for container in spec["containers"]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True, name
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["capabilities"] == {"drop": ["ALL"]}, name
            assert "memory" in container["resources"]["limits"], name
            assert "cpu" in container["resources"]["requests"], name
            if name.partition("/")[0] in ("Deployment", "StatefulSet"):
                assert {"startupProbe", "livenessProbe", "readinessProbe"} <= container.keys(), name


def test_secret_values_are_only_in_secrets() -> None:
    manifests = render("--set", "ingestion.api.auth.tokens={shop:s3cret-token}")
    values = {
        value
        for each in manifests
        if each["kind"] == "Secret"
        for value in (each.get("data", {}) | each.get("stringData", {})).values()
    }
    assert len(values) == 14
    others = yaml.safe_dump_all([each for each in manifests if each["kind"] != "Secret"])
    assert not [value for value in values if value in others]


def test_registry_prefix_applies_to_all_images() -> None:
    found = list(pods(render("--set", "global.imageRegistry=registry.example.com/mirror/")))
    images = {container["image"] for _, pod in found for container in pod["spec"]["containers"]}
    assert len(images) == 7
    assert all(image.startswith("registry.example.com/mirror/") for image in images)
    assert not [image for image in images if image.endswith(":latest") or "//" in image]


def test_only_keda_sets_the_number_of_workers() -> None:
    def worker(manifests: list[dict[str, Any]]) -> dict[str, Any]:
        return next(
            e["spec"] for e in manifests if (e["kind"], e["metadata"]["name"]) == ("Deployment", "nomnom-worker")
        )

    manifests = render("--set", "keda.minReplicas=1")
    assert "replicas" not in worker(manifests)
    scaled = next(each["spec"] for each in manifests if each["kind"] == "ScaledObject")
    assert (scaled["minReplicaCount"], scaled["maxReplicaCount"]) == (1, 10)
    assert (scaled["pollingInterval"], scaled["cooldownPeriod"]) == (15, 300)
    trigger = scaled["triggers"][0]
    assert trigger["type"] == "nats-jetstream"
    assert trigger["metadata"]["lagThreshold"] == "100"
    assert trigger["metadata"]["account"] == "NOMNOM"
    without = render("--set", "keda.enabled=false", "--set", "ingestion.worker.replicas=3")
    assert worker(without)["replicas"] == 3
    assert not [each for each in without if each["kind"] == "ScaledObject"]


def test_releases_differ_only_by_schema() -> None:
    def without_checksums(name: str) -> dict[tuple[str, str], Any]:
        found: dict[tuple[str, str], Any] = {}
        for each in render("--values", str(CHART / f"values-{name}.yaml")):
            kind, key = each["kind"], each["metadata"]["name"]
            if kind in ("Secret", "Job"):
                continue
            for _, pod in pods([each]):
                pod["metadata"].get("annotations", {}).pop("checksum/schema", None)
            found[kind, key] = each
        return found

    tpch, shop = without_checksums("tpch"), without_checksums("ecommerce")
    assert tpch.keys() == shop.keys()
    assert {key for key in tpch if tpch[key] != shop[key]} == {("ConfigMap", "nomnom-schema"), ("Pod", "nomnom-test")}


def test_upgrade_without_changes_keeps_the_setup_job() -> None:
    def job(*arguments: str) -> str:
        return next(each["metadata"]["name"] for each in render(*arguments) if each["kind"] == "Job")

    assert job() == job("--set", "ingestion.worker.batchSize=100")
    assert job() != job("--set", "schema.name=ecommerce")
    assert job() != job("--set", "ingestion.api.image.tag=v9")
    assert job() != job("--set", "nats.streams.maxAge=3600")


def test_common_label_does_not_change_the_setup_job() -> None:
    def template(*arguments: str) -> Any:
        return next(each["spec"]["template"] for each in render(*arguments) if each["kind"] == "Job")

    assert template() == template("--set", "global.labels.team=shop")


def test_new_tokens_restart_the_api() -> None:
    def api(tokens: str) -> Any:
        manifests = render("--set", f"ingestion.api.auth.tokens={{{tokens}}}")
        return next(pod for name, pod in pods(manifests) if name == "Deployment/nomnom-api")

    assert api("shop:s3cret-one") == api("shop:s3cret-one")
    assert api("shop:s3cret-one") != api("shop:s3cret-two")


def test_passwords_are_kept_with_the_volumes() -> None:
    def annotations(*arguments: str) -> Any:
        name = ("Secret", "nomnom-database")
        found = (each for each in render(*arguments) if (each["kind"], each["metadata"]["name"]) == name)
        return next(found)["metadata"].get("annotations")

    assert annotations() == {"helm.sh/resource-policy": "keep"}
    assert annotations("--set", "postgresql.storage.deleteOnUninstall=true") is None


def test_database_certificate_is_verified_with_custom_ca() -> None:
    manifests = render(
        "--set", "postgresql.enabled=false,database.host=db.example,database.existingSecret=roles",
        "--set", "database.sslMode=verify-full,database.caSecret=authority",
    )  # fmt: skip
    found = {name: pod["spec"] for name, pod in pods(manifests) if "DATABASE_URL" in yaml.safe_dump(pod)}
    assert len(found) == 5
    for name, spec in found.items():
        (url,) = (each["value"] for each in spec["containers"][0]["env"] if each["name"] == "DATABASE_URL")
        assert url.endswith("/nomnom?sslmode=verify-full&sslrootcert=/etc/nomnom-database/ca.crt"), name
        mounts = {each["name"]: each["mountPath"] for each in spec["containers"][0]["volumeMounts"]}
        assert mounts["database-ca"] == "/etc/nomnom-database", name
        volume = next(each for each in spec["volumes"] if each["name"] == "database-ca")
        assert volume["secret"] == {"secretName": "authority", "items": [{"key": "ca.crt", "path": "ca.crt"}]}, name


def test_external_servers_use_their_ports() -> None:
    manifests = render(
        "--set", "nats.enabled=false,nats.auth.existingSecret=users,nats.external.servers={a:4333,b:4333,c:4444}",
        "--set", "nats.external.monitoringEndpoint=a:8222",
    )  # fmt: skip
    (policy,) = (each["spec"] for each in manifests if each["metadata"]["name"] == "nomnom-servers")
    assert [port["port"] for port in policy["egress"][0]["ports"]] == [4333, 4444]


def test_dashboard_with_secret_requires_login() -> None:
    def required(*arguments: str) -> bool:
        backend = next(pod for name, pod in pods(render(*arguments)) if name == "Deployment/nomnom-dashboard-backend")
        return {"name": "NOMNOM_DASHBOARD_AUTH_REQUIRED", "value": "true"} in backend["spec"]["containers"][0]["env"]

    assert required("--set", "dashboard.auth.existingSecret=viewers")
    assert not required()


def test_ingress_routes_are_ordered_and_not_rewritten() -> None:
    manifests = render("--set", "ingress.enabled=true,httpRoute.enabled=true,httpRoute.parentRefs[0].name=gate")
    (ingress,) = (each for each in manifests if each["kind"] == "Ingress")
    (rule,) = ingress["spec"]["rules"]
    routes = [(path["path"], path["backend"]["service"]["name"]) for path in rule["http"]["paths"]]
    expected = [
        ("/api/ingest", "nomnom-api"),
        ("/api", "nomnom-dashboard-backend"),
        ("/", "nomnom-dashboard-frontend"),
    ]
    assert routes == expected
    assert "annotations" not in ingress["metadata"]
    (route,) = (each for each in manifests if each["kind"] == "HTTPRoute")
    assert [
        (rule["matches"][0]["path"]["value"], rule["backendRefs"][0]["name"]) for rule in route["spec"]["rules"]
    ] == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "keda.minReplica=1"), "additional properties 'minReplica' not allowed"),
        (("--set-string", "keda.minReplicas=one"), "got string, want integer"),
        (("--set", "postgresql.enabled=false,database.existingSecret=x"), "database.host: name the PostgreSQL server"),
        (("--set", "postgresql.enabled=false,database.host=db"), "database.existingSecret: name the Secret"),
        (
            ("--set", "nats.enabled=false,nats.external.servers={a:4222},nats.external.monitoringEndpoint=a:8222"),
            "nats.auth.existingSecret: name the Secret",
        ),
        (("--set", "nats.enabled=false,nats.auth.existingSecret=x"), "nats.external.servers: name the servers"),
        (("--set", "schema.name=mine"), 'the chart does not include a schema "mine"'),
        (("--set", "keda.minReplicas=20"), "keda.minReplicas (20) must not exceed keda.maxReplicas (10)"),
        (("--set", "httpRoute.enabled=true"), "httpRoute.parentRefs: name the gateway"),
        (("--set", "keda.install=true"), "KEDA's chart is missing"),
        (("--set", "database.sslMode=verify-full"), "database.caSecret: sslMode verify-full requires the Secret"),
        (("--set", "ingestion.api.autoscaling.minReplicas=12"), "api: autoscaling.minReplicas (12) must not exceed"),
        (
            ("--set", "monitoring.prometheusRule.enabled=true,dashboard.enabled=false"),
            "the alerts use metrics of the dashboard",
        ),
        (("--set", "setup.wait=0"), "minimum: got 0, want 1"),
        (("--set", "nats.syncInterval=sometimes"), "does not match pattern"),
        (("--set", "nats.extraConfig=jetstream { sync_interval: 2m }"), "nats.extraConfig: jetstream would replace"),
        (("--set", r'nats.extraConfig=debug: true\,"JetStream": {}'), "nats.extraConfig: JetStream would replace"),
        (("--set", "nats.extraConfig=debug: true\naccounts: {}"), "nats.extraConfig: accounts would replace"),
        (("--set", "nats.external.servers={nats://a:4222}"), "does not match pattern"),
        (("--set-json", 'ingestion.api.extraEnv=[{"nmae":"X"}]'), "additional properties 'nmae' not allowed"),
        (("--set-json", 'nats.tolerations=[{"efect":"NoSchedule"}]'), "additional properties 'efect' not allowed"),
        (("--set", "ingress.annotations.redirect=false"), "got boolean, want string"),
    ],
)
def test_invalid_values_are_rejected_with_a_reason(arguments: tuple[str, ...], message: str) -> None:
    output = helm("template", "nomnom", str(CHART), "--kube-version", "1.34", *arguments, fails=True)
    assert message in output


def test_nats_writes_to_disk_before_it_acknowledges() -> None:
    def configuration(*arguments: str) -> str:
        (found,) = (each for each in render(*arguments) if each["kind"] == "ConfigMap" and "nats.conf" in each["data"])
        return found["data"]["nats.conf"]

    for replicas in (1, 3):
        assert re.search(r"jetstream \{[^}]*sync_interval: always", configuration("--set", f"nats.replicas={replicas}"))
    assert "sync_interval: 2m" in configuration("--set", "nats.syncInterval=2m")
    harmless = configuration("--set", "nats.extraConfig=# jetstream {}\nlogtime_utc: true")
    assert harmless.rstrip().endswith("logtime_utc: true")


def test_nats_server_has_the_password_of_every_user() -> None:
    manifests = render()
    text = next(
        each["data"]["nats.conf"] for each in manifests if each["kind"] == "ConfigMap" and "nats.conf" in each["data"]
    )
    used = set(re.findall(r"\$([A-Z]+_PASSWORD)", text))
    (server,) = (pod["spec"] for name, pod in pods(manifests) if name == "StatefulSet/nomnom-nats")
    assert used <= {each["name"] for container in server["containers"] for each in container["env"]}
    assert len(used) == 7


def test_keda_subchart_is_optional(tmp_path: Path) -> None:
    chart = tmp_path / "nomnom"
    shutil.copytree(CHART, chart)
    operator = chart / "charts" / "keda" / "charts" / "keda"
    (operator / "templates").mkdir(parents=True)
    (operator / "Chart.yaml").write_text("apiVersion: v2\nname: keda\nversion: 2.20.1\n")
    (operator / "templates" / "it.yaml").write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: keda-{{ .Values.level }}}\n"
    )

    def rendered(*arguments: str) -> str:
        return helm("template", "nomnom", str(chart), "--kube-version", "1.34", *arguments)

    assert "name: keda-debug" in rendered("--set", "keda.install=true,keda.operator.level=debug")
    assert "name: keda-" not in rendered()


def test_alerts_and_dashboard_use_existing_metrics() -> None:
    manifests = render("--values", str(CHART / "values-prod.yaml"))
    rules = next(each["spec"] for each in manifests if each["kind"] == "PrometheusRule")["groups"][0]["rules"]
    board = json.loads(
        next(each["data"] for each in manifests if each["metadata"]["name"] == "nomnom-grafana")["nomnom.json"]
    )
    expressions = [each["expr"] for each in rules]
    expressions += [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    metrics = {
        sample.name
        for each in (ApiMetrics(), WorkerMetrics(), DashboardMetrics(), HousekeeperMetrics())
        for family in each.registry.collect()
        # Metrics with labels have no samples yet.
        for sample in (family.samples or [family])
    }
    metrics |= {f"{name}_total" for name in metrics} | {f"{name}_bucket" for name in metrics}
    assert len(expressions) > 20
    for each in expressions:
        promql_parser.parse(each)
        assert set(re.findall(r"nomnom_\w+", each)) <= metrics, each


class Network:
    """Evaluates the rendered NetworkPolicies by the rules of networking.k8s.io/v1."""

    def __init__(self, manifests: list[dict[str, Any]]) -> None:
        self.policies = [each["spec"] for each in manifests if each["kind"] == "NetworkPolicy"]

    def reaches(self, source: str, target: str, port: int) -> bool:
        return self._allows("Egress", source, target, port) and self._allows("Ingress", target, source, port)

    def _allows(self, direction: str, own: str, other: str, port: int) -> bool:
        if "/" in own:
            return True
        policies = [
            each
            for each in self.policies
            if direction in each["policyTypes"] and _matches(each["podSelector"], _labels(own))
        ]
        rules = [rule for each in policies for rule in each.get(direction.lower()) or ()]
        side = "to" if direction == "Egress" else "from"
        return not policies or any(self._permits(rule, side, other, port) for rule in rules)

    def _permits(self, rule: dict[str, Any], side: str, other: str, port: int) -> bool:
        ports = rule.get("ports")
        if ports and port not in [each["port"] for each in ports]:
            return False
        return side not in rule or any(_peer(peer, other) for peer in rule[side])


def _labels(place: str) -> dict[str, str]:
    component, _, instance = place.partition("@")
    return {
        "app.kubernetes.io/name": "nomnom",
        "app.kubernetes.io/instance": instance or "nomnom",
        "app.kubernetes.io/component": component,
    }


def _peer(peer: dict[str, Any], other: str) -> bool:
    """``other`` is a component of the release, or ``namespace/name`` of another namespace."""
    namespace, _, outside = other.rpartition("/")
    if selector := peer.get("namespaceSelector"):
        return bool(outside and namespace) and _matches(selector, {"kubernetes.io/metadata.name": namespace})
    return not namespace and _matches(peer["podSelector"], _labels(other))


def _matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    by_label = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    return by_label and all(labels.get(each["key"]) in each["values"] for each in selector.get("matchExpressions", ()))


NEEDED = [
    *((user, "nats", 4222) for user in ("api", "worker", "dashboard-backend", "housekeeper", "setup")),
    *((user, "postgres", 5432) for user in ("api", "worker", "dashboard-backend", "housekeeper", "setup")),
    ("nats", "nats", 6222),
    ("keda/operator", "nats", 8222),
    ("dashboard-backend", "nats", 8222),
    ("dashboard-frontend", "dashboard-backend", 3000),
    ("test", "api", 8080),
    ("test", "dashboard-backend", 3000),
    ("test", "dashboard-frontend", 5173),
    ("edge/controller", "api", 8080),
    ("edge/controller", "dashboard-backend", 3000),
    ("edge/controller", "dashboard-frontend", 5173),
    ("monitoring/prometheus", "worker", 8081),
    ("monitoring/prometheus", "housekeeper", 8082),
    ("monitoring/prometheus", "api", 8080),
    ("monitoring/prometheus", "dashboard-backend", 3000),
    *((pod, "kube-system/dns", 53) for pod in ("api", "worker", "nats", "postgres", "dashboard-frontend", "setup")),
]
REFUSED = [
    ("dashboard-frontend", "postgres", 5432),
    ("dashboard-frontend", "nats", 4222),
    ("worker", "api", 8080),
    ("api", "nats", 6222),
    ("api", "nats", 8222),
    ("postgres", "nats", 4222),
    ("nats", "postgres", 5432),
    ("keda/operator", "nats", 4222),
    ("keda/operator", "postgres", 5432),
    ("edge/controller", "postgres", 5432),
    ("edge/controller", "worker", 8081),
    ("edge/controller", "nats", 4222),
    ("api@other", "postgres", 5432),
    ("worker", "elsewhere/anything", 443),
    ("postgres", "elsewhere/anything", 443),
    ("test", "postgres", 5432),
]


@pytest.fixture(scope="module")
def network() -> Network:
    edge = '{"namespaceSelector":{"matchLabels":{"kubernetes.io/metadata.name":"edge"}}}'
    return Network(render(f"--set-json=networkPolicy.clients=[{edge}]"))


@pytest.mark.parametrize(("source", "target", "port"), NEEDED)
def test_network_policies_allow_required_traffic(network: Network, source: str, target: str, port: int) -> None:
    assert network.reaches(source, target, port)


@pytest.mark.parametrize(("source", "target", "port"), REFUSED)
def test_network_policies_deny_other_traffic(network: Network, source: str, target: str, port: int) -> None:
    assert not network.reaches(source, target, port)


def test_network_policies_without_clients_allow_only_posting() -> None:
    network = Network(render())
    assert network.reaches("anywhere/client", "api", 8080)
    assert not network.reaches("anywhere/client", "nats", 4222)
