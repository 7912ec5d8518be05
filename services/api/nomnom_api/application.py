"""The BlackSheep application: routes, and around each of them access, problems and counting.

Its annotations are evaluated: BlackSheep wraps a handler of which it does not see that it returns a Response.
"""

from collections.abc import Awaitable, Callable

from blacksheep import Application, Content, Request, Response
from blacksheep.server.routing import Router

from nomnom.connections.errors import RequestError
from nomnom.connections.postgres import Database
from nomnom.problems import MEDIA_TYPE
from nomnom.schema import load_schema
from nomnom.telemetry import logger
from nomnom_api.access import Access
from nomnom_api.batches import Batches
from nomnom_api.bodies import Bodies
from nomnom_api.documents import Documents
from nomnom_api.errors import ApiError, MethodNotAllowedError, NotFoundError, UnavailableError
from nomnom_api.identities import Clock
from nomnom_api.intake import Intake
from nomnom_api.messages import Messages
from nomnom_api.publisher import Publisher
from nomnom_api.readiness import Probe
from nomnom_api.settings import ApiSettings
from nomnom_api.statuses import Statuses
from nomnom_api.telemetry import CONTENT_TYPE, Metrics

Handler = Callable[[Request], Awaitable[Response]]
_DATABASE = 2.0
"""Seconds for a status from PostgreSQL, connecting included."""
_METHODS = ("GET", "HEAD", "POST")
_OTHER = "other"
"""The route of requests that have none: what clients make up is no label."""
_log = logger(__name__)


class Api:
    """One process's api."""

    def __init__(self, settings: ApiSettings) -> None:
        schema = load_schema(settings.nomnom_schema)
        self.stopping = False
        self.metrics = Metrics()
        self.publisher = Publisher(settings)
        self.database = Database(
            settings.database_url, application="nomnom-api", seconds=_DATABASE, within=_DATABASE, read_only=True
        )
        self._access = Access(settings.tokens)
        self._bodies = Bodies(
            settings.nomnom_api_max_body, settings.nomnom_api_max_buffer, settings.nomnom_api_read_timeout
        )
        intake = Intake(
            settings, schema, self._access, self._bodies, self.publisher, Clock(), self.metrics, self._is_stopping
        )
        self._messages, self._batches = Messages(intake), Batches(intake)
        self._statuses = Statuses(settings.streams, self.publisher.client, self.database)
        self._probe = Probe(settings.nats_stream, self.publisher.client, self.database, self._is_stopping)
        self._documents = Documents(settings, schema)
        self.metrics.watch(lambda: self.publisher.in_flight, lambda: self.publisher.nats.connected)
        self.application = self._application()

    async def start(self, _: Application) -> None:
        """Begin to connect; requests are answered meanwhile."""
        self._bodies.start()
        self.publisher.start()

    async def stop(self, _: Application) -> None:
        """Await what is in flight, and close."""
        await self.publisher.close()
        await self._bodies.close()
        await self.database.close()

    def _is_stopping(self) -> bool:
        return self.stopping

    def _application(self) -> Application:
        # Without a router of its own an application shares one with all others of the process.
        application = Application(router=Router())
        application.on_start += self.start
        application.on_stop += self.stop
        router = application.router
        for path, handler in {
            "/api/ingest/message": self._messages.accept,
            "/api/ingest/batch": self._batches.accept,
            "/api/ingest/validate": self._authorized(self._messages.validate),
        }.items():
            router.add_post(path, self._guarded(path, handler))
        for path, handler in {
            "/api/ingest/status/{message_id}": self._authorized(self._statuses.answer),
            "/health": self._probe.health,
            "/ready": self._probe.ready,
            "/metrics": self._show_metrics,
            "/openapi.json": self._documents.openapi,
            "/docs": self._documents.page,
            "/docs/{name}": self._documents.asset,
        }.items():
            guarded = self._guarded(path, handler)
            router.add_get(path, guarded)
            router.add_head(path, guarded)
        router.fallback = self._guarded(_OTHER, self._unmatched)
        return application

    def _guarded(self, route: str, handler: Handler) -> Handler:
        """Every failure a problem, every answer counted."""
        count = self.metrics.requests.count

        async def handle(request: Request) -> Response:
            try:
                response = await handler(request)
            except ApiError as error:
                response = self._refuse(request, error)
            except RequestError as error:
                response = self._refuse(request, UnavailableError(str(error)))
            except Exception:  # noqa: BLE001  a defect, which is logged and answered as one
                _log.exception("request failed", route=route)
                response = self._refuse(request, ApiError("a defect: the api's log says more; try again"))
            count(route, response.status)
            return response

        return handle

    def _authorized(self, handler: Handler) -> Handler:
        async def handle(request: Request) -> Response:
            self._access.caller(request.get_first_header(b"authorization"))
            return await handler(request)

        return handle

    def _refuse(self, request: Request, error: ApiError) -> Response:
        self.metrics.reject(error.code)
        problem = error.problem(request.url.path.decode("ascii", "replace"))
        return Response(error.status, list(error.headers), Content(MEDIA_TYPE, problem))

    async def _unmatched(self, request: Request) -> Response:
        path = request.url.path
        router = self.application.router
        shown = path[:200].decode("ascii", "replace")
        if allowed := [each for each in _METHODS if router.get_matching_route(each, path)]:
            raise MethodNotAllowedError(f"{request.method} is not for {shown}", allowed)
        raise NotFoundError(f"there is no {shown} here; /docs shows what there is")

    async def _show_metrics(self, _: Request) -> Response:
        return Response(200, None, Content(CONTENT_TYPE, self.metrics.text()))
