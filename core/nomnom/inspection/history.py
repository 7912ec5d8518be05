"""What was done to a message: the entries of the audit log that concern it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from nomnom.connections.postgres import Database

# The entry of a purge concerns many messages, whose rows have its time.
_FIND = """
SELECT at, actor, action, result FROM (
    (SELECT id, at, actor, action, result FROM nomnom_audit WHERE message_id = $1 ORDER BY id DESC LIMIT $3)
    UNION ALL
    (
        SELECT id, at, actor, action, result FROM nomnom_audit
        WHERE at = $2 AND message_id IS NULL AND action IN ('purge', 'expire')
        LIMIT $3
    )
) AS found
ORDER BY at, id
"""
_LIMIT = 100


@dataclass(frozen=True, slots=True)
class Operation:
    """An entry of the audit log, as far as it concerns one message."""

    at: datetime
    actor: str
    action: str
    result: str

    def __str__(self) -> str:
        return f"{self.action} by {self.actor}: {self.result}"


async def read_history(database: Database, message_id: str, removed_at: datetime | None) -> list[Operation]:
    """The operations on a message, oldest first; at most the newest 100.

    ``removed_at`` is the time in the row of a message that was removed. Raises RequestError.
    """
    rows = await database.fetch(_FIND, message_id, removed_at, _LIMIT)
    return [Operation(row["at"], row["actor"], row["action"], row["result"]) for row in rows]
