"""The results of operations whose session ended before it knew them, found out from the streams by a later session."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nomnom.envelope import MSG_ID
from nomnom.inspection.jetstream.messages import read_one
from nomnom_control.session.audit.effects import DELETED, REMOVED
from nomnom_control.session.audit.entries import Action, Entry

if TYPE_CHECKING:
    from nomnom_control.session.pipeline import Pipeline


class Recovery:
    """Finds out what became of interrupted operations. Raises NatsUnavailable, NotSetUp or DatabaseUnavailable."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    async def conclude(self, entries: Sequence[Entry]) -> list[Entry]:
        """The entries with their actual results, where a stream shows them."""
        return [await self._conclude(each) for each in entries]

    async def _conclude(self, entry: Entry) -> Entry:
        match entry.action:
            case Action.DELETE:
                return replace(entry, result="not deleted" if await self._has_dead_letter(entry) else DELETED)
            case Action.UNDO:
                detail = {**entry.detail, REMOVED: await self._is_removed(entry)}
                return replace(entry, result=entry.unconfirmed, detail=detail)
            case Action.PURGE:
                from nomnom_control.session.jetstream.purging import conclude

                return await conclude(self._pipeline, entry)
            case _:
                return replace(entry, result=entry.unconfirmed)

    async def _has_dead_letter(self, entry: Entry) -> bool:
        """Whether the dead letter of a deletion exists, not another one with its sequence in a stream created again."""
        found = await read_one(self._pipeline.nats, self._pipeline.streams.dead_stream, entry.sequence or 0)
        dead_letter: dict[str, Any] = entry.detail["letter"]
        return (
            found is not None
            and found.subject == dead_letter["subject"]
            and dead_letter["headers"].items() <= found.headers.items()
        )

    async def _is_removed(self, entry: Entry) -> bool:
        """Whether the undo, and not a worker that processed it, removed the message of the replay from the stream."""
        if "position" not in entry.detail:
            return False
        found = await read_one(self._pipeline.nats, self._pipeline.streams.stream, entry.detail["stream_sequence"])
        if found is not None and found.headers.get(MSG_ID) == entry.detail["stream_message"]:
            return False
        message_id = str(entry.message_id)
        answer = (await self._pipeline.statuses.answers([message_id])).get(message_id)
        return answer is None or answer.replays <= entry.detail["replays"]
