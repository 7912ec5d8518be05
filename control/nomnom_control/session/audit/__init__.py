"""The audit: who did what to which message, when, with what result. It outlives letters and streams.

What removes something (a replay, an undo, a deletion) refuses to start while the audit cannot be written. If PostgreSQL
goes away in the middle it stops, says how many entries wait in the journal
(:mod:`nomnom_control.session.audit.spool`) and where; the next session enters them. Pausing, resuming and purging do
not need PostgreSQL: their entries may wait too.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import asyncpg
import msgspec

from nomnom.connections.errors import DatabaseRefused, DatabaseUnavailable, NotSetUp
from nomnom.connections.postgres import Database
from nomnom.envelope import new_message_id
from nomnom.errors import NomnomError
from nomnom_control.errors import ControlError
from nomnom_control.session.audit import statements
from nomnom_control.session.audit.spool import Spool

__all__ = ["Action", "Audit", "AuditWaits", "Entry", "Ledger", "Record"]

_BATCH = 500


class Action(StrEnum):
    """What was done."""

    REPLAY = "replay"
    UNDO = "undo"
    DELETE = "delete"
    PURGE = "purge"
    PAUSE = "pause"
    RESUME = "resume"


class AuditWaits(ControlError):  # noqa: N818
    """Something was done whose audit entries PostgreSQL did not take; they wait in the journal ``path``."""

    def __init__(self, text: str, path: Path, entries: int) -> None:
        super().__init__(text)
        self.path, self.entries = path, entries


@dataclass(frozen=True, slots=True)
class Entry:
    """Something done. ``run`` groups the entries of one command; ``detail`` is JSON.

    ``unconfirmed`` is the result to enter where the session broke before it knew how this came out.
    """

    action: Action
    result: str
    entity: str = ""
    message_id: str | None = None
    sequence: int | None = None
    undoes: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict[str, Any])
    run: str = field(default_factory=new_message_id)
    event: str = field(default_factory=new_message_id)
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    actor: str = ""
    unconfirmed: str = "unconfirmed"


@dataclass(frozen=True, slots=True)
class Record(Entry):
    """An entry as the audit holds it, with its number."""

    id: int = 0


class _Line(msgspec.Struct):
    """A journal's line."""

    entry: Entry
    confirmed: bool = False


class Audit:
    """One pipeline's audit; ``folder`` keeps the journals."""

    def __init__(self, database: Database, folder: Path, actor: str) -> None:
        self._database, self._folder, self.actor = database, folder, actor

    async def read(
        self,
        *,
        before: int | None = None,
        limit: int = 100,
        message_id: str | None = None,
        run: str | None = None,
        action: Action | None = None,
        actor: str | None = None,
        entity: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> list[Record]:
        """Entries, newest first; the next page is that ``before`` the last one's ``id``. Raises DatabaseUnavailable."""
        await self._enter_left_behind()
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                statements.READ, before, message_id, run, action, actor, entity, since, until, limit
            )
        return [_record(row) for row in rows]

    async def replays_to_undo(
        self, *, message_id: str | None = None, run: str | None = None, after: int = 0, limit: int = 1000
    ) -> list[Record]:
        """Replays of a message or a run that nobody has undone, by ``id`` from above ``after`` on."""
        await self._enter_left_behind()
        async with self._database.connection() as connection:
            rows = await connection.fetch(statements.REPLAYS_TO_UNDO, message_id, run, after, limit)
        return [_record(row) for row in rows]

    @asynccontextmanager
    async def ledger(self) -> AsyncGenerator[Ledger, None]:
        """What a session of changes writes its entries to.

        Raises DatabaseUnavailable or NotSetUp, before anything is done, where the audit cannot be written; AuditWaits
        at the end where entries had to stay in the journal.
        """
        identity = await self._enter_left_behind()
        ledger = Ledger(self._database, Spool(self._folder / identity, new_message_id()), self.actor)
        try:
            yield ledger
        finally:
            await asyncio.to_thread(ledger.spool.close)

    async def note(self, entries: Sequence[Entry]) -> None:
        """Enter what was done already and does not wait for PostgreSQL; raises ControlError where nothing takes it.

        While PostgreSQL does not take the entries they stay in the journal, until a session enters them.
        """
        try:
            async with self.ledger() as ledger:
                await ledger.prepare(entries)
                await ledger.enter()
        except AuditWaits:
            return  # in the journal already, as this promises
        except (DatabaseUnavailable, DatabaseRefused, NotSetUp):
            waiting = Ledger(self._database, Spool(self._folder / self._address, new_message_id()), self.actor)
            try:
                await waiting.prepare(entries, confirmed=True)
            finally:
                await asyncio.to_thread(waiting.spool.close)

    @property
    def _address(self) -> str:
        """The folder for a database that cannot be asked who it is: told apart by its address and password."""
        return "at-" + hashlib.sha256(self._database.url.encode()).hexdigest()[:16]

    async def _enter_left_behind(self) -> str:
        """Enter what earlier sessions left in their journals; returns the database's identity."""
        async with self._database.connection() as connection:
            identity = str(await connection.fetchval(statements.IDENTITY))
            await connection.fetch(statements.CHECK)
        for folder in (self._folder / identity, self._folder / self._address):
            for spool in await asyncio.to_thread(Spool.left_behind, folder):
                try:
                    await Ledger(self._database, spool, self.actor).recover()
                finally:
                    await asyncio.to_thread(spool.close)
        return identity


