"""The BlackSheep application: routes from the operations, access, problems, metrics, the docs page and the page."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import parse_qs

import msgspec
from blacksheep import Application, Content, Request, Response, StreamedContent
from blacksheep.server.routing import Router
from openapi_ui_bundles import swagger_ui

from nomnom.connections.errors import RequestError
from nomnom.connections.nats import NatsConnection
from nomnom.connections.postgres import Database
from nomnom.grammar import Grammar
from nomnom.inspection.dead_letters import DeadLetterIndex
from nomnom.inspection.entities import Entities
from nomnom.inspection.jetstream import JetStream
from nomnom.problems import MEDIA_TYPE, problem_details
from nomnom.schema import load_schema
from nomnom.settings import SettingsError
from nomnom.telemetry import logger
from nomnom_dashboard.access import Access
from nomnom_dashboard.answers import Alive, Health, Snapshot
from nomnom_dashboard.broadcast import Broadcast
from nomnom_dashboard.errors import DashboardError, InvalidQueryError, UnauthorizedError, http_error
from nomnom_dashboard.messages import Messages
from nomnom_dashboard.openapi import document
from nomnom_dashboard.operations import OPERATIONS, Operation, Sources, entity_operations
from nomnom_dashboard.overview import Overview
from nomnom_dashboard.queries import read_query
from nomnom_dashboard.settings import DashboardSettings
from nomnom_dashboard.telemetry import CONTENT_TYPE, Metrics

Answer = Callable[[Request], Awaitable[Response]]
_JSON = b"application/json"
_HTML = b"text/html; charset=utf-8"
_DOCS = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>nomnom dashboard: query API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
_DOCS_START = b'SwaggerUIBundle({url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null});\n'
_DOCS_ASSETS = {"swagger-ui.css": b"text/css; charset=utf-8", "swagger-ui-bundle.js": b"text/javascript; charset=utf-8"}
_PAGE_POLICY = (
    b"default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
    b"frame-ancestors 'none'; base-uri 'self'"
)
_NOT_BUILT = "the page is not built: run npm ci && npm run build in services/dashboard/web; the API is below /api"
_BESIDE = {".js": b"text/javascript; charset=utf-8", ".svg": b"image/svg+xml", ".png": b"image/png"}
_INGEST = b"/api/ingest/"
_NO_API = "records are taken by the ingest api, and none is ready at this address: send it again, or ask the api's own"
_YEAR = 365 * 24 * 60 * 60
_NATS_TIMEOUT = 3.0
_PATIENCE = 5.0
"""Seconds, beyond those of a query, to connect to a server that is slow to answer."""
_log = logger(__name__)


class Dashboard:
    """One process's dashboard: what it asks, what it sends, and the application that serves it."""

    def __init__(self, settings: DashboardSettings) -> None:
        schema = load_schema(settings.nomnom_schema)
        self.settings = settings
        self.database = Database(
            settings.database_url,
            application="nomnom-dashboard",
            connections=settings.nomnom_dashboard_connections,
            seconds=settings.nomnom_dashboard_query_seconds,
            within=settings.nomnom_dashboard_query_seconds + _PATIENCE,
            read_only=True,
        )
        self.nats = NatsConnection(
            settings.nats_url,
            "nomnom-dashboard",
            inbox_prefix=settings.nats_inbox_prefix,
            timeout=_NATS_TIMEOUT,
            log=_log,
        )
        self.broadcast = Broadcast()
        self.metrics = Metrics()
        self.metrics.watch_clients(lambda: self.broadcast.clients)
        self.access = Access(settings.tokens, settings.credentials)
        if self.access.open and settings.nomnom_dashboard_auth_required:
            raise SettingsError(
                "NOMNOM_DASHBOARD_AUTH_REQUIRED: neither NOMNOM_DASHBOARD_TOKENS nor NOMNOM_DASHBOARD_USER and "
                "NOMNOM_DASHBOARD_PASSWORD are set: everyone would be let in"
            )
        self.stopping = False
        jetstream, streams = JetStream(self.nats), settings.streams
        messages = Messages(self.database, jetstream, streams, schema)
        dead_letters = DeadLetterIndex(
            jetstream, streams.dead_stream, limit=settings.nomnom_dashboard_letters, payloads=0
        )
        overview = Overview(
            self.database,
            jetstream,
            streams,
            schema,
            messages,
            dead_letters=dead_letters,
            interval=settings.nomnom_dashboard_interval_ms / 1000,
            publish=self._publish,
        )
        entities = Entities(self.database, schema)
        self.sources = Sources(
            self.database, jetstream, streams, schema, Grammar(schema), entities, messages, dead_letters, overview
        )
        self.operations = OPERATIONS + entity_operations(schema)
        self.application = self._application()

    def stop_streams(self) -> None:
        """End what would keep the server from stopping."""
        self.stopping = True
        self.broadcast.close()

    async def start(self, _: Application) -> None:
        """Connect, and begin to watch."""
        self.nats.start()
        self.sources.overview.start()

    async def stop(self, _: Application) -> None:
        """Stop watching, and close."""
        await self.sources.overview.close()
        await self.nats.close()
        await self.database.close()

    def _publish(self, snapshot: Snapshot) -> None:
        self.metrics.note(snapshot)
        self.broadcast.publish("snapshot", snapshot.sequence, snapshot)

    def _application(self) -> Application:
        application = Application(router=Router())
        application.on_start += self.start
        application.on_stop += self.stop
        special: dict[str, Answer] = {
            "/health": self._alive,
            "/ready": self._ready,
            "/metrics": self._metrics,
            "/api/stream": self._stream,
        }
        router = application.router
        for operation in self.operations:
            answer = special.get(operation.path) or self._answering(operation)
            handler = self._guarded(operation, answer)
            router.add_get(operation.path, handler)
            if operation.path != "/api/stream":
                router.add_head(operation.path, handler)
        self._add_documents(application)
        self._add_page(application)
        if self.settings.origins:
            application.use_cors(
                allow_methods="GET", allow_origins=list(self.settings.origins), allow_headers="Authorization"
            )
        return application

    def _guarded(self, operation: Operation, answer: Answer) -> Answer:
        """The handler of an operation: access first, then the answer; every failure a problem, every answer counted."""

        async def handle(request: Request) -> Response:
            begun = time.perf_counter()
            try:
                if not operation.open:
                    self.access.check(request.get_first_header(b"authorization"))
                response = await answer(request)
            except DashboardError as error:
                response = self._problem(request, error)
            except RequestError as error:
                answered = http_error(error)
                if answered.status == 500:
                    _log.error("request failed", path=request.url.path.decode(errors="replace"), problem=str(error))
                response = self._problem(request, answered)
            except Exception:  # noqa: BLE001  a defect, which is logged and answered as one
                _log.exception("request failed", path=request.url.path.decode(errors="replace"))
                response = problem(request, 500, "the dashboard failed; its log says how")
            response.set_header(b"cache-control", b"no-store")
            response.set_header(b"x-content-type-options", b"nosniff")
            self.metrics.count(operation.path, response.status, time.perf_counter() - begun)
            return response

        return handle

    def _answering(self, operation: Operation) -> Answer:
        handler = operation.handler
        assert handler is not None, operation.path

        async def answer(request: Request) -> Response:
            query = read_query(operation.query, _query(request))
            path = {name: value or "" for name, value in (request.route_values or {}).items()}
            body = await handler(self.sources, path, query)
            status = 503 if isinstance(body, Health) and body.status == "down" else 200
            return Response(status, None, Content(_JSON, msgspec.json.encode(body)))

        return answer

    async def _alive(self, request: Request) -> Response:
        read_query(OPERATIONS[0].query, _query(request))
        return Response(200, None, Content(_JSON, msgspec.json.encode(Alive("alive"))))

    async def _ready(self, request: Request) -> Response:
        read_query(OPERATIONS[0].query, _query(request))
        if self.stopping:
            return problem(request, 503, "the dashboard is stopping")
        # A database that is away does not make this process unready: it is the one that tells people so.
        return Response(200, None, Content(_JSON, msgspec.json.encode(Alive("ready"))))

    async def _metrics(self, request: Request) -> Response:
        read_query(OPERATIONS[0].query, _query(request))
        return Response(200, None, Content(CONTENT_TYPE, self.metrics.text()))

    async def _stream(self, request: Request) -> Response:
        read_query(OPERATIONS[0].query, _query(request))

        async def events() -> AsyncIterator[bytes]:
            stream = self.broadcast.events()
            async for event in stream:
                # uvicorn drops what is written for a client that has gone, and says so only to who asks.
                if await request.is_disconnected():
                    break
                yield event

        # Proxies that buffer would hold events back.
        return Response(200, [(b"x-accel-buffering", b"no")], StreamedContent(b"text/event-stream", events))

    def _problem(self, request: Request, error: DashboardError) -> Response:
        allowed = error.allowed if isinstance(error, InvalidQueryError) else None
        response = problem(request, error.status, str(error), allowed)
        if error.retry_after is not None:
            response.add_header(b"retry-after", str(error.retry_after).encode())
        if isinstance(error, UnauthorizedError):
            response.add_header(b"www-authenticate", self.access.challenge)
        return response

    def _add_documents(self, application: Application) -> None:
        text = msgspec.json.encode(document(self.operations))
        assets = {
            name: ((Path(swagger_ui.static_path) / name).read_bytes(), kind) for name, kind in _DOCS_ASSETS.items()
        }
        assets["start.js"] = (_DOCS_START, b"text/javascript; charset=utf-8")

        async def openapi(_: Request) -> Response:
            return Response(200, None, Content(_JSON, text))

        async def docs(_: Request) -> Response:
            return _page(_DOCS.encode())

        async def asset(request: Request) -> Response:
            name = (request.route_values or {}).get("name") or ""
            if name not in assets:
                return problem(request, 404, "no such file")
            body, kind = assets[name]
            return Response(200, [(b"cache-control", b"public, max-age=86400")], Content(kind, body))

        for path, handler in (("/openapi.json", openapi), ("/docs", docs), ("/docs/{name}", asset)):
            application.router.add_get(path, handler)
            application.router.add_head(path, handler)

    def _add_page(self, application: Application) -> None:
        folder = self.settings.page
        index = (folder / "index.html").read_bytes() if (folder / "index.html").is_file() else None
        if (folder / "assets").is_dir():
            # Their names hold a digest of their content.
            application.serve_files(folder / "assets", root_path="assets", cache_time=_YEAR, index_document=None)
        # The few files beside them: icon, theme.
        beside = [each for each in folder.glob("*.*") if each.suffix in _BESIDE] if index is not None else []
        for path in beside:
            application.router.add_get(f"/{path.name}", _file(path.read_bytes(), _BESIDE[path.suffix]))

        async def fallback(request: Request) -> Response:
            path = request.url.path
            if path.startswith(_INGEST):
                # An ingress may send these here for as long as no api is ready: a 404 would tell clients to give up.
                response = problem(request, 503, _NO_API)
                response.add_header(b"retry-after", b"2")
                return response
            reading = request.method in ("GET", "HEAD")
            if not reading and application.router.get_matching_route(b"GET", path):
                response = problem(request, 405, f"{request.method} is not for this: it is read only")
                response.add_header(b"allow", b"GET, HEAD")
                return response
            first = path.split(b"/", 2)[1]
            if first in (b"api", b"docs", b"assets") or not reading:
                return problem(request, 404, f"no {path.decode(errors='replace')} here; /docs lists what there is")
            return _page(index) if index is not None else problem(request, 404, _NOT_BUILT)

        application.router.fallback = fallback


def problem(request: Request, status: int, detail: str, allowed: list[str] | None = None) -> Response:
    """A problem as the answer to a request."""
    details = problem_details(status, detail, request.url.path.decode(errors="replace"), allowed)
    return Response(status, None, Content(MEDIA_TYPE, msgspec.json.encode(details)))


def _query(request: Request) -> dict[str, list[str]]:
    """The parameters given, empty ones too: BlackSheep's own reading leaves those out, and they would go unchecked."""
    return parse_qs((request.url.query or b"").decode(errors="replace"), keep_blank_values=True)


def _page(body: bytes) -> Response:
    headers = [
        (b"cache-control", b"no-cache"),
        (b"content-security-policy", _PAGE_POLICY),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"same-origin"),
    ]
    return Response(200, headers, Content(_HTML, body))


def _file(body: bytes, kind: bytes) -> Answer:
    async def answer(_: Request) -> Response:
        return Response(200, [(b"cache-control", b"public, max-age=3600")], Content(kind, body))

    return answer
