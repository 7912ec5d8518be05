"""Clusters by way of an API server of the tests' own: credentials, proxies, errors, logs and port-forwards."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
import tempfile
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import free_port
from kubernetes_harness import BIG, ApiServer, Authority, Plugin, Proxy, Request, inline, kubeconfig
from nomnom_control.environments.cluster import api
from nomnom_control.environments.cluster import kubeconfig as kubeconfigs
from nomnom_control.environments.cluster.api import Cluster, ClusterRefused, ClusterUnavailable
from nomnom_control.environments.cluster.forwards import Forward
from nomnom_control.environments.cluster.kubeconfig import contexts

NODE = "/api/v1/nodes/one"
POD = "/api/v1/namespaces/shop/pods/it"
ITEM: dict[str, Any] = {"kind": "Node", "metadata": {"name": "one"}}


@dataclass
class Stage:
    """A running API server and the folder of its kubeconfigs."""

    server: ApiServer
    folder: Path

    @property
    def cluster(self) -> dict[str, Any]:
        """The cluster of a kubeconfig."""
        return {
            "server": self.server.address,
            "certificate-authority-data": inline(self.server.authority.certificate),
        }

    def write(self, user: dict[str, Any], **cluster: Any) -> Path:
        """A kubeconfig for this user."""
        return kubeconfig(self.folder / "config", {**self.cluster, **cluster}, user)

    @asynccontextmanager
    async def open(self, user: dict[str, Any], **cluster: Any) -> AsyncIterator[Cluster]:
        """The cluster that this user opens."""
        opened = Cluster(kubeconfig=self.write(user, **cluster))
        try:
            yield opened
        finally:
            await opened.close()

    @property
    def users(self) -> list[str]:
        """The user of each request."""
        return [each.user for each in self.server.requests]


TOKEN = {"token": "good"}


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(autouse=True)
def own_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No kubeconfig, proxy or pod of the machine's; a temporary folder that has to stay empty."""
    for name in ("KUBERNETES_SERVICE_HOST", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    return temporary


@pytest.fixture
async def stage(authority: Authority, tmp_path: Path) -> AsyncIterator[Stage]:
    async with ApiServer(authority, objects={NODE: ITEM}).running(tmp_path) as server:
        yield Stage(server, tmp_path)


@pytest.fixture
def closed_in_order(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing is left open: no warning of Python's, none of aiohttp's."""
    with warnings.catch_warnings(record=True) as seen, caplog.at_level(logging.WARNING):
        warnings.simplefilter("always", ResourceWarning)
        yield
        gc.collect()
    assert [str(each.message) for each in seen] == []
    assert caplog.messages == []


# Credentials


async def test_client_certificate_authenticates_and_leaves_no_file(
    stage: Stage, authority: Authority, own_surroundings: Path
) -> None:
    pair = authority.issue("operator")
    user = {"client-certificate-data": inline(pair.certificate), "client-key-data": inline(pair.key)}
    async with stage.open(user) as cluster:
        assert await cluster.get(NODE) == ITEM
        assert list(own_surroundings.iterdir()) == []
    assert stage.users == ["certificate operator"]
    assert list(own_surroundings.iterdir()) == []


async def test_certificate_files_are_relative_to_the_kubeconfig(stage: Stage, authority: Authority) -> None:
    folder = stage.folder / "certificates"
    folder.mkdir()
    authority.issue("operator").write(folder, "client")
    (folder / "ca.crt").write_text(authority.certificate)
    user = {"client-certificate": "certificates/client.crt", "client-key": "certificates/client.key"}
    cluster = {"server": stage.server.address + "/", "certificate-authority": "certificates/ca.crt"}
    opened = Cluster(kubeconfig=kubeconfig(stage.folder / "config", cluster, user))
    assert await opened.get(NODE) == ITEM
    await opened.close()
    assert stage.users == ["certificate operator"]


async def test_token_and_token_file_authenticate(stage: Stage) -> None:
    async with stage.open(TOKEN) as cluster:
        assert await cluster.get(NODE) == ITEM
    (stage.folder / "token").write_text("good\n")
    async with stage.open({"tokenFile": "token"}) as cluster:
        assert await cluster.get(NODE) == ITEM
    async with stage.open({"auth-provider": {"name": "oidc", "config": {"id-token": "good"}}}) as cluster:
        assert await cluster.get(NODE) == ITEM
    assert stage.users == ["token good"] * 3


async def test_rejected_token_is_reported_after_one_request(stage: Stage) -> None:
    async with stage.open({"token": "bad"}) as cluster:
        with pytest.raises(ClusterRefused, match="Unauthorized") as error:
            await cluster.get(NODE)
    assert error.value.status == 401
    assert stage.users == [""]


async def test_context_without_user_is_anonymous(stage: Stage) -> None:
    async with stage.open({}) as cluster:
        with pytest.raises(ClusterRefused, match="Unauthorized"):
            await cluster.get(NODE)


async def test_exec_plugin_token_is_used_until_it_expires(stage: Stage) -> None:
    plugin = Plugin(stage.folder)
    plugin.write({"token": "first"})
    stage.server.tokens = {"first"}
    async with stage.open(plugin.user, **{"tls-server-name": "127.0.0.1"}) as cluster:
        assert await cluster.get(NODE) == ITEM
        log = cluster.lines(f"{POD}/log", follow="true")
        await stage.server.log.put(b"before\n")
        assert await anext(log) == "before"
        assert len(plugin.runs) == 1

        plugin.write({"token": "second"})
        stage.server.tokens = {"second"}
        together = await asyncio.gather(*(cluster.get(NODE) for _ in range(4)))
        assert together == [ITEM] * 4
        assert len(plugin.runs) == 2
        # What was open stays open.
        await stage.server.log.put(b"after\n")
        assert await anext(log) == "after"
        await log.aclose()
        assert await cluster.get(NODE) == ITEM
    asked = plugin.runs[0]["spec"]
    assert asked["interactive"] is False
    assert asked["cluster"]["server"] == stage.server.address
    assert asked["cluster"]["tls-server-name"] == "127.0.0.1"
    assert asked["cluster"]["certificate-authority-data"] == inline(stage.server.authority.certificate)


async def test_tunnel_renews_the_token(stage: Stage) -> None:
    plugin = Plugin(stage.folder)
    plugin.write({"token": "first"})
    stage.server.tokens = {"first"}
    async with stage.open(plugin.user) as cluster:
        assert await cluster.get(NODE) == ITEM
        plugin.write({"token": "second"})
        stage.server.tokens = {"second"}
        async with cluster.tunnel("shop", "it", 80) as websocket:
            assert await websocket.receive_bytes() == b"\0\x50\0"
    assert len(plugin.runs) == 2


async def test_exec_plugin_certificate_is_used_until_it_is_rejected(
    stage: Stage, authority: Authority, own_surroundings: Path
) -> None:
    plugin = Plugin(stage.folder)
    first, second = authority.issue("first"), authority.issue("second")
    plugin.write({"clientCertificateData": first.certificate, "clientKeyData": first.key})
    async with stage.open(plugin.user) as cluster:
        assert await cluster.get(NODE) == ITEM
        plugin.write({"clientCertificateData": second.certificate, "clientKeyData": second.key})
        stage.server.statuses[NODE] = 401
        with pytest.raises(ClusterRefused):
            await cluster.get(NODE)
        del stage.server.statuses[NODE]
        assert await cluster.get(NODE) == ITEM
    assert stage.users == ["certificate first", "certificate first", "certificate second", "certificate second"]
    assert list(own_surroundings.iterdir()) == []


async def test_failure_of_exec_plugin_is_reported(stage: Stage) -> None:
    plugin = Plugin(stage.folder)
    plugin.write(None, failure="the session of clerk1 has ended")
    async with stage.open(plugin.user) as cluster:
        with pytest.raises(ClusterUnavailable, match=r"exec plugin failed.*\n.*the session of clerk1 has ended"):
            await cluster.get(NODE)
        plugin.write({"expirationTimestamp": "2030-01-01T00:00:00Z"})
        with pytest.raises(ClusterUnavailable, match="returned no token and no certificate"):
            await cluster.get(NODE)
        (stage.folder / "credentials").write_text("welcome!")
        with pytest.raises(ClusterUnavailable, match="wrote no ExecCredential"):
            await cluster.get(NODE)
        plugin.write({"token": "good"})
        assert await cluster.get(NODE) == ITEM
    missing = {"exec": {"apiVersion": "v1", "command": "no-such-plugin", "installHint": "get it from the shop"}}
    async with stage.open(missing) as cluster:
        with pytest.raises(ClusterUnavailable, match="no-such-plugin is not installed: get it from the shop"):
            await cluster.get(NODE)
    assert stage.users == ["token good"]


async def test_pod_uses_its_service_account(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    account = stage.folder / "account"
    account.mkdir()
    (account / "ca.crt").write_text(stage.server.authority.certificate)
    (account / "token").write_text("first")
    stage.server.tokens = {"first"}
    monkeypatch.setattr(kubeconfigs, "SERVICE_ACCOUNT", account)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(stage.server.port))
    cluster = Cluster()
    assert await cluster.get(NODE) == ITEM
    # Kubernetes replaces the token every hour.
    (account / "token").write_text("second")
    stage.server.tokens = {"second"}
    assert await cluster.get(NODE) == ITEM
    await cluster.close()
    with pytest.raises(ClusterUnavailable, match="has no context 'prod'"):
        await Cluster("prod").get(NODE)


# Kubeconfigs


async def test_kubeconfigs_are_merged_and_the_first_takes_precedence(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [stage.folder / name for name in ("first", "second")]
    for folder in folders:
        folder.mkdir()
        (folder / "token").write_text(folder.name)
    user = {"tokenFile": "token"}
    files = [
        kubeconfig(folders[0] / "a", stage.cluster, user, context="a", current=None),
        kubeconfig(folders[0] / "missing", {}, {}),
        kubeconfig(folders[1] / "b", stage.cluster, user, context="b", current="b"),
        kubeconfig(folders[0] / "c", {"server": "https://127.0.0.1:1"}, user, context="b", current="a"),
    ]
    files[1].unlink()
    monkeypatch.setenv("KUBECONFIG", ":".join(map(str, files)))
    stage.server.tokens = {"first", "second"}
    assert contexts() == ["a", "b"]
    for cluster in (Cluster(), Cluster("a"), Cluster("b")):
        assert await cluster.get(NODE) == ITEM
        await cluster.close()
    assert stage.users == ["token second", "token first", "token second"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [", "is not a valid kubeconfig"),
        ("just text", "is not a valid kubeconfig"),
        ("contexts: [{context: {}}]", "is not a valid kubeconfig.*name"),
        ("contexts: [{name: it}]", "has no current context; name a context"),
        ("current-context: other\ncontexts: [{name: it}]", "has no context 'other'"),
        ("current-context: it\ncontexts: [{name: it}]", "has no server for the context 'it'"),
        (
            "current-context: it\ncontexts: [{name: it, context: {cluster: c}}]\n"
            "clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1', certificate-authority: nowhere.crt}}]",
            "nowhere.crt, which the kubeconfig refers to: No such file",
        ),
        (
            "current-context: it\ncontexts: [{name: it, context: {cluster: c}}]\n"
            "clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1', certificate-authority-data: YWJj}}]",
            "the credentials of the current context are not valid",
        ),
    ],
)
async def test_invalid_kubeconfig_is_reported(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "config"
    file.write_text(text)
    with pytest.raises(ClusterUnavailable, match=problem):
        await Cluster(kubeconfig=file).get(NODE)


async def test_missing_kubeconfig_is_reported_with_its_paths(tmp_path: Path) -> None:
    assert contexts() == []
    with pytest.raises(ClusterUnavailable, match=f"{tmp_path / 'none'}.*no current context"):
        await Cluster().get(NODE)


# TLS and proxies


async def test_tls_server_name_applies_to_requests_and_tunnels(authority: Authority, tmp_path: Path) -> None:
    async with ApiServer(authority, objects={NODE: ITEM}).running(tmp_path, "kube.internal") as server:
        stage = Stage(server, tmp_path)
        async with stage.open(TOKEN) as cluster:
            with pytest.raises(ClusterUnavailable, match="certificate verification failed: IP address mismatch"):
                await cluster.get(NODE)
        async with (
            stage.open(TOKEN, **{"tls-server-name": "kube.internal"}) as cluster,
            cluster.tunnel("shop", "it", 80) as websocket,
        ):
            assert await websocket.receive_bytes() == b"\0\x50\0"
            # The tunnel holds its connection: this opens another.
            assert await cluster.get(NODE) == ITEM


async def test_certificate_verification_can_be_disabled(stage: Stage) -> None:
    cluster = {"server": stage.server.address, "insecure-skip-tls-verify": True}
    opened = Cluster(kubeconfig=kubeconfig(stage.folder / "config", cluster, TOKEN))
    assert await opened.get(NODE) == ITEM
    await opened.close()


async def test_proxy_url_applies_to_requests_and_tunnels(stage: Stage) -> None:
    # dXNlcjpwYXNz is user:pass.
    async with Proxy(credentials="Proxy-Authorization: Basic dXNlcjpwYXNz").running() as proxy:
        more = {"server": f"https://kube.internal:{stage.server.port}", "tls-server-name": "127.0.0.1"}
        async with (
            stage.open(TOKEN, **more, **{"proxy-url": f"http://user:pass@127.0.0.1:{proxy.port}"}) as cluster,
            cluster.tunnel("shop", "it", 80) as websocket,
        ):
            assert await websocket.receive_bytes() == b"\0\x50\0"
            # The tunnel holds its connection: this opens another.
            assert await cluster.get(NODE) == ITEM
        assert proxy.targets == [f"kube.internal:{stage.server.port}"] * 2
        async with stage.open(TOKEN, **more, **{"proxy-url": f"http://127.0.0.1:{proxy.port}"}) as cluster:
            with pytest.raises(ClusterUnavailable, match="the proxy responded 407"):
                await cluster.get(NODE)


async def test_proxy_variables_are_used(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Proxy().running() as proxy:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("no_proxy", "example.com")
        async with stage.open(TOKEN) as cluster:
            assert await cluster.get(NODE) == ITEM
        assert proxy.targets == [f"127.0.0.1:{stage.server.port}"]
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        async with stage.open(TOKEN) as cluster:
            assert await cluster.get(NODE) == ITEM
        assert len(proxy.targets) == 1


async def test_netrc_is_ignored(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = stage.folder / "netrc"
    netrc.write_text("default login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    async with stage.open(TOKEN) as cluster:
        assert await cluster.get(NODE) == ITEM


# Objects


async def test_list_by_labels_and_fields(stage: Stage) -> None:
    stage.server.objects["/api/v1/pods"] = {"items": [ITEM]}
    async with stage.open(TOKEN) as cluster:
        assert await cluster.list("/api/v1/pods", "app=a,part in (b, c)", "status.phase!=Failed") == [ITEM]
        assert await cluster.list("/api/v1/pods") == [ITEM]
        assert await cluster.get("/api/v1/pods", limit="1") == {"items": [ITEM]}
    assert [each.query for each in stage.server.requests] == [
        {"labelSelector": "app=a,part in (b, c)", "fieldSelector": "status.phase!=Failed"},
        {},
        {"limit": "1"},
    ]


async def test_patch_content_types_and_dry_run_parameters(stage: Stage) -> None:
    operations = [{"op": "remove", "path": "/spec"}]
    body = {"spec": {"text": "größer"}}
    async with stage.open(TOKEN) as cluster:
        assert await cluster.patch(NODE, body) == body
        await cluster.patch(NODE, body, "strategic")
        await cluster.patch(NODE, body, "apply")
        await cluster.patch(NODE, operations, "json")
        await cluster.patch(NODE, body, "apply", dry_run=True)
        await cluster.patch(NODE, {}, "merge", dry_run=True)
    owner = {"fieldManager": "nomnom"}
    dry = {"dryRun": "All", "fieldValidation": "Strict"}
    user = "token good"
    assert stage.server.requests == [
        Request("PATCH", NODE, owner, "application/merge-patch+json", body, user),
        Request("PATCH", NODE, owner, "application/strategic-merge-patch+json", body, user),
        Request("PATCH", NODE, {**owner, "force": "true"}, "application/apply-patch+yaml", body, user),
        Request("PATCH", NODE, owner, "application/json-patch+json", operations, user),
        Request("PATCH", NODE, {**owner, "force": "true", **dry}, "application/apply-patch+yaml", body, user),
        Request("PATCH", NODE, {**owner, **dry}, "application/merge-patch+json", {}, user),
    ]


async def test_create_and_delete_objects(stage: Stage) -> None:
    async with stage.open(TOKEN) as cluster:
        assert await cluster.create("/api/v1/nodes", ITEM) == ITEM
        assert await cluster.delete(NODE, grace=0)
        assert await cluster.delete(NODE)
        assert not await cluster.delete("/api/v1/nodes/two")
    created, killed, deleted, _ = stage.server.requests
    assert created == Request(
        "POST", "/api/v1/nodes", {"fieldManager": "nomnom"}, "application/json", ITEM, "token good"
    )
    assert killed.query == {"propagationPolicy": "Background", "gracePeriodSeconds": "0"}
    assert deleted.query == {"propagationPolicy": "Background"}


# Errors


async def test_errors_have_status_and_message_of_the_server(stage: Stage) -> None:
    stage.server.statuses[POD] = 403
    async with stage.open(TOKEN) as cluster:
        assert await cluster.find("/api/v1/nodes/two") is None
        with pytest.raises(ClusterRefused, match="nodes/two not found") as missing:
            await cluster.get("/api/v1/nodes/two")
        with pytest.raises(ClusterRefused, match="is not for you") as forbidden:
            await cluster.find(POD)
        with pytest.raises(ClusterRefused, match="not found"):
            await cluster.text("/api/v1/nodes/two")
        with pytest.raises(ClusterRefused, match="not found"):
            await anext(cluster.lines("/api/v1/nodes/two"))
        stage.server.statuses[f"{POD}/portforward"] = 403
        with pytest.raises(ClusterRefused, match=r"no tunnel to shop/it \(HTTP 403\)") as closed:
            async with cluster.tunnel("shop", "it", 80):
                pass
    assert (missing.value.status, forbidden.value.status, closed.value.status) == (404, 403, 403)


async def test_unreachable_server_is_reported(stage: Stage) -> None:
    nowhere = f"https://127.0.0.1:{free_port()}"
    async with stage.open(TOKEN, server=nowhere) as cluster:
        for action in (cluster.get(NODE), cluster.text(NODE), anext(cluster.lines(NODE))):
            with pytest.raises(ClusterUnavailable, match=f"is unavailable at {nowhere}: connection refused"):
                await action
        with pytest.raises(ClusterUnavailable, match="connection refused"):
            async with cluster.tunnel("shop", "it", 80):
                pass
    async with stage.open(TOKEN, server="https://no-such-host.invalid") as cluster:
        with pytest.raises(ClusterUnavailable, match=r"cannot resolve host name no-such-host\.invalid"):
            await cluster.get(NODE)


async def test_unknown_authority_and_timeout_are_reported(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    async with stage.open(TOKEN, **{"certificate-authority-data": inline(Authority().certificate)}) as cluster:
        with pytest.raises(ClusterUnavailable, match="certificate verification failed"):
            await cluster.get(NODE)
    monkeypatch.setattr(api, "TIMEOUT", 0.3)
    async with stage.open(TOKEN) as cluster:
        with pytest.raises(ClusterUnavailable, match="timed out"):
            await cluster.get("/silent")


async def test_recreated_cluster_is_reachable(authority: Authority, tmp_path: Path) -> None:
    async with ApiServer(authority, objects={NODE: ITEM}).running(tmp_path) as first:
        cluster = Cluster(kubeconfig=Stage(first, tmp_path).write(TOKEN))
        assert await cluster.get(NODE) == ITEM
    with pytest.raises(ClusterUnavailable):
        await cluster.get(NODE)
    other = Authority()
    async with ApiServer(other, {"new"}, objects={NODE: ITEM}).running(tmp_path) as second:
        Stage(second, tmp_path).write({"token": "new"})
        assert await cluster.get(NODE) == ITEM
        await cluster.close()


# Logs


async def test_log_is_read_and_invalid_utf_8_is_replaced(stage: Stage) -> None:
    async with stage.open(TOKEN) as cluster:
        text = await cluster.text(f"{POD}/log", tailLines="3")
    assert text == "ä line\nand \N{WHITE HEAVY CHECK MARK}\n\N{REPLACEMENT CHARACTER}\n"
    assert stage.server.requests[0].query == {"tailLines": "3"}


async def test_log_is_followed_without_a_read_timeout(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "TIMEOUT", 0.3)
    long = b"x" * 5_000_000
    async with stage.open(TOKEN) as cluster, aclosing(cluster.lines(f"{POD}/log", follow="true")) as lines:
        await stage.server.log.put(b"one\ntw")
        assert await anext(lines) == "one"
        following = asyncio.ensure_future(anext(lines))
        await asyncio.sleep(0.8)
        assert not following.done()
        await stage.server.log.put(b"o\n\nh\xc3")
        assert await following == "two"
        assert await anext(lines) == ""
        await stage.server.log.put(b"\xa4lf\r\n" + long + b"\nend")
        assert await anext(lines) == "hälf"
        assert len(await anext(lines)) == len(long)
        await stage.server.log.put(None)
        assert [each async for each in lines] == ["end"]


# Port-forwards


@asynccontextmanager
async def forwarded(cluster: Cluster, *pods: str) -> AsyncIterator[tuple[Forward, asyncio.StreamReader, Any]]:
    async def ready() -> list[str]:
        return list(pods)

    forward = Forward(cluster, "shop", 5432, ready, "the database")
    reader, writer = await asyncio.open_connection("127.0.0.1", await forward.open())
    try:
        yield forward, reader, writer
    finally:
        writer.close()
        await forward.close()


async def test_port_forward_transfers_in_both_directions(stage: Stage) -> None:
    async with stage.open(TOKEN) as cluster, forwarded(cluster, "it") as (forward, reader, writer):
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        writer.write(b"big")
        assert await reader.readexactly(BIG) == b"x" * BIG
        writer.write(b"y" * BIG)
        assert await reader.readexactly(BIG) == b"y" * BIG
        assert forward.problem is None
    assert stage.server.requests[0].query == {"ports": "5432"}
    assert stage.server.requests[0].path == f"{POD}/portforward"
    assert stage.server.received == 8 + BIG


async def test_normal_close_is_no_problem_but_an_error_of_the_node_is(stage: Stage) -> None:
    async with stage.open(TOKEN) as cluster:
        async with forwarded(cluster, "it") as (forward, reader, writer):
            writer.write(b"end")
            assert await reader.read() == b""
            assert forward.problem is None
        async with forwarded(cluster, "it") as (forward, reader, writer):
            writer.write(b"fail")
            assert await reader.read() == b""
            assert forward.problem == "the database: the tunnel to it ended: nothing listens there"
        stage.server.statuses[f"{POD}/portforward"] = 404
        async with forwarded(cluster, "it") as (forward, reader, _):
            assert await reader.read() == b""
            assert "no tunnel to shop/it (HTTP 404)" in (forward.problem or "")


# Closing


@pytest.mark.usefixtures("closed_in_order")
async def test_close_releases_all_resources(authority: Authority, tmp_path: Path, own_surroundings: Path) -> None:
    plugin = Plugin(tmp_path)
    pairs = [authority.issue("first"), authority.issue("second")]
    async with ApiServer(authority, objects={NODE: ITEM}).running(tmp_path) as server, Proxy().running() as proxy:
        stage = Stage(server, tmp_path)
        more = {"proxy-url": f"http://127.0.0.1:{proxy.port}"}
        plugin.write({"clientCertificateData": pairs[0].certificate, "clientKeyData": pairs[0].key})
        async with stage.open(plugin.user, **more) as cluster:
            assert await cluster.get(NODE) == ITEM
            plugin.write({"clientCertificateData": pairs[1].certificate, "clientKeyData": pairs[1].key})
            server.statuses[NODE] = 401
            with pytest.raises(ClusterRefused):
                await cluster.get(NODE)
            async with forwarded(cluster, "it") as (_, reader, writer):
                writer.write(b"hello")
                assert await reader.readexactly(5) == b"hello"
            async with aclosing(cluster.lines(f"{POD}/log", follow="true")) as lines:
                await server.log.put(b"one\n")
                assert await anext(lines) == "one"
        with pytest.raises(ClusterUnavailable):
            await Cluster(kubeconfig=tmp_path / "none").get(NODE)
    assert list(own_surroundings.iterdir()) == []


def test_client_libraries_are_imported_on_first_use() -> None:
    modules = (
        "nomnom_tui.app.application",
        "nomnom_control.environments.cluster.environment",
        "nomnom_control.environments.kind.environment",
        "nomnom_control.environments.local.environment",
        "nomnom_control.environments.local.services",
        "nomnom_control.sending.files",
    )
    # None makes the import of these an error.
    program = f"import sys; sys.modules['aiohttp'] = sys.modules['kubernetes'] = None; import {', '.join(modules)}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_documented_versions_match_chart_and_client() -> None:
    root = Path(__file__).parents[2]
    lowest = yaml.safe_load((root / "helm/nomnom/Chart.yaml").read_text())["kubeVersion"]
    highest = metadata.version("kubernetes").split(".")[0]
    minor = lowest.removeprefix(">=1.").removesuffix(".0-0")
    assert f"Kubernetes 1.{minor} to 1.{highest}:" in (root / "docs/clusters.md").read_text()