class Ledger:
    """Entries on their way: prepared (journalled) before what they tell is done, entered in PostgreSQL after it."""

    def __init__(self, database: Database, spool: Spool, actor: str) -> None:
        self._database, self.spool, self._actor = database, spool, actor
        self._waiting: dict[str, Entry] = {}

    async def prepare(self, entries: Sequence[Entry], *, confirmed: bool = False) -> None:
        """Journal what is about to be done; raises ControlError where the disk does not take it."""
        named = [each if each.actor else replace(each, actor=self._actor) for each in entries]
        await self._write([_Line(each, confirmed) for each in named])
        self._waiting |= {each.event: each for each in named}

    async def enter(self, corrections: Sequence[Entry] = ()) -> None:
        """Enter what was prepared; ``corrections`` replace prepared entries of the same event. Raises AuditWaits."""
        for each in corrections:
            self._waiting[each.event] = each if each.actor else replace(each, actor=self._actor)
        if not self._waiting:
            return
        entries = list(self._waiting.values())
        try:
            await self._insert(entries)
        except NomnomError as error:
            await self._write([_Line(each, confirmed=True) for each in entries])
            raise AuditWaits(
                f"{len(entries):,} audit entries of what was done wait in {self.spool.path} and are entered by the "
                f"next session that reaches PostgreSQL: {error}",
                self.spool.path,
                len(entries),
            ) from error
        self._waiting.clear()
        await asyncio.to_thread(self.spool.clear)

    async def recover(self) -> None:
        """Enter what a session that broke left in this journal."""
        lines = [msgspec.json.decode(line, type=_Line) for line in await asyncio.to_thread(self.spool.read)]
        last = {line.entry.event: line for line in lines}
        entries = [
            line.entry if line.confirmed else replace(line.entry, result=line.entry.unconfirmed)
            for line in last.values()
        ]
        for start in range(0, len(entries), _BATCH):
            await self._insert(entries[start : start + _BATCH])
        await asyncio.to_thread(self.spool.clear)

    async def _write(self, lines: Sequence[_Line]) -> None:
        if not lines:
            return
        try:
            await asyncio.to_thread(self.spool.write, [msgspec.json.encode(each) for each in lines])
        except OSError as error:
            raise ControlError(f"the audit's journal {self.spool.path} cannot be written: {error}") from error

    async def _insert(self, entries: Sequence[Entry]) -> None:
        columns = [
            [each.event for each in entries],
            [each.run for each in entries],
            [each.at for each in entries],
            [each.actor for each in entries],
            [each.action.value for each in entries],
            [each.message_id for each in entries],
            [each.entity for each in entries],
            [each.sequence for each in entries],
            [each.result for each in entries],
            [each.undoes for each in entries],
            [msgspec.json.encode(each.detail).decode() for each in entries],
        ]
        async with self._database.connection() as connection:
            await connection.execute(statements.INSERT, *columns)


def _record(row: asyncpg.Record) -> Record:
    return Record(
        id=row["id"],
        action=Action(row["action"]),
        result=row["result"],
        entity=row["entity"],
        message_id=str(row["message_id"]) if row["message_id"] else None,
        sequence=row["sequence"],
        undoes=str(row["undoes"]) if row["undoes"] else None,
        detail=msgspec.json.decode(row["detail"]),
        run=str(row["run"]),
        event=str(row["event"]),
        at=row["at"],
        actor=row["actor"],
    )
