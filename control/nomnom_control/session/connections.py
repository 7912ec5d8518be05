"""The connection of an operator's session to the API, opened at the first use.

An unavailable server is an ordinary state here: every call has a timeout and raises an :class:`Unavailable` that says
what is unavailable and what to do, and the next call tries again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nomnom.connections.errors import Unavailable
from nomnom_control.errors import ControlError
from nomnom_control.http_client import Answer, HttpClient, HttpError

TIMEOUT = 5.0
"""Default timeout of a call in seconds."""


class ApiUnavailable(Unavailable, ControlError):  # noqa: N818
    """The API is unreachable or does not respond in time."""

    part = "api"


class ApiRefused(ControlError):  # noqa: N818
    """The API responded with an error: its HTTP ``status``, and ``retry_after`` in seconds if the response has it."""

    def __init__(self, text: str, status: int, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.status, self.retry_after = status, retry_after


class Api:
    """The ingest API, over HTTP."""

    def __init__(self, url: str, token: str | None = None, timeout: float = TIMEOUT) -> None:
        self.url = url.rstrip("/")
        self._client = HttpClient(timeout, headers={"Authorization": f"Bearer {token}"} if token else None)

    async def send(
        self, method: str, path: str, *, content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a request. Raises ApiUnavailable if there is no response, and ApiRefused for a status from 400 on."""
        try:
            answer = await self._client.request(method, self.url + path, content=content, headers=headers)
        except HttpError as error:
            raise ApiUnavailable(
                f"the API at {self.url} is unavailable: {error}; check that it is running, then try again", str(error)
            ) from error
        if answer.status >= 400:
            raise _refused(self.url, answer)
        return answer

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def _refused(url: str, answer: Answer) -> ApiRefused:
    problem: Any = None
    if "json" in answer.headers.get("content-type", ""):
        try:
            problem = json.loads(answer.content)
        except ValueError:
            problem = None
    text = answer.text[:200]
    if isinstance(problem, dict):
        text = str(problem.get("detail") or problem.get("title") or text)  # pyright: ignore[reportUnknownArgumentType]
    waiting = answer.headers.get("retry-after", "")
    retry_after = float(waiting) if waiting.replace(".", "", 1).isdigit() else None
    return ApiRefused(f"the API at {url} responded {answer.status}: {text}", answer.status, retry_after)
