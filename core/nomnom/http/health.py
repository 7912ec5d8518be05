"""The health port of a service that accepts no requests: liveness, readiness and metrics."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Generator
from typing import Any

import msgspec
import uvicorn
from blacksheep import Application, Content, Response, Router
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from nomnom.http.server import server_config

State = dict[str, Any]
_GRACE = 1


class _Server(uvicorn.Server):
    """A server that leaves signals to the service."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


async def serve(
    listener: socket.socket, alive: Callable[[], State], ready: Callable[[], State], registry: CollectorRegistry
) -> None:
    """Serve /health, /ready and /metrics until cancelled; 503 for a state that is not alive, ready or degraded."""
    # Without its own router, an application shares one with all others of the process.
    app = Application(router=Router())

    def answer(state: State) -> Response:
        body = Content(b"application/json", msgspec.json.encode(state))
        return Response(200 if state["status"] in ("alive", "ready", "degraded") else 503, content=body)

    @app.router.get("/health")
    async def health() -> Response:
        return answer(alive())

    @app.router.get("/ready")
    async def readiness() -> Response:
        return answer(ready())

    @app.router.get("/metrics")
    async def metrics() -> Response:
        return Response(200, content=Content(CONTENT_TYPE_LATEST.encode(), generate_latest(registry)))

    # With lifespan on, uvicorn would exit the process if the application failed to start.
    await app.start()
    server = _Server(server_config(app, grace=_GRACE, lifespan="off"))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await asyncio.shield(serving)
    except asyncio.CancelledError:
        server.should_exit = True
        await serving
        await app.stop()
        raise
