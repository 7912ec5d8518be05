"""The connection of an operator's session to the api, opened at its first use.

An unavailable server is an ordinary state here: every call has a timeout and raises an :class:`Unavailable` that says
what is unavailable and what to do, and the next call tries again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nomnom.connections.errors import Unavailable
from nomnom_control.errors import ControlError

if TYPE_CHECKING:
    import httpx

TIMEOUT = 5.0
"""Seconds that a call may take, where it does not say otherwise."""


class ApiUnavailable(Unavailable, ControlError):  # noqa: N818
    """The api cannot be reached or does not respond in time."""

    part = "api"


class ApiRefused(ControlError):  # noqa: N818
    """The api answered with an error. ``status`` is HTTP's; ``retry_after`` in seconds, where the api gave it."""

    def __init__(self, text: str, status: int, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.status, self.retry_after = status, retry_after


class Api:
    """The ingest API, over HTTP."""

    def __init__(self, url: str, token: str | None = None, timeout: float = TIMEOUT) -> None:
        self.url, self.timeout = url.rstrip("/"), timeout
        self._token = token
        self._client: httpx.AsyncClient | None = None

    async def send(
        self, method: str, path: str, *, content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """Send a request; raises ApiUnavailable where nothing answers and ApiRefused for any status from 400 on."""
        import httpx  # a tenth of a second that a session which never posts does not spend

        if self._client is None:
            authorization = {"Authorization": f"Bearer {self._token}"} if self._token else {}
            # What is asked is on this machine or behind a port-forward: a proxy of the environment is not for it.
            self._client = httpx.AsyncClient(
                base_url=self.url, timeout=self.timeout, headers=authorization, trust_env=False
            )
        try:
            response = await self._client.request(method, path, content=content, headers=dict(headers or {}))
        except httpx.TransportError as error:
            reason = _text(error)
            raise ApiUnavailable(
                f"the api at {self.url} is unavailable: {reason}; check that it runs, then try again", reason
            ) from error
        if response.status_code >= 400:
            raise _refused(self.url, response)
        return response

    async def close(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()


def _refused(url: str, response: httpx.Response) -> ApiRefused:
    problem: Any = None
    if "json" in response.headers.get("content-type", ""):
        try:
            problem = response.json()
        except ValueError:
            problem = None
    said = response.text[:200]
    if isinstance(problem, dict):
        said = str(problem.get("detail") or problem.get("title") or said)  # pyright: ignore[reportUnknownArgumentType]
    waiting = response.headers.get("retry-after", "")
    retry_after = float(waiting) if waiting.replace(".", "", 1).isdigit() else None
    return ApiRefused(f"the api at {url} answered {response.status_code}: {said}", response.status_code, retry_after)


def _text(error: BaseException) -> str:
    return (str(error) or type(error).__name__).removeprefix("nats: ")
