"""The BlackSheep application: routes, authentication, error responses, metrics, API documentation and the page."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import parse_qs

import msgspec
from blacksheep import Application, Content, Request, Response, StreamedContent
from blacksheep.server.routing import Router

from nomnom.connections.errors import RequestError
from nomnom.connections.nats import NatsConnection
from nomnom.connections.postgres import Database
from nomnom.grammar import Grammar
from nomnom.http.documents import Documents, page_response
from nomnom.inspection.dead_letters import DeadLetterIndex
from nomnom.inspection.entities import Entities
from nomnom.inspection.jetstream import JetStream
from nomnom.problems import MEDIA_TYPE, problem_details
from nomnom.schema import load_schema
from nomnom.settings import DashboardSettings
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
from nomnom_dashboard.telemetry import CONTENT_TYPE, Metrics

Answer = Callable[[Request], Awaitable[Response]]
_JSON = b"application/json"
_NOT_BUILT = "the page is not built: run npm ci && npm run build in services/dashboard/web; the API is at /api"
_STATIC_TYPES = {".js": b"text/javascript; charset=utf-8", ".svg": b"image/svg+xml", ".png": b"image/png"}
_INGEST = b"/api/ingest/"
_NO_API = "no API is ready at this address; retry, or send the request to the API's own address"
_YEAR = 365 * 24 * 60 * 60
_NATS_TIMEOUT = 3.0
_PATIENCE = 5.0
"""Seconds, beyond those of a query, to connect to a server that is slow to answer."""
_log = logger(__name__)


class Dashboard:
    """The dashboard of one process: its connections, the event stream and the application that serves it."""

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
            statement_cache=settings.database_statement_cache,
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
        self.stopping = False
        jetstream, streams = JetStream(self.nats), settings.streams
        messages = Messages(self.database, jetstream, streams, schema)
        dead_letters = DeadLetterIndex(
            jetstream, streams.dead_stream, limit=settings.nomnom_dashboard_dead_letters, payloads=0
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
            self.database,
            jetstream,
            streams,
            schema,
            Grammar(schema),
            entities,
            messages,
            dead_letters,
            overview,
            settings.nats_monitor_url,
        )
        self.operations = OPERATIONS + entity_operations(schema)
        self.application = self._application()

    def stop_streams(self) -> None:
        """Close the event streams: open requests would keep the server from stopping."""
        self.stopping = True
        self.broadcast.close()

    async def start(self, _: Application) -> None:
        """Connect and start to watch the pipeline."""
        self.nats.start()
        self.sources.overview.start()

    async def stop(self, _: Application) -> None:
        """Stop watching and close the connections."""
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
        custom: dict[str, Answer] = {
            "/health": self._alive,
            "/ready": self._ready,
            "/metrics": self._metrics,
            "/api/stream": self._stream,
        }
        router = application.router
        for operation in self.operations:
            answer = custom.get(operation.path) or self._answering(operation)
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
        """Wrap the handler of an operation: authenticate, turn errors into problem responses, count the request."""

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
            except Exception:  # noqa: BLE001  an unexpected error is logged and becomes a 500
                _log.exception("request failed", path=request.url.path.decode(errors="replace"))
                response = problem(request, 500, "internal error; see the dashboard's log")
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
        # Ready even if PostgreSQL or NATS is unavailable: the dashboard reports the outage.
        return Response(200, None, Content(_JSON, msgspec.json.encode(Alive("ready"))))

    async def _metrics(self, request: Request) -> Response:
        read_query(OPERATIONS[0].query, _query(request))
        return Response(200, None, Content(CONTENT_TYPE, self.metrics.text()))

    async def _stream(self, request: Request) -> Response:
        read_query(OPERATIONS[0].query, _query(request))

        async def events() -> AsyncIterator[bytes]:
            stream = self.broadcast.events()
            async for event in stream:
                # uvicorn silently drops writes to a disconnected client, so the connection has to be checked.
                if await request.is_disconnected():
                    break
                yield event

        # Keeps nginx from buffering events.
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
        documents = Documents(document(self.operations))

        # Functions, not bound methods: BlackSheep sets an attribute of each handler.
        async def openapi(request: Request) -> Response:
            return await documents.openapi(request)

        async def page(request: Request) -> Response:
            return await documents.page(request)

        async def asset(request: Request) -> Response:
            return documents.asset(request) or problem(request, 404, "no such file; see /docs")

        for path, handler in (("/openapi.json", openapi), ("/docs", page), ("/docs/{name}", asset)):
            application.router.add_get(path, handler)
            application.router.add_head(path, handler)

    def _add_page(self, application: Application) -> None:
        folder = _page_folder(self.settings)
        index = (folder / "index.html").read_bytes() if (folder / "index.html").is_file() else None
        if (folder / "assets").is_dir():
            # File names contain a digest of the content, so they can be cached.
            application.serve_files(folder / "assets", root_path="assets", cache_time=_YEAR, index_document=None)
        # The files at the root: icon and theme script.
        static = [each for each in folder.glob("*.*") if each.suffix in _STATIC_TYPES] if index is not None else []
        for path in static:
            application.router.add_get(f"/{path.name}", _file(path.read_bytes(), _STATIC_TYPES[path.suffix]))

        async def fallback(request: Request) -> Response:
            path = request.url.path
            if path.startswith(_INGEST):
                # An ingress may route these here while no API is ready. A 404 would make clients give up.
                response = problem(request, 503, _NO_API)
                response.add_header(b"retry-after", b"2")
                return response
            reading = request.method in ("GET", "HEAD")
            if not reading and application.router.get_matching_route(b"GET", path):
                response = problem(request, 405, f"{request.method} is not allowed: the query API is read-only")
                response.add_header(b"allow", b"GET, HEAD")
                return response
            first = path.split(b"/", 2)[1]
            if first in (b"api", b"docs", b"assets") or not reading:
                return problem(
                    request, 404, f"{path.decode(errors='replace')} does not exist; see /docs for the available paths"
                )
            return page_response(index) if index is not None else problem(request, 404, _NOT_BUILT)

        application.router.fallback = fallback


def problem(request: Request, status: int, detail: str, allowed: list[str] | None = None) -> Response:
    """A problem response (RFC 9457) to a request."""
    details = problem_details(status, detail, request.url.path.decode(errors="replace"), allowed)
    return Response(status, None, Content(MEDIA_TYPE, msgspec.json.encode(details)))


def _query(request: Request) -> dict[str, list[str]]:
    """The query parameters, including empty ones, which BlackSheep's own parser drops: they must be validated too."""
    return parse_qs((request.url.query or b"").decode(errors="replace"), keep_blank_values=True)


def _file(body: bytes, kind: bytes) -> Answer:
    async def answer(_: Request) -> Response:
        return Response(200, [(b"cache-control", b"public, max-age=3600")], Content(kind, body))

    return answer


def _page_folder(settings: DashboardSettings) -> Path:
    """The folder of the built page, whether or not it exists."""
    if settings.nomnom_dashboard_page:
        return Path(settings.nomnom_dashboard_page)
    here = Path(__file__).resolve().parent
    # An installed distribution holds the page beside this module; a work tree builds it in web/.
    return here / "page" if (here / "page").is_dir() else here.parent / "web" / "dist"
