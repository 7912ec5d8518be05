"""One release of the chart in a namespace: its objects, found by their labels."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from nomnom.settings.tokens import first_token
from nomnom_control.environments.cluster.api import Cluster, Object
from nomnom_control.errors import ControlError

PARTS = {
    "api": "api",
    "nats": "nats",
    "worker": "worker",
    "postgres": "postgres",
    "dashboard": "dashboard-backend",
    "page": "dashboard-frontend",
    "housekeeper": "housekeeper",
}
"""The names of the components, and the chart's label of each."""
_NAMES = {label: name for name, label in PARTS.items()}


class NotInstalled(ControlError):  # noqa: N818
    """The component is not installed in the namespace."""


@dataclass(frozen=True)
class Release:
    """A release by name; it does not have to exist."""

    cluster: Cluster
    namespace: str = "nomnom"
    name: str = "nomnom"

    @property
    def selector(self) -> str:
        """The label selector of all objects of the release."""
        return f"app.kubernetes.io/part-of=nomnom,app.kubernetes.io/instance={self.name}"

    def part(self, component: str) -> str:
        """The label selector of one component. Raises ControlError for an unknown name."""
        if component not in PARTS:
            raise ControlError(f"unknown component {component!r}; available: {', '.join(PARTS)}")
        return f"{self.selector},app.kubernetes.io/component={PARTS[component]}"

    def path(self, kind: str, name: str = "") -> str:
        """The API path of a kind in the namespace, such as ``apps/v1/deployments``, or of one object of it."""
        group, _, plural = kind.rpartition("/")
        root = f"/apis/{group}" if "/" in group else f"/api/{group}"
        return f"{root}/namespaces/{self.namespace}/{plural}" + (f"/{name}" if name else "")

    async def pods(self, component: str | None = None) -> list[Object]:
        """The pods of the release, or of one component."""
        selector = self.selector if component is None else self.part(component)
        return await self.cluster.list(self.path("v1/pods"), selector)

    async def workload(self, component: str) -> tuple[str, Object]:
        """The Deployment or StatefulSet of a component, with the path of its kind. Raises NotInstalled."""
        for kind in ("apps/v1/deployments", "apps/v1/statefulsets"):
            if found := await self.cluster.list(self.path(kind), self.part(component)):
                return kind, found[0]
        raise NotInstalled(f"{self.where} has no {component}; run nomnom install with chart values that enable it")

    async def deployment(self, component: str) -> Object:
        """The Deployment of a component. Raises ControlError for a component with a StatefulSet."""
        kind, found = await self.workload(component)
        if kind != "apps/v1/deployments":
            raise ControlError(f"{component} is stateful; change it through the chart's values (nomnom upgrade)")
        return found

    @property
    def where(self) -> str:
        """Release, namespace and cluster, as shown to users."""
        return f"release {self.name} in namespace {self.namespace} of {self.cluster.title}"

    async def secret(self, name: str) -> Mapping[str, str]:
        """The decoded values of a Secret. Raises ControlError if it does not exist."""
        found = await self.cluster.find(self.path("v1/secrets", name))
        if found is None:
            raise ControlError(f"Secret {name} not found in namespace {self.namespace} of {self.cluster.title}")
        return {key: base64.b64decode(value).decode() for key, value in (found.get("data") or {}).items()}

    async def schema_text(self) -> str:
        """The schema from the ConfigMap that the workers mount."""
        worker = await self.deployment("worker")
        for volume in worker["spec"]["template"]["spec"].get("volumes") or []:
            if volume["name"] == "schema" and "configMap" in volume:
                name = volume["configMap"]["name"]
                found = await self.cluster.get(self.path("v1/configmaps", name))
                return str((found.get("data") or {}).get("schema.yaml", ""))
        raise ControlError(f"{self.where} does not mount a schema")

    async def access(self) -> Access:
        """The operator's credentials, from the Secrets that the API's Deployment refers to."""
        api = await self.deployment("api")
        container = api["spec"]["template"]["spec"]["containers"][0]
        given = {each["name"]: each for each in container.get("env") or []}
        nats = await self.secret(_secret_of(given, "NATS_PASSWORD"))
        database = await self.secret(_secret_of(given, "DATABASE_PASSWORD"))
        url = urlsplit(given["DATABASE_URL"]["value"].replace("$(DATABASE_PASSWORD)", ""))
        tokens = ""
        if "NOMNOM_API_TOKENS" in given:
            tokens = (await self.secret(_secret_of(given, "NOMNOM_API_TOKENS"))).get("tokens", "")
        # The chart can be configured to let all components log in as the owner; then there is no operator role.
        separate = given["DATABASE_PASSWORD"]["valueFrom"]["secretKeyRef"]["key"] != "owner-password"
        login = "operator" if separate else "owner"
        role = "nomnom_operator" if separate else url.username or "nomnom"
        setup = await self._setup_role() if separate else None
        return Access(
            nats_password=_value(nats, "operator-password"),
            role=setup or role,
            database_password=_value(database, f"{login}-password"),
            database=url.path.removeprefix("/"),
            database_server=url.netloc.rpartition("@")[2],
            nats_servers=given["NATS_URL"]["value"],
            token=first_token(tokens),
        )

    async def _setup_role(self) -> str | None:
        """The name of the operator role that the setup creates; None if the roles are created elsewhere."""
        for job in await self.cluster.list(self.path("batch/v1/jobs"), self.selector):
            for each in job["spec"]["template"]["spec"]["containers"][0].get("env") or []:
                if each["name"] == "DATABASE_OPERATOR_URL":
                    return urlsplit(each["value"].partition(":$(")[0]).netloc or None
        return None


@dataclass(frozen=True, repr=False)
class Access:
    """An operator's credentials. Never show them."""

    nats_password: str
    role: str
    database_password: str
    database: str
    database_server: str
    """host:port as used by the components."""
    nats_servers: str
    """The components' URLs, for servers that are not part of the release."""
    token: str | None = None


def component_of(labelled: Object) -> str:
    """The name of the component that an object belongs to."""
    label = str((labelled["metadata"].get("labels") or {}).get("app.kubernetes.io/component", ""))
    return _NAMES.get(label, label)


def _secret_of(given: Mapping[str, Object], name: str) -> str:
    try:
        return str(given[name]["valueFrom"]["secretKeyRef"]["name"])
    except KeyError:
        raise ControlError(
            f"the API's Deployment does not read {name} from a Secret; install it with this chart"
        ) from None


def _value(secret: Mapping[str, str], key: str) -> str:
    if key not in secret:
        raise ControlError(f"a Secret of the release has no key {key}; it has {', '.join(secret)}")
    return secret[key]
