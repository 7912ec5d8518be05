"""What an audit entry means for the status of its message: set in the transaction that writes the entry.

So an entry and the status cannot disagree, whichever session writes the entry: the one that acted, or a later one that
finds it in the spool.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import asyncpg

from nomnom.envelope import DEAD, Envelope, EnvelopeError, Status, read_envelope
from nomnom.message_status import REMOVABLE_DEAD_LETTER, REMOVE, RESTORE
from nomnom.positions import RECORD
from nomnom_control.session.audit.entries import Action, Entry

DELETED = "deleted"
"""The result of a deletion that removed the dead letter."""
REMOVED = "removed"
"""In the detail of an undo: whether the message of the replay was removed from the stream."""


async def apply(connection: asyncpg.Connection, entries: Iterable[Entry]) -> None:
    """Set the statuses that follow from new entries, inside the caller's transaction."""
    deleted: list[tuple[Envelope, datetime]] = []
    undone: list[tuple[Envelope, int]] = []
    for each in entries:
        if each.action is Action.DELETE and each.result == DELETED:
            deleted += [(envelope, each.at) for envelope in _envelope(each)]
        elif each.action is Action.UNDO and each.detail.get(REMOVED):
            undone += [(envelope, int(each.detail["position"])) for envelope in _envelope(each)]
    if deleted:
        await remove(connection, Status.DELETED, deleted, REMOVABLE_DEAD_LETTER)
    if undone:
        await connection.execute(
            RECORD,
            [position for _, position in undone],
            [envelope.message_id for envelope, _ in undone],
            ["undone"] * len(undone),
        )
        await connection.execute(
            RESTORE,
            [envelope.message_id for envelope, _ in undone],
            [envelope.received_at for envelope, _ in undone],
            [envelope.replays for envelope, _ in undone],
        )


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


def _envelope(entry: Entry) -> list[Envelope]:
    """The envelope of the dead letter in an entry's detail; none if it was not one of ours, which has no status."""
    dead_letter: Mapping[str, Any] = entry.detail["letter"]
    try:
        return [read_envelope(dead_letter["subject"], dead_letter["headers"], DEAD)]
    except EnvelopeError:
        return []
