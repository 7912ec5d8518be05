"""The API server of one cluster: objects, log streams and tunnels to pods.

Of the official client only its transport is used: plain JSON is enough here, and its typed objects take time and
memory. The websockets are opened here, because the client ignores the TLS server name and the proxy for them.
"""

from __future__ import annotations

import asyncio
import importlib
import ssl
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import msgspec

from nomnom.connections.errors import Unavailable
from nomnom_control.environments.cluster.kubeconfig import Access, KubeconfigError, read_access
from nomnom_control.errors import ControlError
from nomnom_control.http_client import reason

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientTimeout, ClientWebSocketResponse
    from kubernetes.aio.client.api_client import ApiClient

Object: TypeAlias = dict[str, Any]
"""A Kubernetes object as JSON."""
PatchKind: TypeAlias = Literal["merge", "strategic", "apply", "json"]
_PATCHES = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
    "json": "application/json-patch+json",
}
TIMEOUT = 15.0
"""Timeout in seconds for connecting and for waiting for data."""
_MESSAGE = 16 * 1024 * 1024
_PING = 40.0
_GOODBYE = 1.0
_OWNER = "nomnom"
_T = TypeVar("_T")


class ClusterUnavailable(Unavailable, ControlError):  # noqa: N818
    """The API server does not respond, or the kubeconfig does not refer to one."""

    part = "cluster"


