"""Kubeconfigs: their contexts, API servers and credentials.

The official client's loader is not used: it leaves private keys in the temporary folder, only logs why an exec plugin
failed, lets the plugin read the terminal, and takes the current context of the last file, not of the first as kubectl.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from nomnom_control.errors import ControlError
from nomnom_control.programs import ProgramError, run_text

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""The folder that Kubernetes mounts into a pod, with its token and the API server's certificate authority."""
_PLUGIN = 30.0


class KubeconfigError(ControlError):
    """A kubeconfig is not valid, does not have the context, or its credentials are not available."""


@dataclass(frozen=True)
class Access:
    """An API server and the credentials for it. Certificates and key are in PEM format."""

    server: str
    authorities: bytes | None = None
    """None: the system's certificate authorities."""
    certificate: bytes | None = None
    key: bytes | None = field(default=None, repr=False)
    authorization: str | None = field(default=None, repr=False)
    """The value of the Authorization header."""
    verify: bool = True
    server_name: str | None = None
    """The expected name in the server's certificate, if it differs from the host in the URL."""
    proxy: str | None = None


class _Cluster(msgspec.Struct, rename="kebab"):
    server: str = ""
    certificate_authority: str | None = None
    certificate_authority_data: str | None = None
    insecure_skip_tls_verify: bool = False
    tls_server_name: str | None = None
    proxy_url: str | None = None


class _Variable(msgspec.Struct):
    name: str
    value: str


class _Plugin(msgspec.Struct, rename="camel"):
    api_version: str
    command: str
    args: list[str] | None = None
    env: list[_Variable] | None = None
    install_hint: str | None = None


class _Provider(msgspec.Struct):
    name: str
    config: dict[str, Any] | None = None


class _User(msgspec.Struct, rename="kebab"):
    client_certificate: str | None = None
    client_certificate_data: str | None = None
    client_key: str | None = None
    client_key_data: str | None = None
    token: str | None = None
    token_file: str | None = msgspec.field(default=None, name="tokenFile")
    username: str | None = None
    password: str | None = None
    exec: _Plugin | None = None
    auth_provider: _Provider | None = None


class _Context(msgspec.Struct):
    cluster: str = ""
    user: str = ""


class _NamedCluster(msgspec.Struct):
    name: str
    cluster: _Cluster | None = None


class _NamedUser(msgspec.Struct):
    name: str
    user: _User | None = None


class _NamedContext(msgspec.Struct):
    name: str
    context: _Context | None = None


class _File(msgspec.Struct):
    current_context: str | None = msgspec.field(default=None, name="current-context")
    contexts: list[_NamedContext] | None = None
    clusters: list[_NamedCluster] | None = None
    users: list[_NamedUser] | None = None


class _Credentials(msgspec.Struct, rename="camel"):
    token: str | None = None
    client_certificate_data: str | None = None
    client_key_data: str | None = None


class _PluginOutput(msgspec.Struct):
    status: _Credentials


class _Found(NamedTuple):
    """Merge several files: the first file with a name takes precedence. Paths are relative to their file."""

    paths: list[Path]
    current: str
    contexts: dict[str, _Context]
    clusters: dict[str, tuple[Path, _Cluster]]
    users: dict[str, tuple[Path, _User]]


def contexts(kubeconfig: Path | None = None) -> list[str]:
    """The names of the contexts of a kubeconfig (by default the user's); none if there is no such file.

    Raises KubeconfigError for a file that is not valid.
    """
    return list(_read(kubeconfig).contexts)


async def read_access(kubeconfig: Path | None, context: str | None) -> Access:
    """Server and credentials of a context (None: the current one). A pod without a kubeconfig uses its service account.

    Runs the context's exec plugin, if it has one. Raises KubeconfigError.
    """
    found = await asyncio.to_thread(_read, kubeconfig)
    if context is None and not found.contexts and (host := os.environ.get("KUBERNETES_SERVICE_HOST")):
        return await asyncio.to_thread(_service_account, host, os.environ.get("KUBERNETES_SERVICE_PORT", "443"))
    files = ", ".join(map(str, found.paths)) or "no file"
    if not (name := context or found.current):
        raise KubeconfigError(f"the kubeconfig ({files}) has no current context; name a context")
    if name not in found.contexts:
        raise KubeconfigError(f"the kubeconfig ({files}) has no context {name!r}")
    chosen = found.contexts[name]
    folder, cluster = found.clusters.get(chosen.cluster, (Path(), _Cluster()))
    if not cluster.server:
        raise KubeconfigError(f"the kubeconfig ({files}) has no server for the context {name!r}")
    access = await asyncio.to_thread(_cluster_access, folder, cluster)
    folder, user = found.users.get(chosen.user, (Path(), _User()))
    if user.exec is not None:
        return await _run_plugin(user.exec, folder, access)
    return await asyncio.to_thread(_user_access, folder, user, access)


