"""One release of the chart in a namespace: its objects, found by the labels that the chart gives them."""

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
}
"""Components as people name them, and the chart's label of each."""
_NAMES = {label: name for name, label in PARTS.items()}


class NotInstalled(ControlError):  # noqa: N818
    """The namespace has no release of that name."""


@dataclass(frozen=True)
class Release:
    """A release by name; nothing of it needs to exist yet."""

    cluster: Cluster
    namespace: str = "nomnom"
    name: str = "nomnom"

    @property
    def selector(self) -> str:
        """The label selector of everything that is the release's."""
        return f"app.kubernetes.io/part-of=nomnom,app.kubernetes.io/instance={self.name}"

    def part(self, component: str) -> str:
        """The label selector of one component; raises ControlError where there is none of that name."""
        if component not in PARTS:
            raise ControlError(f"no component {component!r}; there are {', '.join(PARTS)}")
        return f"{self.selector},app.kubernetes.io/component={PARTS[component]}"

    def path(self, kind: str, name: str = "") -> str:
        """The path of the namespace's objects of a kind, as ``apps/v1/deployments``, or of one of them."""
        group, _, plural = kind.rpartition("/")
        root = f"/apis/{group}" if "/" in group else f"/api/{group}"
        return f"{root}/namespaces/{self.namespace}/{plural}" + (f"/{name}" if name else "")

    async def pods(self, component: str | None = None) -> list[Object]:
        """Its pods, or those of one component."""
        selector = self.selector if component is None else self.part(component)
        return await self.cluster.list(self.path("v1/pods"), selector)

    async def workload(self, component: str) -> tuple[str, Object]:
        """The Deployment or StatefulSet of a component, with its kind's path; raises NotInstalled."""
        for kind in ("apps/v1/deployments", "apps/v1/statefulsets"):
            if found := await self.cluster.list(self.path(kind), self.part(component)):
                return kind, found[0]
        raise NotInstalled(f"{self.where} has no {component}: nomnom install makes it, where the chart's values say so")

    async def deployment(self, component: str) -> Object:
        """The Deployment of a component that has one; raises ControlError for one with a StatefulSet."""
        kind, found = await self.workload(component)
        if kind != "apps/v1/deployments":
            raise ControlError(f"{component} keeps data: it is changed by the chart's values (nomnom upgrade)")
        return found

    @property
    def where(self) -> str:
        """Release, namespace and cluster, for people."""
        return f"release {self.name} in namespace {self.namespace} of {self.cluster.title}"

    async def secret(self, name: str) -> Mapping[str, str]:
        """The texts of a Secret; raises ControlError where it is missing."""
        found = await self.cluster.find(self.path("v1/secrets", name))
        if found is None:
            raise ControlError(f"there is no Secret {name} in namespace {self.namespace} of {self.cluster.title}")
        return {key: base64.b64decode(value).decode() for key, value in (found.get("data") or {}).items()}

    async def schema_text(self) -> str:
        """The schema that the workers read, from its ConfigMap."""
        worker = await self.deployment("worker")
        for volume in worker["spec"]["template"]["spec"].get("volumes") or []:
            if volume["name"] == "schema" and "configMap" in volume:
                name = volume["configMap"]["name"]
                found = await self.cluster.get(self.path("v1/configmaps", name))
                return str((found.get("data") or {}).get("schema.yaml", ""))
        raise ControlError(f"{self.where} does not mount a schema")

    async def access(self) -> Access:
        """What an operator logs in with, from the Secrets that the api's Deployment names."""
        api = await self.deployment("api")
        container = api["spec"]["template"]["spec"]["containers"][0]
        given = {each["name"]: each for each in container.get("env") or []}
        nats = await self.secret(_secret_of(given, "NATS_PASSWORD"))
        database = await self.secret(_secret_of(given, "DATABASE_PASSWORD"))
        url = urlsplit(given["DATABASE_URL"]["value"].replace("$(DATABASE_PASSWORD)", ""))
        tokens = ""
        if "NOMNOM_API_TOKENS" in given:
            tokens = (await self.secret(_secret_of(given, "NOMNOM_API_TOKENS"))).get("tokens", "")
        # All components log in as the owner where the chart was told so: then there is no role of the operator's own.
        separate = given["DATABASE_PASSWORD"]["valueFrom"]["secretKeyRef"]["key"] != "owner-password"
        who = "operator" if separate else "owner"
        role = "nomnom_operator" if separate else url.username or "nomnom"
        setup = await self._setup_role() if separate else None
        return Access(
            nats_password=_value(nats, "operator-password"),
            role=setup or role,
            database_password=_value(database, f"{who}-password"),
            database=url.path.removeprefix("/"),
            database_server=url.netloc.rpartition("@")[2],
            nats_servers=given["NATS_URL"]["value"],
            token=first_token(tokens),
        )

    async def _setup_role(self) -> str | None:
        """The operator's role as the setup was told to make it; None where another makes the roles."""
        for job in await self.cluster.list(self.path("batch/v1/jobs"), self.selector):
            for each in job["spec"]["template"]["spec"]["containers"][0].get("env") or []:
                if each["name"] == "DATABASE_OPERATOR_URL":
                    return urlsplit(each["value"].partition(":$(")[0]).netloc or None
        return None


@dataclass(frozen=True, repr=False)
class Access:
    """An operator's credentials. They are never shown."""

    nats_password: str
    role: str
    database_password: str
    database: str
    database_server: str
    """host:port as the components reach it."""
    nats_servers: str
    """The components' URLs, for where the servers are not the release's own."""
    token: str | None = None


def component_of(labelled: Object) -> str:
    """The component that an object belongs to, as people name it."""
    label = str((labelled["metadata"].get("labels") or {}).get("app.kubernetes.io/component", ""))
    return _NAMES.get(label, label)


def _secret_of(given: Mapping[str, Object], name: str) -> str:
    try:
        return str(given[name]["valueFrom"]["secretKeyRef"]["name"])
    except KeyError:
        raise ControlError(f"the api's Deployment takes no {name} from a Secret: was it made by this chart?") from None


def _value(secret: Mapping[str, str], key: str) -> str:
    if key not in secret:
        raise ControlError(f"a Secret of the release has no {key}; it has {', '.join(secret)}")
    return secret[key]
