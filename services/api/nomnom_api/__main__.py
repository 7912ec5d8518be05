"""``nomnom-api``: serves the ingest API."""

from __future__ import annotations

import asyncio
import gc
import socket
from types import FrameType

import uvicorn

from nomnom.errors import NomnomError
from nomnom.settings import SettingsError
from nomnom.telemetry import configure_logging, logger
from nomnom_api.application import Api
from nomnom_api.connections import Connection
from nomnom_api.settings import ApiSettings

_BACKLOG = 2048
_log = logger("nomnom_api")


class _Server(uvicorn.Server):
    """A uvicorn server that reports unreadiness for a while before it stops accepting connections."""

    def __init__(self, config: uvicorn.Config, api: Api, drain: float) -> None:
        super().__init__(config)
        self._api, self._drain = api, drain
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # The inherited method raises the signal again after shutdown: a graceful exit would look like a crash.
        if self._loop is None or self._api.stopping:
            self.force_exit = self.should_exit
            self.should_exit = True
            return
        self._api.stopping = True
        self._loop.call_soon_threadsafe(self._loop.call_later, self._drain, self._end)

    def _end(self) -> None:
        self.should_exit = True


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    try:
        settings = ApiSettings.from_environment()
        configure_logging("api", settings)
        api = Api(settings)
        listener = _listen(settings)
    except NomnomError as error:
        raise SystemExit(f"nomnom-api: {error}") from error
    config = uvicorn.Config(
        api.application,
        loop="uvloop",
        http=Connection,
        ws="none",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        # The client's address and scheme are not used.
        proxy_headers=False,
        timeout_graceful_shutdown=max(1, round(settings.nomnom_api_grace)),
    )
    # Requests create no reference cycles, and collecting every 700 objects costs a few percent of the processor time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    host, port = listener.getsockname()[:2]
    _log.info("listening", host=host, port=port, tokens=len(settings.tokens), schema=settings.nomnom_schema)
    _Server(config, api, settings.nomnom_api_drain).run([listener])


def _listen(settings: ApiSettings) -> socket.socket:
    host, port = settings.nomnom_api_host, settings.nomnom_api_port
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=_BACKLOG
        )
    except OSError as error:
        problem = f"NOMNOM_API_PORT: cannot listen on {host}:{port}: {error.strerror or error}"
        raise SettingsError(f"{problem}; choose another port, or stop the program that uses it") from error


if __name__ == "__main__":
    main()
