"""The connection of an operator's session to the api, opened at its first use.

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
        self.url = url.rstrip("/")
        self._client = HttpClient(timeout, headers={"Authorization": f"Bearer {token}"} if token else None)

    async def send(
        self, method: str, path: str, *, content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a request; raises ApiUnavailable if nothing answers and ApiRefused for any status from 400 on."""
        try:
            answer = await self._client.request(method, self.url + path, content=content, headers=headers)
        except HttpError as error:
            raise ApiUnavailable(
                f"the api at {self.url} is unavailable: {error}; check that it runs, then try again", str(error)
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
    said = answer.text[:200]
    if isinstance(problem, dict):
        said = str(problem.get("detail") or problem.get("title") or said)  # pyright: ignore[reportUnknownArgumentType]
    waiting = answer.headers.get("retry-after", "")
    retry_after = float(waiting) if waiting.replace(".", "", 1).isdigit() else None
    return ApiRefused(f"the api at {url} answered {answer.status}: {said}", answer.status, retry_after)