class ClusterRefused(ControlError):  # noqa: N818
    """The API server responded with an error and this HTTP ``status``."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class _Session:
    access: Access
    client: ApiClient


class Cluster:
    """One context of a kubeconfig. It connects at its first use, and again after it was closed."""

    def __init__(self, context: str | None = None, kubeconfig: Path | None = None) -> None:
        self.context, self.kubeconfig = context, kubeconfig
        self._session: _Session | None = None
        self._replaced: list[ApiClient] = []
        self._stale = False
        self._opening = asyncio.Lock()

    @property
    def title(self) -> str:
        """The context, as shown to users."""
        return self.context or "the current context"

    async def get(self, path: str, **parameters: str) -> Object:
        """One object, or a list with its ``items``; raises ClusterUnavailable or ClusterRefused."""
        return await self._send("GET", path, parameters)

    async def find(self, path: str) -> Object | None:
        """One object, None if there is none."""
        try:
            return await self.get(path)
        except ClusterRefused as error:
            if error.status == 404:
                return None
            raise

    async def list(self, path: str, selector: str = "", fields: str = "") -> list[Object]:
        """The objects under a path that labels and fields select."""
        parameters = {"labelSelector": selector, "fieldSelector": fields}
        found = await self.get(path, **{name: value for name, value in parameters.items() if value})
        return list(found.get("items") or [])

    async def patch(
        self, path: str, body: Mapping[str, Any] | Sequence[Any], kind: PatchKind = "merge", *, dry_run: bool = False
    ) -> Object:
        """Change an object; ``apply`` creates it if it does not exist, and takes over fields that others own.

        A ``dry_run`` changes nothing, and rejects every field that the kind does not have.
        """
        parameters = {"fieldManager": _OWNER} | ({"force": "true"} if kind == "apply" else {})
        parameters |= {"dryRun": "All", "fieldValidation": "Strict"} if dry_run else {}
        return await self._send("PATCH", path, parameters, body, _PATCHES[kind])

    async def create(self, path: str, body: Mapping[str, Any]) -> Object:
        """Create an object under a path."""
        return await self._send("POST", path, {"fieldManager": _OWNER}, body)

    async def delete(self, path: str, *, grace: int | None = None) -> bool:
        """Delete an object and what it owns; whether it existed. ``grace``: seconds that a pod gets, 0 kills it."""
        parameters = {"propagationPolicy": "Background"}
        if grace is not None:
            parameters["gracePeriodSeconds"] = str(grace)
        try:
            await self._send("DELETE", path, parameters)
        except ClusterRefused as error:
            if error.status == 404:
                return False
            raise
        return True

    async def text(self, path: str, **parameters: str) -> str:
        """A response as text, such as a log."""
        async with self._response("GET", path, parameters) as response:
            return (await response.read()).decode(errors="replace")

    async def lines(self, path: str, **parameters: str) -> AsyncGenerator[str, None]:
        """Lines of a streamed response, until it ends or the iterator is closed."""
        async with self._response("GET", path, parameters, endless=True) as response:
            partial: list[bytes] = []
            async for chunk in response.content.iter_any():
                *ended, rest = chunk.split(b"\n")
                for each in ended:
                    yield b"".join([*partial, each]).decode(errors="replace").removesuffix("\r")
                    partial = []
                partial.append(rest)
            if any(partial):
                yield b"".join(partial).decode(errors="replace")

    @asynccontextmanager
    async def tunnel(self, namespace: str, pod: str, port: int) -> AsyncGenerator[ClientWebSocketResponse, None]:
        """A websocket of the pod's port-forward subresource: frames of a channel byte (0 data, 1 error) and bytes."""
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/portforward"

        async def connect(session: _Session) -> ClientWebSocketResponse:
            import aiohttp

            client = session.client
            _, url, headers, _, _ = await client.param_serialize(
                "GET", path, query_params=[("ports", str(port))], auth_settings=["BearerToken"]
            )
            pool = client.rest_client.pool_manager
            assert pool is not None
            try:
                async with asyncio.timeout(TIMEOUT):
                    return await pool.ws_connect(
                        url,
                        headers=headers,
                        protocols=["v4.channel.k8s.io"],
                        proxy=client.configuration.proxy,
                        server_hostname=client.configuration.tls_server_name,
                        max_msg_size=_MESSAGE,
                        heartbeat=_PING,
                        timeout=aiohttp.ClientWSTimeout(ws_close=_GOODBYE),  # pyright: ignore[reportCallIssue]
                    )
            except aiohttp.WSServerHandshakeError as error:
                text = f"{self.title}: no tunnel to {namespace}/{pod} (HTTP {error.status})"
                raise ClusterRefused(text, error.status) from error

        _, websocket = await self._attempt(connect)
        async with websocket:
            yield websocket

    async def close(self) -> None:
        """Close the connections."""
        async with self._opening:
            await self._drop()

    async def _send(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, str],
        body: Mapping[str, Any] | Sequence[Any] | None = None,
        form: str = "application/json",
    ) -> Object:
        async with self._response(method, path, parameters, body, form) as response:
            content = await response.read()
        try:
            return msgspec.json.decode(content, type=dict[str, Any])
        except msgspec.MsgspecError as error:
            raise ClusterUnavailable(f"{response.url.host} is not a Kubernetes API server: {error}") from error

    @asynccontextmanager
    async def _response(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, str],
        body: Mapping[str, Any] | Sequence[Any] | None = None,
        form: str = "application/json",
        *,
        endless: bool = False,
    ) -> AsyncGenerator[ClientResponse, None]:
        async def send(session: _Session) -> ClientResponse:
            client = session.client
            _, url, headers, _, _ = await client.param_serialize(
                method,
                path,
                query_params=list(parameters.items()),
                header_params={"Content-Type": form},
                auth_settings=["BearerToken"],
            )
            given = dict(body) if isinstance(body, Mapping) else body if body is None else list(body)
            answer = await client.call_api(method, url, headers, given, _request_timeout=_limits(endless=endless))
            response: ClientResponse = answer.response
            if response.status >= 400:
                async with response:
                    said = _said(response.status, await response.read())
                raise ClusterRefused(f"{self.title}: {said}", response.status)
            return response

        session, response = await self._attempt(send)
        with self._errors(session):
            async with response:
                yield response

    async def _attempt(self, act: Callable[[_Session], Awaitable[_T]]) -> tuple[_Session, _T]:
        """Do this with the session, and once more with new credentials if the API server rejects the present ones."""
        session = await self._connected()
        try:
            with self._errors(session):
                return session, await act(session)
        except ClusterRefused as error:
            if error.status != 401 or not await self._renewed(session):
                raise
        session = await self._connected()
        with self._errors(session):
            return session, await act(session)

    async def _connected(self) -> _Session:
        async with self._opening:
            if self._stale:
                # The kubeconfig is read again: a cluster that was recreated has another address and certificates.
                await self._drop()
            if self._session is None:
                self._session = await self._opened(await self._access())
            return self._session

    async def _renewed(self, rejected: _Session) -> bool:
        """Whether there are other credentials than those that were rejected."""
        async with self._opening:
            if self._session is not rejected:
                return True
            access = await self._access()
            if access == rejected.access:
                return False
            if replace(access, authorization=rejected.access.authorization) == rejected.access:
                # Tokens expire within minutes: log streams and tunnels stay open.
                _authorize(rejected.client, access)
                self._session = replace(rejected, access=access)
            else:
                self._session = await self._opened(access)
                self._replaced.append(rejected.client)
            return True

    async def _access(self) -> Access:
        try:
            return await read_access(self.kubeconfig, self.context)
        except KubeconfigError as error:
            raise ClusterUnavailable(str(error)) from error

    async def _opened(self, access: Access) -> _Session:
        # The client takes about a second: the event loop continues to run.
        await asyncio.to_thread(importlib.import_module, "kubernetes.aio.client.api_client")
        try:
            return _Session(access, _client(access))
        except (ssl.SSLError, ValueError) as error:
            raise ClusterUnavailable(f"the credentials of {self.title} are not valid: {error}") from error

    async def _drop(self) -> None:
        session, self._session, self._stale = self._session, None, False
        clients, self._replaced = [*self._replaced, *([session.client] if session else [])], []
        for each in clients:
            await each.close()

    @contextmanager
    def _errors(self, session: _Session) -> Generator[None, None, None]:
        import aiohttp

        try:
            yield
        except (aiohttp.ClientError, OSError) as error:
            lost = isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError, ssl.SSLError))
            if lost and self._session is not None and self._session.client is session.client:
                self._stale = True
            raise ClusterUnavailable(
                f"the cluster {self.title} is unavailable at {session.access.server}: {reason(error)}; "
                "check that it runs and that the kubeconfig is current"
            ) from error


