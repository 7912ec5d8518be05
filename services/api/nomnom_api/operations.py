"""The operations of the ingest API: route, handler and description, in one table.

The routes and the OpenAPI document are both generated from it, so they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from blacksheep import Content, Request, Response

from nomnom.http.documents import Documents
from nomnom.settings import ApiSettings
from nomnom_api import openapi
from nomnom_api.batches import Batches
from nomnom_api.errors import NotFoundError
from nomnom_api.messages import Messages
from nomnom_api.readiness import Probe
from nomnom_api.statuses import Statuses
from nomnom_api.telemetry import CONTENT_TYPE, Metrics

OpenHandler = Callable[[Request], Awaitable[Response]]
Handler = Callable[[Request, str], Awaitable[Response]]
"""A handler that gets the caller's name, and so cannot run before the caller's token was checked."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """What the operations are handled by."""

    messages: Messages
    batches: Batches
    statuses: Statuses
    probe: Probe
    metrics: Metrics
    documents: Documents

    async def show_metrics(self, _: Request) -> Response:
        """GET /metrics."""
        return Response(200, None, Content(CONTENT_TYPE, self.metrics.text()))

    async def show_asset(self, request: Request) -> Response:
        """GET /docs/{name}."""
        if (response := self.documents.asset(request)) is None:
            raise NotFoundError("no such file; see /docs")
        return response


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation. Exactly one of its handlers is set; with ``open_handler`` it needs no token."""

    method: Literal["GET", "POST"]
    path: str
    description: Callable[[ApiSettings], dict[str, Any]] | None
    """None for a part of the documentation page, which is not part of the API."""
    handler: Callable[[Endpoints], Handler] | None = None
    open_handler: Callable[[Endpoints], OpenHandler] | None = None

    @property
    def open(self) -> bool:
        """Whether it needs no token."""
        return self.open_handler is not None


OPERATIONS = (
    Operation("POST", "/api/ingest/message", openapi.describe_message, lambda each: each.messages.accept),
    Operation("POST", "/api/ingest/batch", openapi.describe_batch, lambda each: each.batches.accept),
    Operation("POST", "/api/ingest/validate", openapi.describe_validation, lambda each: each.messages.validate),
    Operation("GET", "/api/ingest/status/{message_id}", openapi.describe_status, lambda each: each.statuses.answer),
    Operation("GET", "/health", openapi.describe_liveness, open_handler=lambda each: each.probe.health),
    Operation("GET", "/ready", openapi.describe_readiness, open_handler=lambda each: each.probe.ready),
    Operation(
        "GET",
        "/metrics",
        openapi.describe_file(
            "getMetrics", "Prometheus metrics", "Metrics in the Prometheus text format.", "text/plain"
        ),
        open_handler=lambda each: each.show_metrics,
    ),
    Operation(
        "GET",
        "/openapi.json",
        openapi.describe_file("getDocument", "This document", "OpenAPI 3.1.", "application/json"),
        open_handler=lambda each: each.documents.openapi,
    ),
    Operation(
        "GET",
        "/docs",
        openapi.describe_file("getPage", "This document as a web page", "A self-contained page.", "text/html"),
        open_handler=lambda each: each.documents.page,
    ),
    Operation("GET", "/docs/{name}", None, open_handler=lambda each: each.show_asset),
)
