"""The status of messages that were removed: by people, or by the housekeeper."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

import asyncpg

from nomnom.envelope import Envelope, Status
from nomnom.message_status import REMOVE


async def remove(
    connection: asyncpg.Connection,
    status: Status,
    removed: Iterable[tuple[Envelope, datetime]],
    removable: Sequence[str],
) -> None:
    """Set the status of removed messages, each with the time of its removal (see REMOVE)."""
    last: dict[tuple[str, datetime], tuple[Envelope, datetime]] = {}
    for envelope, at in removed:
        identity = (envelope.message_id, envelope.received_at)
        if identity not in last or last[identity][0].replays <= envelope.replays:
            last[identity] = (envelope, at)
    rows = [last[each] for each in sorted(last)]
    await connection.execute(
        REMOVE,
        [envelope.message_id for envelope, _ in rows],
        [envelope.entity for envelope, _ in rows],
        [envelope.received_at for envelope, _ in rows],
        [envelope.replays for envelope, _ in rows],
        [envelope.position for envelope, _ in rows],
        [at for _, at in rows],
        status.value,
        removable,
    )
