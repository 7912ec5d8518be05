"""The connections of an operator's session to NATS and the api, each opened at its first use.

A server that is away is an ordinary state here: every call has a timeout, raises an :class:`Unavailable` that says
what is away and what to do, and the next call tries again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from nomnom.connections.errors import NatsUnavailable, NotSetUp, Unavailable
from nomnom.settings import without_secrets
from nomnom.tasks import end
from nomnom_control.errors import ControlError
from nomnom_control.http_client import Answer, HttpClient, HttpError

TIMEOUT = 5.0
"""Seconds that a call may take, where it does not say otherwise."""
_CONNECT_TIMEOUT = 3.0


class ApiUnavailable(Unavailable):
    """The api does not answer."""

    part = "api"


class ApiRefused(ControlError):  # noqa: N818
    """The api answered with an error. ``status`` is HTTP's; ``retry_after`` in seconds, where the api gave it."""

    def __init__(self, text: str, status: int, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.status, self.retry_after = status, retry_after


class NatsConnection:
    """One client that reconnects by itself. Nothing is sent while it is not connected."""

    def __init__(self, url: str, timeout: float = TIMEOUT) -> None:
        self.url, self.timeout = url, timeout
        self.problem: str | None = None
        """Why NATS is away, as far as it is known; None while connected, or before the first try."""
        self._client: Client | None = None
        self._opening = asyncio.Lock()

    @property
    def connected(self) -> bool:
        """Whether NATS can be asked now."""
        return self._client is not None and self._client.is_connected

    async def client(self) -> Client:
        """The connected client; raises NatsUnavailable."""
        async with self._opening:
            if self._client is not None and self._client.is_closed:
                self._client = None
            if self._client is None:
                self._client = await self._connect()
        if not self._client.is_connected:
            raise self.unavailable(self.problem or "the connection broke; it is being made again")
        return self._client

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        *,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
        nobody: str = "JetStream is not enabled there",
    ) -> Msg:
        """Send a request and return the answer; raises NatsUnavailable, or NotSetUp(``nobody``) where nothing
        responds.
        """
        client = await self.client()
        limit = timeout or self.timeout
        try:
            return await client.request(subject, payload, timeout=limit, headers=dict(headers) if headers else None)
        except nats.errors.NoRespondersError as error:
            raise NotSetUp(f"{nobody} (NATS at {without_secrets(self.url)})") from error
        except nats.errors.MaxPayloadError as error:
            raise ControlError(f"{len(payload):,} bytes are more than NATS takes in one message") from error
        except nats.errors.TimeoutError as error:
            raise self.unavailable(f"no answer in {limit:g} s") from error
        except (nats.errors.Error, OSError) as error:
            raise self.unavailable(_text(error)) from error

    def unavailable(self, reason: str) -> NatsUnavailable:
        """The error that says NATS is away, why, and what to do."""
        return NatsUnavailable(
            f"NATS at {without_secrets(self.url)} is away: {reason}; check that it runs, then try again"
        )

    async def close(self) -> None:
        """Close the client."""
        async with self._opening:
            client, self._client = self._client, None
        if client is not None:
            await _close(client)

    async def _connect(self) -> Client:
        client = Client()
        failed: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

        async def on_error(error: Exception) -> None:
            self.problem = _text(error)
            if not failed.done():
                failed.set_result(error)

        async def on_reconnect() -> None:
            self.problem = None

        connecting = asyncio.ensure_future(
            client.connect(
                self.url,
                name="nomnom-control",
                connect_timeout=int(_CONNECT_TIMEOUT),
                max_reconnect_attempts=-1,
                reconnect_time_wait=1,
                error_cb=on_error,
                reconnected_cb=on_reconnect,
            )
        )
        # nats-py would try for ever: the first failed attempt is an answer, and the caller decides when to try again.
        try:
            await asyncio.wait({connecting, failed}, timeout=_CONNECT_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
            if connecting.done() and connecting.exception() is None:
                failed.cancel()
                self.problem = None
                return client
            reason = _text(failed.result()) if failed.done() else f"no connection in {_CONNECT_TIMEOUT:g} s"
            self.problem = reason
            raise self.unavailable(reason)
        finally:
            if not connecting.done() or connecting.cancelled() or connecting.exception() is not None:
                await end(connecting)
                await _close(client)


async def _close(client: Client) -> None:
    try:
        await client.close()
    except (nats.errors.Error, OSError):
        # What is closed is already broken; there is nothing left to do with it.
        return


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
                f"the api at {self.url} is away: {error}; check that it runs, then try again"
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


def _text(error: BaseException) -> str:
    return (str(error) or type(error).__name__).removeprefix("nats: ")
