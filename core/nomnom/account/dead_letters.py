"""The dead letters in the account: each row with the status dlq has its dead letter, and each dead letter a row.

The subjects of the stream name the messages, so that no dead letter has to be read. A row without a dead letter is one
whose replay waits in MESSAGES, or a loss. A message whose row is missing is known by its dead letter. A row with the
status failed or processing has its message in the stream. Like sequences, what is missing is looked up again seconds
later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import asyncpg

from nomnom.account import statements
from nomnom.account.presence import find_at_leader
from nomnom.connections.postgres import Database
from nomnom.envelope import (
    DEAD,
    EnvelopeError,
    dead_subject,
    ingest_subject,
    parse_message_id,
    pending_subjects,
    read_envelope,
)
from nomnom.inspection.jetstream import JetStream
from nomnom.inspection.jetstream.messages import StoredMessage, read_last
from nomnom.positions import BLOCK_BITS
from nomnom.segments import is_in_segment
from nomnom.settings.streams import StreamSettings

if TYPE_CHECKING:
    from nomnom.account.verification import Incarnation

_SHORTEST, _SHARE = 10.0, 10
"""Seconds between two checks, and the share of the time that they may take, as a divisor."""
_LOOKED_UP = 500
"""Missing dead letters that one call looks up."""
_BATCH = 5000


class DeadLetterCheck:
    """Compares the rows with the status dlq and the dead letters."""

    def __init__(self, database: Database, jetstream: JetStream, streams: StreamSettings, confirmation: float) -> None:
        self._database, self._jetstream, self._streams = database, jetstream, streams
        self._confirmation = confirmation
        self._suspicious: dict[tuple[str, str], float] = {}
        self._due = 0.0

    @property
    def suspicious(self) -> int:
        """How many dead letters or rows have to be looked up again."""
        return len(self._suspicious)

    async def verify(self, incarnations: Sequence[Incarnation], *, forced: bool) -> None:
        """Compare, at most every few seconds unless ``forced`` or something is suspicious; records what is missing."""
        clock = asyncio.get_running_loop().time
        begun = clock()
        if begun < self._due and not forced and not self._suspicious:
            return
        rows = await self._database.fetch(statements.DEAD)
        positions = {
            str(row["message_id"]): row["stream_position"]
            for row in rows
            if _accounted(row["stream_position"], incarnations)
        }
        stored = await self._stored()
        await self._resolve(positions, stored)
        missing: dict[tuple[str, str], int] = {}
        for each in await self._without_dead_letter([each for each in positions if each not in stored]):
            missing["dead letter", each] = positions[each]
        for each, position in await self._without_row([each for each in stored if each not in positions]):
            if _accounted(position, incarnations) and await self._database.fetch(statements.GAPS, position, position):
                missing["sequence", each] = position
        unfinished = await self._database.fetch(statements.UNFINISHED, self._confirmation, _LOOKED_UP)
        for each, position in (await self._without_message(unfinished)).items():
            if _accounted(position, incarnations):
                missing["pending", each] = position
        await self._confirm(missing)
        await self._database.fetch(statements.DEAD_LETTERS_VERIFIED)
        self._due = clock() + max(_SHORTEST, _SHARE * (clock() - begun))

    async def _stored(self) -> set[str]:
        """The message IDs of the dead letters."""
        subjects = await self._jetstream.subjects(self._streams.dead_stream, f"{DEAD}.>")
        ids = (parse_message_id(each.rpartition(".")[2]) for each in subjects)
        return {each for each in ids if each is not None}

    async def _without_dead_letter(self, ids: Sequence[str]) -> list[str]:
        """The messages whose dead letter is neither stored nor being replayed, although their row says so."""
        if not ids:
            return []
        streams = self._streams
        found: list[str] = []
        for each in ids[:_LOOKED_UP]:
            stored = await self._find(streams.dead_stream, dead_subject("*", each))
            if stored is None and await self._find(streams.stream, ingest_subject("*", each)) is None:
                found.append(each)
        still = await self._database.fetch(statements.STILL_DEAD, found)
        return [str(row["message_id"]) for row in still]

    async def _without_message(self, rows: Sequence[asyncpg.Record]) -> dict[str, int]:
        """The positions of the messages of unfinished rows that are not in the stream, by message ID."""
        found: dict[str, bool] = {}
        missing: list[str] = []
        for row in rows:
            message_id = str(row["message_id"])
            # First that of a segment, which is looked up once for all its messages.
            for subject in reversed(pending_subjects(message_id)):
                if subject not in found:
                    # Not read: a segment is large.
                    found[subject] = bool(await self._jetstream.subjects(self._streams.stream, subject))
                if found[subject]:
                    break
            else:
                missing.append(message_id)
        if not missing:
            return {}
        still = await self._database.fetch(statements.STILL_UNFINISHED, missing)
        return {str(row["message_id"]): row["stream_position"] for row in still}

    async def _find(self, stream: str, subject: str) -> int | None:
        return await find_at_leader(self._jetstream, stream, {"last_by_subj": subject})

    async def _without_row(self, ids: Sequence[str]) -> list[tuple[str, int]]:
        """The dead letters of messages without any row, and their positions."""
        unknown: list[str] = []
        for start in range(0, len(ids), _BATCH):
            part = ids[start : start + _BATCH]
            known = {str(row["message_id"]) for row in await self._database.fetch(statements.KNOWN, part)}
            unknown += [each for each in part if each not in known]
        found: list[tuple[str, int]] = []
        for each in unknown[:_LOOKED_UP]:
            stored = await read_last(self._jetstream.nats, self._streams.dead_stream, dead_subject("*", each))
            if stored is not None:
                found.append((each, _position(stored)))
        return found

    async def _confirm(self, missing: dict[tuple[str, str], int]) -> None:
        now = asyncio.get_running_loop().time()
        known = {
            (row["kind"], str(row["message_id"]))
            for row in await self._database.fetch(statements.UNEXPLAINED, 0, (1 << 63) - 1, None)
        }
        kept: dict[tuple[str, str], float] = {}
        for (kind, message_id), position in missing.items():
            if (kind, message_id) in known:
                continue
            since = self._suspicious.get((kind, message_id), now)
            if now - since < self._confirmation:
                kept[kind, message_id] = since
                continue
            if kind == "sequence":
                await self._database.fetch(statements.OPEN, [position >> BLOCK_BITS])
                if await self._database.fetch(statements.NAME, position, message_id):
                    continue
            lacking = kind == "sequence" and is_in_segment(message_id)
            noted = "rows" if lacking else kind
            await self._database.fetch(statements.NOTE, noted, position, position, 1, message_id)
        self._suspicious = kept

    async def _resolve(self, positions: dict[str, int], stored: Iterable[str]) -> None:
        """Resolve what is complete again, or has another status now."""
        for row in await self._database.fetch(statements.UNEXPLAINED, 0, (1 << 63) - 1, None):
            each = str(row["message_id"])
            if row["kind"] == "dead letter" and (each not in positions or each in stored):
                await self._database.fetch(statements.RESOLVE, row["id"])
            if row["kind"] == "pending":
                unfinished = await self._database.fetch(statements.STILL_UNFINISHED, [each])
                if not await self._without_message(unfinished):
                    await self._database.fetch(statements.RESOLVE, row["id"])


def _accounted(position: int, incarnations: Iterable[Incarnation]) -> bool:
    return any(each.low <= position <= each.high for each in incarnations)


def _position(stored: StoredMessage) -> int:
    try:
        return read_envelope(stored.subject, stored.headers, DEAD).position
    except EnvelopeError:
        return 0
