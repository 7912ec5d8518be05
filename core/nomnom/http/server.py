"""How a service listens, runs and stops."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn

from nomnom.settings import SettingsError

_BACKLOG = 2048


def listen(setting: str, host: str, port: int) -> socket.socket:
    """A listening socket; raises SettingsError that names the port's setting, the address and the reason."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        address = f"[{host}]:{port}" if family == socket.AF_INET6 else f"{host}:{port}"
        reason = (error.strerror or str(error)).partition(" (while attempting")[0]  # what follows repeats the address
        problem = f"{setting}: cannot listen on {address}: {reason}"
        raise SettingsError(f"{problem}; choose another port, or stop the program that uses it") from error


def server_config(application: Any, *, grace: float, **options: Any) -> uvicorn.Config:
    """The configuration of a service. After a signal, open requests have ``grace`` seconds to finish."""
    common: dict[str, Any] = {
        "loop": "uvloop",
        "http": "httptools",
        "ws": "none",
        "log_config": None,
        "log_level": "warning",
        "access_log": False,
        "server_header": False,
        # The client's address and scheme are not used.
        "proxy_headers": False,
        "timeout_graceful_shutdown": max(1, round(grace)),
    }
    return uvicorn.Config(application, **(common | options))


class Server(uvicorn.Server):
    """A uvicorn server that calls ``stopping`` at the first signal, and ``drain`` seconds later begins to stop.

    Until then it accepts connections. A second signal ends the wait, a third one also that for open requests.
    """

    def __init__(self, config: uvicorn.Config, stopping: Callable[[], None], drain: float = 0.0) -> None:
        super().__init__(config)
        self._stopping, self._drain = stopping, drain
        self._loop: asyncio.AbstractEventLoop | None = None
        self._signalled = False

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # The inherited method raises the signal again after shutdown: a graceful exit would look like a crash.
        if self._loop is None or self._signalled:
            self.force_exit = self.should_exit
            self.should_exit = True
            return
        self._signalled = True
        self._loop.call_soon_threadsafe(self._begin_stop, self._loop)

    def _begin_stop(self, loop: asyncio.AbstractEventLoop) -> None:
        self._stopping()
        loop.call_later(self._drain, self._stop)

    def _stop(self) -> None:
        self.should_exit = True
