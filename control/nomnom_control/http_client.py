"""An HTTP client that reads whole responses and explains failures."""

from __future__ import annotations

import asyncio
import importlib
import io
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from nomnom_control.errors import ControlError

if TYPE_CHECKING:
    import aiohttp


class HttpError(ControlError):
    """A request without a response. The text is only the reason, for example ``connection refused``."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete response. ``headers`` is case-insensitive; ``url`` is the URL after redirects."""

    url: str
    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def text(self) -> str:
        """The content decoded as UTF-8; invalid bytes are replaced."""
        return self.content.decode(errors="replace")


class HttpClient:
    """A pool of connections, opened at the first request; it must be closed.

    ``timeout`` (seconds) limits connecting (unless ``connect`` is given), waiting for data, and the whole request if it
    has content. ``proxies``: use the environment's proxy variables, which must not be used for local addresses and
    port-forwards.
    """

    def __init__(
        self,
        timeout: float,
        *,
        connect: float | None = None,
        headers: Mapping[str, str] | None = None,
        proxies: bool = False,
        redirects: bool = False,
    ) -> None:
        self._timeout, self._connect = timeout, connect or timeout
        self._headers, self._proxies, self._redirects = dict(headers or {}), proxies, redirects
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def get(self, url: str) -> Answer:
        """Send a GET request. Raises HttpError."""
        return await self.request("GET", url)

    async def request(
        self, method: str, url: str, *, content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a request and return the response, whatever its status. Raises HttpError."""
        session = await self._opened()
        import aiohttp

        limits = aiohttp.ClientTimeout(
            # Writing has no limit of its own.
            total=None if content is None else self._timeout,
            connect=self._connect,
            sock_read=self._timeout,
        )
        body = None if content is None else io.BytesIO(content)
        try:
            async with session.request(
                method, url, data=body, headers=headers, timeout=limits, allow_redirects=self._redirects
            ) as response:
                return Answer(str(response.url), response.status, response.headers, await response.read())
        except (aiohttp.ClientError, OSError) as error:
            raise HttpError(reason(error)) from error

    async def close(self) -> None:
        """Close the connections; the next request opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            # The import takes about 0.3 s: do not block the event loop.
            await asyncio.to_thread(importlib.import_module, "aiohttp")
            import aiohttp

            self._session = self._session or aiohttp.ClientSession(headers=self._headers, trust_env=self._proxies)
        return self._session


def reason(error: BaseException) -> str:
    """Why a connection or a request failed, as text."""
    import aiohttp

    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"cannot resolve host name {error.host}"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy responded {error.status} {error.message}"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the server closed the connection without a response"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the connection was closed during the response"
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"certificate verification failed: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):
        return f"TLS failed: {cause.reason or cause}"
    if isinstance(cause, TimeoutError):
        return "timed out"
    if isinstance(cause, OSError) and cause.errno:
        text = os.strerror(cause.errno)
        return text[0].lower() + text[1:]
    return str(error) or type(error).__name__
