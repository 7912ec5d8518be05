"""The API server of one cluster: objects, log streams and tunnels to pods.

kr8s brings the kubeconfig, every way to log in, and the sessions: it is asynchronous from the ground, websockets
included, where the official client blocks. Its object classes are not used: plain JSON is enough for what is read here.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from nomnom.connections.errors import Unavailable
from nomnom_control.errors import ControlError

if TYPE_CHECKING:
    import httpx
    from httpx_ws import AsyncWebSocketSession

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
"""Seconds that one request may take."""
_MESSAGE = 4 * 1024 * 1024
_OWNER = "nomnom"


class ClusterUnavailable(Unavailable, ControlError):  # noqa: N818
    """The API server does not answer, or the kubeconfig does not say where it is."""

    part = "cluster"


class ClusterRefused(ControlError):  # noqa: N818
    """The API server answered with an error. ``status`` is HTTP's."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class Cluster:
    """One context of a kubeconfig. It connects at its first use, and again after it was closed."""

    def __init__(self, context: str | None = None, kubeconfig: Path | None = None) -> None:
        self.context, self.kubeconfig = context, kubeconfig
        self._api: Any = None
        self._stale = False
        self._opening = asyncio.Lock()

    @property
    def title(self) -> str:
        """The context, for people."""
        return self.context or "the current context"

    async def get(self, path: str, **parameters: str) -> Object:
        """One object, or a list with its ``items``; raises ClusterUnavailable or ClusterRefused."""
        return await self._send("GET", path, parameters)

    async def find(self, path: str) -> Object | None:
        """One object, None where there is none."""
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
        self, path: str, body: Mapping[str, Any] | Sequence[Any], kind: PatchKind = "merge", *, trial: bool = False
    ) -> Object:
        """Change an object; ``apply`` makes it where it is missing and takes over what others own.

        A ``trial`` changes nothing, and refuses every field that the kind does not have.
        """
        parameters = {"fieldManager": _OWNER} | ({"force": "true"} if kind == "apply" else {})
        parameters |= {"dryRun": "All", "fieldValidation": "Strict"} if trial else {}
        return await self._send("PATCH", path, parameters, body, _PATCHES[kind])

    async def create(self, path: str, body: Mapping[str, Any]) -> Object:
        """Make an object under a path."""
        return await self._send("POST", path, {"fieldManager": _OWNER}, body)

    async def delete(self, path: str, *, grace: int | None = None) -> bool:
        """Remove an object and what it owns; whether it was there. ``grace``: seconds that a pod gets, 0 kills it."""
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
        """What the API server answers as text: a log, for example."""
        import httpx

        api = await self._connected()
        with self._errors():
            async with api.call_api("GET", **_place(path), params=parameters, timeout=TIMEOUT) as response:
                assert isinstance(response, httpx.Response)
                return response.text

    async def lines(self, path: str, **parameters: str) -> AsyncGenerator[str, None]:
        """Lines of an endless answer, until it ends or the iterator is closed."""
        import httpx

        api = await self._connected()
        forever = httpx.Timeout(TIMEOUT, read=None)
        with self._errors():
            async with api.call_api("GET", **_place(path), params=parameters, timeout=forever, stream=True) as response:
                async for line in response.aiter_lines():
                    yield line

    @asynccontextmanager
    async def tunnel(self, namespace: str, pod: str, port: int) -> AsyncGenerator[AsyncWebSocketSession, None]:
        """A websocket of the pod's port-forward subresource: frames of a channel byte (0 data, 1 error) and bytes."""
        api = await self._connected()
        with self._errors():
            async with api.open_websocket(
                **_place(f"/api/v1/namespaces/{namespace}/pods/{pod}/portforward"),
                params={"ports": str(port)},
                subprotocols=["v4.channel.k8s.io"],
                max_message_size_bytes=_MESSAGE,
            ) as websocket:
                yield websocket

    async def close(self) -> None:
        """Close the session."""
        async with self._opening:
            await self._drop()

    async def _drop(self) -> None:
        api, self._api, self._stale = self._api, None, False
        session: httpx.AsyncClient | None = None if api is None else vars(api).get("_session")
        if session is not None:
            # kr8s has no way to close.
            await session.aclose()

    async def _send(
        self,
        method: str,
        path: str,
        parameters: Mapping[str, str],
        body: Mapping[str, Any] | Sequence[Any] | None = None,
        form: str = "application/json",
    ) -> Object:
        api = await self._connected()
        more: dict[str, Any] = {}
        if body is not None:
            more = {"content": json.dumps(body), "headers": {"content-type": form}}
        with self._errors():
            async with api.call_api(method, **_place(path), params=parameters, timeout=TIMEOUT, **more) as response:
                return response.json()

    async def _connected(self) -> Any:
        async with self._opening:
            if self._stale:
                # The kubeconfig is read again: a cluster that was made anew is elsewhere, with other certificates.
                await self._drop()
            if self._api is None:
                # Its libraries take most of a second: the loop goes on meanwhile.
                kr8s = await asyncio.to_thread(_load)
                given = str(self.kubeconfig) if self.kubeconfig else None
                with self._errors():
                    async with asyncio.timeout(TIMEOUT):
                        self._api = await kr8s.api(kubeconfig=given, context=self.context)
            return self._api

    @contextmanager
    def _errors(self) -> Generator[None, None, None]:
        import httpx
        import httpx_ws
        import kr8s

        try:
            yield
        except kr8s.ServerError as error:
            response = error.response
            status = response.status_code if response is not None else 500
            raise ClusterRefused(f"{self.title}: {_said(error)}", status) from error
        except httpx_ws.WebSocketUpgradeError as error:
            status = error.response.status_code
            raise ClusterRefused(f"{self.title}: no tunnel (HTTP {status})", status) from error
        except (httpx.TransportError, kr8s.APITimeoutError, TimeoutError, ssl.SSLError, OSError) as error:
            self._stale = isinstance(error, (httpx.ConnectError, ssl.SSLError))
            reason = str(error) or type(error).__name__
            raise ClusterUnavailable(f"the cluster {self.title} is away: {reason}; check that it runs") from error
        except ValueError as error:
            raise ClusterUnavailable(f"the kubeconfig does not lead to {self.title}: {error}") from error


def _load() -> Any:
    import kr8s.asyncio

    return kr8s.asyncio


def _place(path: str) -> dict[str, str]:
    """A path as kr8s builds it again."""
    first, _, rest = path.removeprefix("/").partition("/")
    return {"version": "", "base": f"/{first}", "url": rest}


def _said(error: Any) -> str:
    status = error.status
    if isinstance(status, dict) and "message" in status:
        return str(status["message"])  # pyright: ignore[reportUnknownArgumentType]
    response = error.response
    return str(error) if response is None else f"HTTP {response.status_code}: {response.text[:300]}"


def contexts(kubeconfig: Path | None = None) -> list[str]:
    """The names of the contexts of a kubeconfig (by default the user's); none where there is no such file."""
    import os

    import yaml

    given = str(kubeconfig) if kubeconfig else os.environ.get("KUBECONFIG") or str(Path("~/.kube/config").expanduser())
    names: list[str] = []
    for each in given.split(os.pathsep):
        try:
            text = Path(each).read_text(encoding="utf-8")
        except OSError:
            continue
        try:
            found: Any = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ControlError(f"{each} is no kubeconfig: {error}") from error
        names += [str(one["name"]) for one in (found or {}).get("contexts") or []]
    return list(dict.fromkeys(names))