def _client(access: Access) -> ApiClient:
    import aiohttp
    from kubernetes.aio.client.api_client import ApiClient
    from kubernetes.aio.client.configuration import Configuration

    configuration = Configuration(
        host=access.server,
        ca_cert_data=access.authorities.decode() if access.authorities else None,
        verify_ssl=access.verify,
        tls_server_name=access.server_name,
        proxy=access.proxy or _environment_proxy(access.server),
    )
    # Certificate authorities that lack what RFC 5280 requires are common in clusters, and kubectl accepts them.
    configuration.disable_strict_ssl_verification = True
    client = ApiClient(configuration)
    client.user_agent = "nomnom"
    _authorize(client, access)
    context = client.rest_client.ssl_context
    if access.certificate and access.key:
        _load_certificate(context, access.certificate, access.key)
    # There is no limit of connections: each tunnel and each followed log holds one for as long as it is open.
    # The client's own session reads netrc too, and fails if that has credentials for the host beside the token.
    client.rest_client.pool_manager = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=context), timeout=_limits(endless=True)
    )
    return client


def _authorize(client: ApiClient, access: Access) -> None:
    client.configuration.api_key = {"BearerToken": access.authorization} if access.authorization else {}


def _load_certificate(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Load a client certificate, which OpenSSL takes from files alone: from two that have no name and end with this."""
    with tempfile.TemporaryFile() as first, tempfile.TemporaryFile() as second:
        for file, content in ((first, certificate), (second, key)):
            file.write(content)
            file.seek(0)
        # Without a password OpenSSL would ask for one on the terminal.
        context.load_cert_chain(f"/dev/fd/{first.fileno()}", f"/dev/fd/{second.fileno()}", password="")


def _environment_proxy(server: str) -> str | None:
    place = urlsplit(server)
    return None if proxy_bypass(place.netloc) else getproxies().get(place.scheme)


def _limits(*, endless: bool) -> ClientTimeout:
    import aiohttp

    return aiohttp.ClientTimeout(total=None, connect=TIMEOUT, sock_read=None if endless else TIMEOUT)


def _said(status: int, content: bytes) -> str:
    try:
        return str(msgspec.json.decode(content, type=dict[str, Any])["message"])
    except (msgspec.MsgspecError, KeyError):
        return f"HTTP {status}: {content.decode(errors='replace')[:300]}"
