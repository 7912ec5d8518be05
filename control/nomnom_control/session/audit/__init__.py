"""The audit log: who did what to which message, when, with what result. It outlives dead letters and streams.

Operations that remove something (replay, undo, deletion, purge) do not start while the audit log cannot be written. If
PostgreSQL becomes unavailable during an operation, it stops and reports how many entries remain in the spool
(:mod:`nomnom_control.session.audit.spool`); the next session writes them. Pausing and resuming do not need PostgreSQL,
nor does purging a stream that is not the pipeline's: their entries are spooled too.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TypeAlias

import asyncpg
import msgspec

from nomnom.connections.errors import DatabaseRefused, DatabaseUnavailable, NatsUnavailable, NotSetUp
from nomnom.connections.postgres import Database
from nomnom.envelope import new_message_id
from nomnom.errors import NomnomError
from nomnom.inspection.history import Operation, read_history
from nomnom_control.errors import ControlError
from nomnom_control.session.audit import statements
from nomnom_control.session.audit.effects import apply
from nomnom_control.session.audit.entries import Action, Entry, Record
from nomnom_control.session.audit.spool import Spool

__all__ = ["Action", "Audit", "AuditPending", "Entry", "Ledger", "Record"]

_BATCH = 500
Conclude: TypeAlias = Callable[[Sequence[Entry]], Awaitable[list[Entry]]]
"""Finds out the results of entries that an interrupted session left behind."""


class AuditPending(ControlError):  # noqa: N818
    """An operation was done, but its audit entries are not in PostgreSQL yet; they are in the spool ``path``."""

    def __init__(self, text: str, path: Path, entries: int) -> None:
        super().__init__(text)
        self.path, self.entries = path, entries


class _Line(msgspec.Struct):
    """A line of the spool."""

    entry: Entry
    confirmed: bool = False


class Audit:
    """The audit log of a pipeline; ``folder`` is the folder of the spool files."""

    def __init__(self, database: Database, folder: Path, actor: str, conclude: Conclude) -> None:
        self._database, self._folder, self.actor, self._conclude = database, folder, actor, conclude

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
        """Entries, newest first; ``before`` the last entry's ``id`` is the next page. Raises DatabaseUnavailable."""
        await self._write_spooled()
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                statements.READ, before, message_id, run, action, actor, entity, since, until, limit
            )
        return [_record(row) for row in rows]

    async def history(self, message_id: str, removed_at: datetime | None) -> list[Operation]:
        """The operations on one message, oldest first (see :func:`nomnom.inspection.history.read_history`)."""
        await self._write_spooled()
        return await read_history(self._database, message_id, removed_at)

    async def replays_to_undo(
        self, *, message_id: str | None = None, run: str | None = None, after: int = 0, limit: int = 1000
    ) -> list[Record]:
        """Replays of a message or a run that were not undone, with an ``id`` greater than ``after``, in order."""
        await self._write_spooled()
        async with self._database.connection() as connection:
            rows = await connection.fetch(statements.REPLAYS_TO_UNDO, message_id, run, after, limit)
        return [_record(row) for row in rows]

    @asynccontextmanager
    async def ledger(self) -> AsyncGenerator[Ledger, None]:
        """The ledger that an operation writes its entries to.

        Raises DatabaseUnavailable or NotSetUp at the start if the audit log cannot be written, and AuditPending at
        the end if entries remain in the spool.
        """
        identity = await self._write_spooled()
        ledger = Ledger(self._database, Spool(self._folder / identity, new_message_id()), self.actor)
        try:
            yield ledger
        finally:
            await asyncio.to_thread(ledger.spool.close)

    async def note(self, entries: Sequence[Entry]) -> None:
        """Record operations that are done already, in the spool if PostgreSQL is unavailable.

        Raises ControlError if the spool cannot be written either.
        """
        try:
            async with self.ledger() as ledger:
                await ledger.prepare(entries)
                await ledger.write()
        except AuditPending:
            return  # the entries are in the spool
        except (DatabaseUnavailable, DatabaseRefused, NotSetUp):
            pending = Ledger(self._database, Spool(self._folder / self._address, new_message_id()), self.actor)
            try:
                await pending.prepare(entries, confirmed=True)
            finally:
                await asyncio.to_thread(pending.spool.close)

    @property
    def _address(self) -> str:
        """The spool folder while the database's identity cannot be read: a hash of its address and password."""
        return "at-" + hashlib.sha256(self._database.url.encode()).hexdigest()[:16]

    async def _write_spooled(self) -> str:
        """Write the entries that earlier sessions left in their spool files; returns the database's identity."""
        async with self._database.connection() as connection:
            identity = str(await connection.fetchval(statements.IDENTITY))
            await connection.fetch(statements.CHECK)
        for folder in (self._folder / identity, self._folder / self._address):
            for spool in await asyncio.to_thread(Spool.left_behind, folder):
                try:
                    await Ledger(self._database, spool, self.actor).recover(self._conclude)
                except (NatsUnavailable, NotSetUp):
                    # What became of them is not known before the streams are back; a later call finds it out.
                    continue
                finally:
                    await asyncio.to_thread(spool.close)
        return identity


class Ledger:
    """Writes entries in two steps: to the spool before an operation, and to PostgreSQL after it."""

    def __init__(self, database: Database, spool: Spool, actor: str) -> None:
        self._database, self.spool, self._actor = database, spool, actor
        self._pending: dict[str, Entry] = {}

    async def prepare(self, entries: Sequence[Entry], *, confirmed: bool = False) -> None:
        """Spool entries before the operation. Raises ControlError if the file cannot be written."""
        named = [each if each.actor else replace(each, actor=self._actor) for each in entries]
        await self._spool_lines([_Line(each, confirmed) for each in named])
        self._pending |= {each.event: each for each in named}

    async def write(self, corrections: Sequence[Entry] = ()) -> None:
        """Write the prepared entries; ``corrections`` replace entries of the same event. Raises AuditPending."""
        for each in corrections:
            self._pending[each.event] = each if each.actor else replace(each, actor=self._actor)
        if not self._pending:
            return
        entries = list(self._pending.values())
        try:
            await self._insert(entries)
        except NomnomError as error:
            await self._spool_lines([_Line(each, confirmed=True) for each in entries])
            raise AuditPending(
                f"{len(entries):,} audit entries are not in PostgreSQL yet: {error}; they are kept in "
                f"{self.spool.path}, and the next session that reaches PostgreSQL writes them",
                self.spool.path,
                len(entries),
            ) from error
        self._pending.clear()
        await asyncio.to_thread(self.spool.clear)

    async def recover(self, conclude: Conclude) -> None:
        """Write the entries that an interrupted session left in this spool file."""
        lines = [msgspec.json.decode(line, type=_Line) for line in await asyncio.to_thread(self.spool.read)]
        last = {line.entry.event: line for line in lines}
        entries = [line.entry for line in last.values() if line.confirmed]
        entries += await conclude([line.entry for line in last.values() if not line.confirmed])
        for start in range(0, len(entries), _BATCH):
            await self._insert(entries[start : start + _BATCH])
        await asyncio.to_thread(self.spool.clear)

    async def _spool_lines(self, lines: Sequence[_Line]) -> None:
        if not lines:
            return
        try:
            await asyncio.to_thread(self.spool.write, [msgspec.json.encode(each) for each in lines])
        except OSError as error:
            raise ControlError(f"cannot write the audit spool {self.spool.path}: {error}") from error

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
            added = {str(row["event"]) for row in await connection.fetch(statements.INSERT, *columns)}
            await apply(connection, [each for each in entries if each.event in added])


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
