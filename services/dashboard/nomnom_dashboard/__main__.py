"""``nomnom-dashboard``: serves the query API, and the page if it is built."""

from __future__ import annotations

import socket
import sys

import msgspec

from nomnom import NomnomError
from nomnom.http.server import Server, listen, server_config
from nomnom.settings import DashboardSettings
from nomnom.telemetry import configure_logging, logger
from nomnom_dashboard.application import Dashboard
from nomnom_dashboard.openapi import document
from nomnom_dashboard.operations import OPERATIONS

_log = logger("nomnom_dashboard")


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
    config = server_config(dashboard.application, grace=settings.nomnom_dashboard_grace)
    for each in sockets:
        host, port = each.getsockname()[:2]
        _log.info("listening", host=host, port=port)
    # uvicorn alone would wait for the event streams to end.
    Server(config, dashboard.stop_streams).run(sockets)


def _listen(settings: DashboardSettings) -> list[socket.socket]:
    ports = {
        "NOMNOM_DASHBOARD_PORT": settings.nomnom_dashboard_port,
        "NOMNOM_DASHBOARD_PAGE_PORT": settings.nomnom_dashboard_page_port,
    }
    host = settings.nomnom_dashboard_host
    return [listen(name, host, port) for name, port in ports.items() if port is not None]


if __name__ == "__main__":
    main()
