"""A production-like release: three NATS servers, an external PostgreSQL, and existing Secrets.

The external database is the one of the first release.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import asyncpg
import httpx
import nats
import nats.errors
import pytest
import pytest_asyncio
from nats.aio.client import Client

from e2e.conftest import eventually, finish, kill, life, ready
from e2e.traffic import STATUSES, flowing
from nomnom_control.environments import WORKER, Health
from nomnom_control.environments.cluster.reasons import pod_ready
from nomnom_control.environments.kind.environment import KindEnvironment

TOKEN = "s3cret-token-of-the-shop"
ROLES = ("owner", "worker", "api", "dashboard", "operator", "housekeeper")
USERS = ("api", "worker", "dashboard", "housekeeper", "setup", "operator", "system")
SMALL = {"requests": {"cpu": "20m", "memory": "64Mi"}}


def values() -> str:
    """Differences from values-prod: names of this cluster, smaller sizes, no kinds that the cluster does not serve."""
    roles = [f"database.roles.{each}=prod_{each}" for each in ROLES]
    small = [
        f"{part}.resources.requests.{name}={amount}"
        for part in (
            "nats",
            "ingestion.api",
            "ingestion.worker",
            "dashboard.backend",
            "dashboard.frontend",
            "housekeeper",
        )
        for name, amount in SMALL["requests"].items()
    ]
    return " ".join(
        [
            "database.host=nomnom-postgres.nomnom.svc",
            "database.name=prod",
            "database.sslMode=disable",
            *roles,
            *small,
            "nats.auth.existingSecret=prod-nats",
            "nats.storage.size=2Gi",
            "nats.streams.maxBytes=268435456",
            "nats.streams.deadMaxBytes=67108864",
            "ingestion.api.autoscaling.minReplicas=2",
            "ingestion.api.spread=ScheduleAnyway",
            "ingress.enabled=false",
            "monitoring.serviceMonitor.enabled=false",
            "monitoring.prometheusRule.enabled=false",
            "keda.pollingInterval=5",
        ]
    )


async def make_secret(here: KindEnvironment, name: str, texts: dict[str, str]) -> None:
    data = {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()}
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}
    await here.cluster.create(here.release.path("v1/secrets"), body)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def owner(lab: KindEnvironment) -> AsyncIterator[str]:
    """The URL of a database as in a managed service: its owner is not a superuser, but can create roles."""
    server = urlsplit((await lab.endpoints()).database)
    password = (await lab.release.secret("nomnom-database"))["owner-password"]
    admin = server._replace(netloc=f"nomnom:{password}@{server.hostname}:{server.port}").geturl()
    own = f"n{secrets.token_hex(12)}"
    await run(
        admin,
        f"CREATE ROLE prod_owner LOGIN CREATEROLE PASSWORD '{own}'",
        "GRANT pg_read_all_stats TO prod_owner WITH ADMIN OPTION",
        "CREATE DATABASE prod OWNER prod_owner",
    )
    yield server._replace(netloc=f"prod_owner:{own}@{server.hostname}:{server.port}", path="/prod").geturl()
    await run(
        admin, "DROP DATABASE prod WITH (FORCE)", *(f"DROP ROLE IF EXISTS prod_{each}" for each in reversed(ROLES))
    )


async def run(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for each in statements:
            await connection.execute(each)
    finally:
        await connection.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def prod(lab: KindEnvironment, owner: str) -> AsyncIterator[KindEnvironment]:
    """The ready release."""
    here = KindEnvironment(
        lab.cluster_name,
        lab.configuration,
        namespace="prod",
        release="prod",
        kubeconfig=lab.cluster.kubeconfig,
        options={"values": "prod", "set": values()},
    )
    enforced = {"pod-security.kubernetes.io/enforce": "restricted"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "prod", "labels": enforced}}
    await here.cluster.create("/api/v1/namespaces", namespace)
    try:
        passwords = {f"{each}-password": f"n{secrets.token_hex(12)}" for each in ROLES}
        passwords["owner-password"] = urlsplit(owner).password or ""
        await make_secret(here, "postgres-roles", passwords)
        await make_secret(here, "prod-nats", {f"{each}-password": f"n{secrets.token_hex(12)}" for each in USERS})
        await make_secret(here, "api-tokens", {"tokens": f"shop:{TOKEN}"})
        await make_secret(here, "dashboard-auth", {"tokens": "viewer-token-123"})
        await finish(here.start())
        yield here
    finally:
        await finish(here.installation.uninstall(data=True))
        await here.cluster.delete("/api/v1/namespaces/prod")
        await here.close()


async def test_components_run_under_restricted_pod_security(prod: KindEnvironment) -> None:
    found = {each.name: each for each in await prod.components()}
    assert set(found) == {"api", "nats", WORKER, "dashboard", "page", "housekeeper"}
    assert (found["nats"].desired, found["nats"].health) == (3, Health.HEALTHY)

    async def scaled() -> bool:
        return (await ready(prod, "api"))[0] >= 2

    await eventually(scaled, 60, "the autoscaler has brought the api to its fewest pods")
    quota = await prod.cluster.list(prod.release.path("v1/resourcequotas"))
    assert int(quota[0]["status"]["used"]["persistentvolumeclaims"]) == 3


async def test_api_requires_tokens(prod: KindEnvironment) -> None:
    endpoints = await prod.endpoints()
    async with httpx.AsyncClient(trust_env=False) as client:
        path = f"{endpoints.api}/api/ingest/message"
        assert (await client.post(path, content="R|0|AFRICA||")).status_code == 401
        given = {"Authorization": f"Bearer {TOKEN}"}
        assert (await client.post(path, content="R|0|AFRICA||", headers=given)).status_code == 202
        assert endpoints.api_token == TOKEN
        assert (await client.get(f"{endpoints.dashboard}/api/stats")).status_code == 401
        seen = {"Authorization": "Bearer viewer-token-123"}
        assert (await client.get(f"{endpoints.dashboard}/api/stats", headers=seen)).status_code == 200


async def test_streams_are_replicated_and_keda_finds_their_leader(
    prod: KindEnvironment,
) -> None:
    client = await nats.connect((await prod.endpoints()).nats)
    try:
        jetstream = client.jetstream(timeout=10)
        for name in ("MESSAGES", "MESSAGESDLQ"):
            info = await jetstream.stream_info(name)
            assert info.config.num_replicas == 3
            assert info.cluster is not None
            assert len(info.cluster.replicas or []) == 2
        assert (await jetstream.stream_info("MESSAGES")).config.max_bytes == 268435456
    finally:
        await client.close()

    async def active() -> bool:
        scaled = (await prod.cluster.list(prod.release.path("keda.sh/v1alpha1/scaledobjects")))[0]
        conditions = {each["type"]: each["status"] for each in scaled["status"]["conditions"]}
        return conditions["Ready"] == "True" and (await prod.scaling()).ready >= 2

    await eventually(active, 90, "KEDA reads the lag, and the minimum of workers is running")


@asynccontextmanager
async def refused(prod: KindEnvironment, user: str) -> AsyncIterator[Client]:
    """A connection as this user; NATS must reject what the block does."""
    url = urlsplit((await prod.endpoints()).nats)
    password = (await prod.release.secret("prod-nats"))[f"{user}-password"]
    refusal: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def note(error: Exception) -> None:
        if not refusal.done():
            refusal.set_result(str(error))

    client = await nats.connect(f"nats://{user}:{password}@{url.hostname}:{url.port}", error_cb=note)
    try:
        yield client
        async with asyncio.timeout(10):
            assert "permissions violation" in (await refusal).lower()
    finally:
        await client.close()


@pytest.mark.parametrize(
    ("user", "subject"),
    [
        ("api", "messages.dlq.orders.x"),
        ("api", "$JS.API.STREAM.PURGE.MESSAGES"),
        ("worker", "messages.ingest.orders.x"),
        ("worker", "$JS.API.CONSUMER.DELETE.MESSAGES.workers"),
        ("dashboard", "messages.ingest.orders.x"),
        ("dashboard", "$JS.API.STREAM.MSG.DELETE.MESSAGESDLQ"),
        ("dashboard", "$JS.ACK.MESSAGES.workers.1.1.1.1.1"),
        ("housekeeper", "messages.ingest.orders.x"),
        ("housekeeper", "$JS.API.STREAM.PURGE.MESSAGES"),
        ("setup", "$JS.API.STREAM.DELETE.MESSAGES"),
        ("operator", "$SYS.REQ.SERVER.PING"),
    ],
)
async def test_nats_users_have_minimal_permissions(prod: KindEnvironment, user: str, subject: str) -> None:
    async with refused(prod, user) as client:
        await client.publish(subject, b"{}")


async def test_nats_users_cannot_read_replies_to_others(prod: KindEnvironment) -> None:
    async with refused(prod, "worker") as client:
        await client.subscribe("_INBOX_api.>")


async def test_killed_stream_leader_loses_no_message(prod: KindEnvironment, owner: str) -> None:
    endpoints = await prod.endpoints()
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with (
        httpx.AsyncClient(base_url=endpoints.api, headers=headers, timeout=20, trust_env=False) as client,
        flowing(client) as traffic,
    ):
        await asyncio.sleep(2)
        leader = await stream_leader(endpoints.nats)
        killed = await prod.cluster.get(prod.release.path("v1/pods", leader))
        await kill(prod, killed)

        async def whole() -> bool:
            pods = await prod.release.pods("nats")
            return life(killed) not in map(life, pods) and sum(map(pod_ready, pods)) == 3

        await eventually(whole, 120, "three servers again")
        before = len(traffic.accepted)

        async def goes_on() -> bool:
            return len(traffic.accepted) > before + 20

        await eventually(goes_on, 60, f"records are accepted again: {traffic.problems[-3:]}")
    connection = await asyncpg.connect(owner)
    try:

        async def all_completed() -> bool:
            rows = await connection.fetch(STATUSES, traffic.accepted)
            return {row["status"]: row["messages"] for row in rows} == {"completed": len(traffic.accepted)}

        await eventually(all_completed, 120, f"{len(traffic.accepted)} messages completed")
    finally:
        await connection.close()


async def stream_leader(url: str) -> str:
    """The server (pod) that is the leader of MESSAGES."""
    client = await nats.connect(url, connect_timeout=3, max_reconnect_attempts=1)
    try:
        info = await client.jetstream(timeout=3).stream_info("MESSAGES")
        assert info.cluster is not None
        return str(info.cluster.leader)
    finally:
        await client.close()
