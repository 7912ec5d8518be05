"""``nomnom-dashboard``: serves the query API, and the page if it is built."""

from __future__ import annotations

import asyncio
import socket
import sys
from types import FrameType

import msgspec
import uvicorn

from nomnom import NomnomError
from nomnom.settings import SettingsError
from nomnom.telemetry import configure_logging, logger
from nomnom_dashboard.application import Dashboard
from nomnom_dashboard.openapi import document
from nomnom_dashboard.operations import OPERATIONS
from nomnom_dashboard.settings import DashboardSettings

_BACKLOG = 2048
_log = logger("nomnom_dashboard")


class _Server(uvicorn.Server):
    """A uvicorn server that closes the event streams on shutdown; uvicorn alone would wait for them to end."""

    def __init__(self, config: uvicorn.Config, dashboard: Dashboard) -> None:
        super().__init__(config)
        self._dashboard = dashboard
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._dashboard.stop_streams)
        # The inherited method raises the signal again after shutdown: a graceful exit would look like a crash.
        self.force_exit = self.should_exit
        self.should_exit = True


def main() -> None:
    """Run until SIGTERM or SIGINT. ``--openapi`` prints the OpenAPI document without a schema's entities and exits."""
    if sys.argv[1:] == ["--openapi"]:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(document(OPERATIONS))).decode() + "\n")
        return
    try:
        settings = DashboardSettings.from_environment()
        configure_logging("dashboard", settings)
        dashboard = Dashboard(settings)
        sockets = _listen(settings)
    except NomnomError as error:
        raise SystemExit(f"nomnom-dashboard: {error}") from error
    config = uvicorn.Config(
        dashboard.application,
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, int(settings.nomnom_dashboard_grace)),
    )
    for each in sockets:
        host, port = each.getsockname()[:2]
        _log.info("listening", host=host, port=port)
    _Server(config, dashboard).run(sockets)


def _listen(settings: DashboardSettings) -> list[socket.socket]:
    host = settings.nomnom_dashboard_host
    ports = {"NOMNOM_DASHBOARD_PORT": settings.nomnom_dashboard_port}
    if settings.nomnom_dashboard_page_port is not None:
        ports["NOMNOM_DASHBOARD_PAGE_PORT"] = settings.nomnom_dashboard_page_port
    sockets: list[socket.socket] = []
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for name, port in ports.items():
        try:
            sockets.append(socket.create_server((host, port), family=family, backlog=_BACKLOG))
        except OSError as error:
            raise SettingsError(f"{name}: cannot listen on {host}:{port}: {error.strerror or error}") from error
    return sockets


if __name__ == "__main__":
    main()
