"""What an audit entry means for the status of its message: set in the transaction that writes the entry.

So an entry and the status cannot disagree, whichever session writes the entry: the one that acted, or a later one that
finds it in the spool.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import asyncpg

from nomnom.envelope import DEAD, Envelope, EnvelopeError, Status, read_envelope
from nomnom.message_status import REMOVABLE_DEAD_LETTER, RESTORE
from nomnom.positions import RECORD
from nomnom.removals import remove
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


def _envelope(entry: Entry) -> list[Envelope]:
    """The envelope of the dead letter in an entry's detail; none if it was not one of ours, which has no status."""
    dead_letter: Mapping[str, Any] = entry.detail["letter"]
    try:
        return [read_envelope(dead_letter["subject"], dead_letter["headers"], DEAD)]
    except EnvelopeError:
        return []
