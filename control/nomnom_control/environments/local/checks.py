"""Checks of the two servers beyond the existence of their processes: whether they still write to their disks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path

from nomnom.connections.errors import RequestError, Unavailable
from nomnom.connections.monitor import read_health
from nomnom.connections.postgres import ERRORS, Database
from nomnom.connections.writing import check_writing
from nomnom.telemetry import logger
from nomnom_control.environments.local.servers import NatsServer, PostgresServer
from nomnom_control.errors import ControlError

_log = logger(__name__)
_INTERVAL = 2.0
_TIMEOUT = 5.0
_ROOM = 1024 * 1024
_AGAIN = 10.0
"""Seconds between restarts: a disk that is almost full is soon full again."""


class ServerChecks:
    """Checks both servers every two seconds. ``problems`` has an entry for each server that runs and does not work."""

    def __init__(self, nats: NatsServer, postgres: PostgresServer, changing: asyncio.Lock) -> None:
        self.problems: dict[str, str] = {}
        self._nats, self._postgres, self._changing = nats, postgres, changing
        self._restarted = -_AGAIN

    async def run(self) -> None:
        """Check until cancelled."""
        database: Database | None = None
        while True:
            if database is None or database.url != self._postgres.url:
                database = Database(self._postgres.url, application="nomnom-supervisor")
            await asyncio.gather(self._check_nats(), self._check_postgres(database))
            await asyncio.sleep(_INTERVAL)

    async def _check_nats(self) -> None:
        if self._nats.process.pid is None:
            self.problems.pop("nats", None)
            return
        health = await read_health(self._nats.monitor_url, _TIMEOUT)
        self._report("nats", health.problem)
        if health.cannot_write and time.monotonic() - self._restarted > _AGAIN:
            await self._restart_nats(str(health.problem))

    async def _restart_nats(self, problem: str) -> None:
        """Restart nats-server if there is room again: until then it could not write either."""
        if not await asyncio.to_thread(_has_room, self._nats.folder):
            return
        _log.warning("there is room on the disk again; restarting nats-server", reason=problem)
        self._restarted = time.monotonic()
        async with self._changing:
            try:
                await self._nats.stop()
                await self._nats.start()
            except ControlError as error:
                _log.error("restart failed", process="nats", error=str(error))

    async def _check_postgres(self, database: Database) -> None:
        if self._postgres.process.pid is None:
            self.problems.pop("postgres", None)
            return
        problem = None
        try:
            async with asyncio.timeout(_TIMEOUT):
                connection = await database.connect(_TIMEOUT)
                try:
                    await check_writing(connection)
                finally:
                    connection.terminate()
        except RequestError as error:
            problem = error.reason if isinstance(error, Unavailable) else str(error)
        except ERRORS as error:
            found = database.error(error)
            problem = found.reason if isinstance(found, Unavailable) else str(found)
        self._report("postgres", problem)

    def _report(self, name: str, problem: str | None) -> None:
        if problem is None:
            if self.problems.pop(name, None) is not None:
                _log.info("server is healthy again", server=name)
        else:
            if name not in self.problems:
                _log.warning("server is unhealthy", server=name, reason=problem)
            self.problems[name] = problem


def _has_room(folder: Path) -> bool:
    """Whether a file can be written where a server stores its data; quotas count, unlike in the numbers of statvfs."""
    probe = folder / "room"
    try:
        descriptor = os.open(probe, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        try:
            os.write(descriptor, b"\0" * _ROOM)
            os.fsync(descriptor)
            return os.fstat(descriptor).st_size == _ROOM
        finally:
            os.close(descriptor)
    except OSError:
        return False
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()
