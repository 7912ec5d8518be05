"""Whether the api can do what it is for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from blacksheep import Content, Request, Response
from msgspec import json
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError

from nomnom.connections.errors import RequestError
from nomnom.connections.postgres import Database
from nomnom_api.answers import Alive, Check, Readiness
from nomnom_api.errors import UnavailableError

_JSON = b"application/json"
_TIMEOUT = 0.7
"""A probe waits a second by default."""
_KEEP, _KEEP_BAD = 0.5, 0.1
_TABLE = "SELECT FROM message_status LIMIT 1"


class Probe:
    """Answers /health and /ready. What was found is kept for a moment: probes cost the servers next to nothing."""

    def __init__(
        self, stream: str, client: Callable[[], Client], database: Database, stopping: Callable[[], bool]
    ) -> None:
        self._stream, self._client, self._database, self._stopping = stream, client, database, stopping
        self._found: tuple[Check, Check] | None = None
        self._until = 0.0
        self._asking = asyncio.Lock()

    async def health(self, _: Request) -> Response:
        """GET /health: the process runs and answers."""
        return Response(200, None, Content(_JSON, json.encode(Alive("alive"))))

    async def ready(self, _: Request) -> Response:
        """GET /ready. Without the database messages are still taken: that is degraded, and ready."""
        jetstream, database = await self._checks()
        if self._stopping():
            status = "stopping"
        elif not jetstream.ok:
            status = "unavailable"
        else:
            status = "ready" if database.ok else "degraded"
        code = 200 if status in ("ready", "degraded") else 503
        return Response(code, None, Content(_JSON, json.encode(Readiness(status, jetstream, database))))

    async def _checks(self) -> tuple[Check, Check]:
        now = asyncio.get_running_loop().time
        async with self._asking:
            if self._found is None or now() >= self._until:
                self._found = await asyncio.gather(self._jetstream(), self._tables())
                self._until = now() + (_KEEP if all(each.ok for each in self._found) else _KEEP_BAD)
            return self._found

    async def _jetstream(self) -> Check:
        try:
            await self._client().jetstream(timeout=_TIMEOUT).stream_info(self._stream)
        except UnavailableError as error:
            return Check(ok=False, detail=str(error))
        except NotFoundError:
            return Check(ok=False, detail=f"stream {self._stream} does not exist: run nomnom setup")
        except (NatsError, OSError, TimeoutError) as error:
            return Check(ok=False, detail=f"JetStream does not answer: {str(error) or type(error).__name__}")
        return Check(ok=True, detail=f"stream {self._stream} answers")

    async def _tables(self) -> Check:
        try:
            await self._database.fetch_row(_TABLE, within=_TIMEOUT)
        except RequestError as error:
            return Check(ok=False, detail=str(error))
        return Check(ok=True, detail="message_status answers")
