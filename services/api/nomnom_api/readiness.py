"""Liveness and readiness of the API."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from blacksheep import Content, Request, Response
from msgspec import json
from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError

from nomnom.connections.errors import RequestError
from nomnom.connections.monitor import read_all
from nomnom.connections.postgres import Database
from nomnom.settings import ApiSettings
from nomnom_api.answers import Alive, Check, Readiness
from nomnom_api.errors import UnavailableError
from nomnom_api.publisher import Publisher

_JSON = b"application/json"
_TIMEOUT = 0.7
"""Below the default timeout of a Kubernetes probe, 1 s."""
_MONITOR = 0.2
_CACHE, _CACHE_FAILURE = 0.5, 0.1
_TABLE = "SELECT FROM message_status LIMIT 1"


class Probe:
    """Serves /health and /ready. Results are cached briefly, so that probes put no load on the servers."""

    def __init__(
        self, settings: ApiSettings, publisher: Publisher, database: Database, stopping: Callable[[], bool]
    ) -> None:
        self._stream, self._monitor = settings.nats_stream, settings.nats_monitor_url
        self._publisher, self._database, self._stopping = publisher, database, stopping
        self._found: tuple[Check, Check] | None = None
        self._until = 0.0
        self._asking = asyncio.Lock()

    async def health(self, _: Request) -> Response:
        """GET /health: the process is running."""
        return Response(200, None, Content(_JSON, json.encode(Alive("alive"))))

    async def ready(self, _: Request) -> Response:
        """GET /ready. Without PostgreSQL messages are still accepted: degraded, but ready."""
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
                self._until = now() + (_CACHE if all(each.ok for each in self._found) else _CACHE_FAILURE)
            return self._found

    async def _jetstream(self) -> Check:
        try:
            await self._publisher.client().jetstream(timeout=_TIMEOUT).stream_info(self._stream)
        except UnavailableError as error:
            return Check(ok=False, detail=str(error))
        except NotFoundError:
            return Check(ok=False, detail=f"stream {self._stream} does not exist; run nomnom setup")
        except (NatsError, OSError, TimeoutError) as error:
            return Check(ok=False, detail=f"JetStream is unavailable: {str(error) or type(error).__name__}")
        if problem := await self._problem():
            return Check(ok=False, detail=problem)
        return Check(ok=True, detail=f"stream {self._stream} is available")

    async def _problem(self) -> str | None:
        """Why the stream stores nothing although it responds; None if that is not known."""
        found = await read_all(self._monitor, _MONITOR)
        # If only some servers cannot write, another one leads the stream.
        if found and all(each.cannot_write for each in found):
            return f"nats-server cannot write: {found[0].problem}"
        return self._publisher.silence.problem(asyncio.get_running_loop().time())

    async def _tables(self) -> Check:
        try:
            await self._database.fetch_row(_TABLE, within=_TIMEOUT)
        except RequestError as error:
            return Check(ok=False, detail=str(error))
        return Check(ok=True, detail="table message_status is available")
