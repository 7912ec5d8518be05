"""``nomnom-api``: serves the ingest API."""

from __future__ import annotations

import gc

from nomnom.errors import NomnomError
from nomnom.http.server import Server, listen, server_config
from nomnom.settings import ApiSettings
from nomnom.telemetry import configure_logging, logger
from nomnom_api.application import Api
from nomnom_api.connections import Connection

_log = logger("nomnom_api")


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    try:
        settings = ApiSettings.from_environment()
        configure_logging("api", settings)
        api = Api(settings)
        listener = listen("NOMNOM_API_PORT", settings.nomnom_api_host, settings.nomnom_api_port)
    except NomnomError as error:
        raise SystemExit(f"nomnom-api: {error}") from error
    config = server_config(api.application, grace=settings.nomnom_api_grace, http=Connection)
    # Requests create no reference cycles, and collecting every 700 objects costs a few percent of the processor time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    host, port = listener.getsockname()[:2]
    _log.info("listening", host=host, port=port, tokens=len(settings.tokens), schema=settings.nomnom_schema)
    Server(config, api.begin_stop, settings.nomnom_api_drain).run([listener])


if __name__ == "__main__":
    main()
