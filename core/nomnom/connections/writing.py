"""Whether PostgreSQL can write: what it reads says nothing about a full disk or a server that became read-only."""

from __future__ import annotations

import asyncpg

from nomnom.connections.postgres import transaction
from nomnom.message_status import CLAIM, CLAIM_COLUMNS

FILL = "SET LOCAL work_mem = '64kB'; SELECT count(*) FROM generate_series(1, 50000)"
"""Writes about 1 MB to a temporary file: PostgreSQL keeps up to work_mem of a function's rows in memory.

A small row would not find a full disk, because it fits into pages and a WAL segment that are allocated already. It
needs no privilege and no table, is allowed in a read-only transaction, and leaves nothing.
"""


async def check_writing(connection: asyncpg.Connection) -> None:
    """Check what every message needs; raises what asyncpg raises.

    The statement on ``message_status`` has no row: it finds a missing table or privilege, a lock, a read-only server.
    """
    async with transaction(connection):
        await connection.fetch(CLAIM, *[[]] * CLAIM_COLUMNS)
        await connection.execute(FILL)
