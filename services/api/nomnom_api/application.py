"""The BlackSheep application: routes, authentication, error responses and request metrics.

No postponed annotations: BlackSheep wraps every handler whose return annotation is not the class Response.
"""

from blacksheep import Application, Content, Request, Response
from blacksheep.server.routing import Router

from nomnom.connections.errors import RequestError
from nomnom.connections.postgres import Database
from nomnom.http.documents import Documents
from nomnom.problems import MEDIA_TYPE
from nomnom.schema import load_schema
from nomnom.settings import ApiSettings
from nomnom.telemetry import logger
from nomnom_api.access import Access
from nomnom_api.batches import Batches
from nomnom_api.bodies import Bodies
from nomnom_api.errors import ApiError, MethodNotAllowedError, NotFoundError, UnavailableError
from nomnom_api.identities import Clock
from nomnom_api.intake import Intake
from nomnom_api.keys import Keys
from nomnom_api.messages import Messages
from nomnom_api.openapi import document
from nomnom_api.operations import OPERATIONS, Endpoints, OpenHandler, Operation
from nomnom_api.publisher import Publisher
from nomnom_api.readiness import Probe
from nomnom_api.statuses import Statuses
from nomnom_api.telemetry import Metrics

_DATABASE = 2.0
"""Seconds for a status from PostgreSQL, connecting included."""
_METHODS = ("GET", "HEAD", "POST")
_OTHER = "other"
"""The metric label of requests without a route; arbitrary paths must not become labels."""
_log = logger(__name__)


class Api:
    """The API of one process."""

    def __init__(self, settings: ApiSettings) -> None:
        schema = load_schema(settings.nomnom_schema)
        self.stopping = False
        self.metrics = Metrics()
        clock = Clock()
        self.publisher = Publisher(settings, self.metrics, clock)
        self.database = Database(
            settings.database_url,
            application="nomnom-api",
            seconds=_DATABASE,
            within=_DATABASE,
            read_only=True,
            statement_cache=settings.database_statement_cache,
        )
        self._access = Access(settings.tokens)
        self._bodies = Bodies(
            settings.nomnom_api_max_body, settings.nomnom_api_max_buffer, settings.nomnom_api_read_timeout
        )
        self._keys = Keys(self.publisher, self.database, settings.nats_stream, settings.nomnom_api_max_in_flight)
        intake = Intake(
            settings, schema, self._bodies, self.publisher, self._keys, clock, self.metrics, self._is_stopping
        )
        endpoints = Endpoints(
            Messages(intake),
            Batches(intake),
            Statuses(settings.streams, self.publisher.client, self.database, schema),
            Probe(settings, self.publisher, self.database, self._is_stopping),
            self.metrics,
            Documents(document(OPERATIONS, settings, schema)),
        )
        self.metrics.watch(lambda: self.publisher.in_flight, lambda: self.publisher.nats.connected)
        self.application = self._application(endpoints)

    async def start(self, _: Application) -> None:
        """Start to connect in the background; requests are handled meanwhile."""
        self._bodies.start()
        self.publisher.start()
        self._keys.start()

    async def stop(self, _: Application) -> None:
        """Wait for messages in flight and close the connections."""
        await self.publisher.close()
        await self._keys.close()
        await self._bodies.close()
        await self.database.close()

    def begin_stop(self) -> None:
        """Report unreadiness, and accept no further lines of open batches."""
        self.stopping = True

    def _is_stopping(self) -> bool:
        return self.stopping

    def _application(self, endpoints: Endpoints) -> Application:
        # Without its own router, an application shares one with all others of the process.
        application = Application(router=Router())
        application.on_start += self.start
        application.on_stop += self.stop
        router = application.router
        for each in OPERATIONS:
            handler = self._guarded(each.path, self._handler(each, endpoints))
            if each.method == "POST":
                router.add_post(each.path, handler)
            else:
                router.add_get(each.path, handler)
                router.add_head(each.path, handler)
        router.fallback = self._guarded(_OTHER, self._unmatched)
        return application

    def _guarded(self, route: str, handler: OpenHandler) -> OpenHandler:
        """Wrap a handler: turn errors into problem responses and count the request."""
        count = self.metrics.requests.count

        async def handle(request: Request) -> Response:
            try:
                response = await handler(request)
            except ApiError as error:
                response = self._error_response(request, error)
            except RequestError as error:
                response = self._error_response(request, UnavailableError(str(error)))
            except Exception:  # noqa: BLE001  an unexpected error is logged and becomes a 500
                _log.exception("request failed", route=route)
                response = self._error_response(request, ApiError("internal error; see the API's log"))
            count(route, response.status)
            return response

        return handle

    def _handler(self, operation: Operation, endpoints: Endpoints) -> OpenHandler:
        """The operation's handler, which checks the token first if the operation needs one."""
        if operation.open_handler is not None:
            return operation.open_handler(endpoints)
        assert operation.handler is not None, operation.path
        handler, caller_of = operation.handler(endpoints), self._access.caller

        async def handle(request: Request) -> Response:
            return await handler(request, caller_of(request.get_first_header(b"authorization")))

        return handle

    def _error_response(self, request: Request, error: ApiError) -> Response:
        self.metrics.reject(error.code)
        problem = error.problem(request.url.path.decode("ascii", "replace"))
        return Response(error.status, list(error.headers), Content(MEDIA_TYPE, problem))

    async def _unmatched(self, request: Request) -> Response:
        path = request.url.path
        router = self.application.router
        shown = path[:200].decode("ascii", "replace")
        if allowed := [each for each in _METHODS if router.get_matching_route(each, path)]:
            raise MethodNotAllowedError(f"{request.method} is not allowed for {shown}", allowed)
        raise NotFoundError(f"{shown} does not exist; see /docs")
