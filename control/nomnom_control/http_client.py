"""HTTP requests whose answers are read to the end and whose failures have a reason in words."""

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
    """A request that got no answer. The text is the reason alone, for example ``connection refused``."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. ``headers`` ignores case; ``url`` is the address after redirects."""

    url: str
    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def text(self) -> str:
        """The content as UTF-8; bytes that are not are replaced."""
        return self.content.decode(errors="replace")


class HttpClient:
    """A pool of connections. It opens at the first request and has to be closed.

    ``timeout``: seconds that connecting may take (unless ``connect`` is given), that the server may stay silent, and
    that a request with content may take in all. ``proxies``: use the environment's proxy variables, which are wrong for
    an address on this machine or at a port-forward.
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
        """Get an address; raises HttpError."""
        return await self.request("GET", url)

    async def request(
        self, method: str, url: str, *, content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a request and return its answer, whatever the status; raises HttpError."""
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
            # It takes about a third of a second: the loop goes on meanwhile.
            await asyncio.to_thread(importlib.import_module, "aiohttp")
            import aiohttp

            self._session = self._session or aiohttp.ClientSession(headers=self._headers, trust_env=self._proxies)
        return self._session


def reason(error: BaseException) -> str:
    """Why a connection or a request failed, in words."""
    import aiohttp

    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"the host name {error.host} cannot be resolved"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy refused: {error.status} {error.message}"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the server closed the connection without an answer"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the connection ended in the middle of the answer"
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate was not accepted: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):
        return f"TLS failed: {cause.reason or cause}"
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    if isinstance(cause, OSError) and cause.errno:
        text = os.strerror(cause.errno)
        return text[0].lower() + text[1:]
    return str(error) or type(error).__name__
