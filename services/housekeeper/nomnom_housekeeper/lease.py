"""The lease: a session advisory lock of PostgreSQL, so that one housekeeper acts at a time.

The lock ends with its connection. That is noticed within seconds; meanwhile another housekeeper may already act, which
is safe, since each step may be repeated and two may do it at once. The lease only avoids the double work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg

from nomnom.connections.errors import RequestError, Unavailable
from nomnom.connections.postgres import ERRORS, Database, close
from nomnom.retry import RECONNECT
from nomnom.tasks import end
from nomnom.telemetry import logger

_log = logger(__name__)
_LOCK = 0x6E6F6D6E6F6F
"""In the sequence of the locks of setup (nomnom.database) and of partitioning (nomnom.partitions)."""
_ACQUIRE = "SELECT pg_try_advisory_lock($1)"
_HELD = """
SELECT EXISTS (
    SELECT FROM pg_locks
    WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND (classid::bigint << 32 | objid::bigint) = $1
)
"""
_TIMEOUT = 5.0


class Lease:
    """Runs the work while the lease is held. ``interval``: seconds between attempts, and between checks."""

    def __init__(self, database: Database, interval: float = 2.0) -> None:
        self._database, self._interval = database, interval
        self.held = False
        """Whether the lease is held."""
        self.problem: str | None = "not connected yet"
        """Why PostgreSQL is unavailable; None if it is available."""

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Acquire the lease, run ``work``, and acquire it again after a loss, which cancels ``work``.

        Ends when ``work`` ends; raises what it raises.
        """
        failures = 0
        while True:
            try:
                connection = await self._database.connect(_TIMEOUT)
            except RequestError as error:
                failures += 1
                self._report(error)
                await asyncio.sleep(RECONNECT.wait(failures))
                continue
            failures = 0
            try:
                if await self._hold(connection, work):
                    return
            except ERRORS as error:
                self._report(self._database.error(error))
            finally:
                self.held = False
                await close(connection)

    async def _hold(self, connection: asyncpg.Connection, work: Callable[[], Awaitable[None]]) -> bool:
        """Wait for the lease and run ``work``; returns whether it ended by itself. Raises what asyncpg raises."""
        standing_by = False
        while not await connection.fetchval(_ACQUIRE, _LOCK):
            self.problem = None
            if not standing_by:
                _log.info("standing by: another housekeeper holds the lease")
                standing_by = True
            await asyncio.sleep(self._interval)
        self.problem, self.held = None, True
        _log.info("lease acquired")
        working = asyncio.ensure_future(work())
        try:
            while True:
                done, _ = await asyncio.wait({working}, timeout=self._interval)
                if done:
                    working.result()
                    return True
                if not await connection.fetchval(_HELD, _LOCK):
                    raise asyncpg.InterfaceError("the connection does not hold the lock any more")
        finally:
            await end(working)

    def _report(self, error: RequestError) -> None:
        reason = error.reason if isinstance(error, Unavailable) else str(error)
        if reason != self.problem or self.held:
            _log.warning("lease lost" if self.held else "PostgreSQL is unavailable", reason=reason)
        self.problem = reason