def _read(kubeconfig: Path | None) -> _Found:
    import yaml  # imported here, because programs that read no kubeconfig start faster without it

    given = str(kubeconfig) if kubeconfig else os.environ.get("KUBECONFIG") or str(Path("~/.kube/config").expanduser())
    found = _Found([Path(each).absolute() for each in given.split(os.pathsep) if each], "", {}, {}, {})
    for path in found.paths:
        try:
            text = path.read_text(encoding="utf-8")
        except OSError:
            continue
        try:
            file = msgspec.convert(yaml.safe_load(text) or {}, _File)
        except (yaml.YAMLError, msgspec.ValidationError) as error:
            raise KubeconfigError(f"{path} is not a valid kubeconfig: {error}") from error
        found = found._replace(current=found.current or file.current_context or "")
        for each in file.contexts or []:
            found.contexts.setdefault(each.name, each.context or _Context())
        for each in file.clusters or []:
            found.clusters.setdefault(each.name, (path.parent, each.cluster or _Cluster()))
        for each in file.users or []:
            found.users.setdefault(each.name, (path.parent, each.user or _User()))
    return found


def _cluster_access(folder: Path, cluster: _Cluster) -> Access:
    return Access(
        cluster.server.rstrip("/"),
        authorities=_pem(folder, cluster.certificate_authority_data, cluster.certificate_authority),
        verify=not cluster.insecure_skip_tls_verify,
        server_name=cluster.tls_server_name or None,
        proxy=cluster.proxy_url or None,
    )


def _user_access(folder: Path, user: _User, access: Access) -> Access:
    authorization = None
    if user.token_file and not user.token:
        authorization = f"Bearer {_content(folder / user.token_file).decode().strip()}"
    elif user.token:
        authorization = f"Bearer {user.token}"
    elif user.username and user.password:
        authorization = "Basic " + base64.b64encode(f"{user.username}:{user.password}".encode()).decode()
    elif user.auth_provider is not None:
        if user.auth_provider.name != "oidc":
            raise KubeconfigError(f"the auth-provider {user.auth_provider.name} is not supported; use an exec plugin")
        authorization = f"Bearer {(user.auth_provider.config or {}).get('id-token', '')}"
    return replace(
        access,
        certificate=_pem(folder, user.client_certificate_data, user.client_certificate),
        key=_pem(folder, user.client_key_data, user.client_key),
        authorization=authorization,
    )


def _service_account(host: str, port: str) -> Access:
    return Access(
        f"https://{f'[{host}]' if ':' in host else host}:{port}",
        authorities=_content(SERVICE_ACCOUNT / "ca.crt"),
        authorization=f"Bearer {_content(SERVICE_ACCOUNT / 'token').decode().strip()}",
    )


def _pem(folder: Path, data: str | None, file: str | None) -> bytes | None:
    if data:
        try:
            return base64.b64decode(data)
        except binascii.Error as error:
            raise KubeconfigError(f"a certificate or key in the kubeconfig is not valid base64: {error}") from error
    return _content(folder / file) if file else None


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise KubeconfigError(f"cannot read {path}, which the kubeconfig refers to: {error.strerror}") from error


async def _run_plugin(plugin: _Plugin, folder: Path, access: Access) -> Access:
    command = str(folder / plugin.command) if os.sep in plugin.command else plugin.command
    if shutil.which(command) is None:
        hint = f": {plugin.install_hint.strip()}" if plugin.install_hint else ""
        raise KubeconfigError(f"the kubeconfig's exec plugin {command} is not installed{hint}")
    cluster: dict[str, Any] = {"server": access.server, "insecure-skip-tls-verify": not access.verify}
    cluster |= {"tls-server-name": access.server_name} if access.server_name else {}
    cluster |= {"proxy-url": access.proxy} if access.proxy else {}
    if access.authorities:
        cluster["certificate-authority-data"] = base64.b64encode(access.authorities).decode()
    asked = {
        "apiVersion": plugin.api_version,
        "kind": "ExecCredential",
        "spec": {"interactive": False, "cluster": cluster},
    }
    variables = {each.name: each.value for each in plugin.env or []}
    variables["KUBERNETES_EXEC_INFO"] = msgspec.json.encode(asked).decode()
    try:
        output = await run_text([command, *(plugin.args or [])], limit=_PLUGIN, variables=variables)
        found = msgspec.json.decode(output, type=_PluginOutput).status
    except ProgramError as error:
        raise KubeconfigError(f"the kubeconfig's exec plugin failed: {error}") from error
    except msgspec.MsgspecError as error:
        raise KubeconfigError(f"the kubeconfig's exec plugin {command} wrote no ExecCredential: {error}") from error
    certificate, key = found.client_certificate_data, found.client_key_data
    if not found.token and not (certificate and key):
        raise KubeconfigError(f"the kubeconfig's exec plugin {command} returned no token and no certificate with key")
    return replace(
        access,
        certificate=certificate.encode() if certificate and key else None,
        key=key.encode() if certificate and key else None,
        authorization=f"Bearer {found.token}" if found.token else None,
    )
