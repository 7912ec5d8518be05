"""Files of records into the pipeline, through the api: bounded, repeated where the api is away, resumed where it stopped.

A file is cut into chunks of whole lines. A chunk's Idempotency-Key follows from the file's identity and the chunk's
offset, so a chunk that is sent twice is the same messages; which chunks were acknowledged is on disk
(:mod:`nomnom_control.ingestion.journal`), so a killed run goes on where it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from nomnom.envelope import new_message_id
from nomnom.schema import Entity, Schema, SchemaError
from nomnom_control.connections import Api
from nomnom_control.errors import ControlError
from nomnom_control.ingestion.journal import Done, Header, Journal, JournalError
from nomnom_control.ingestion.sending import BatchSender, GaveUp, MessageSender, Outcome, Patience, Refusal, Sender
from nomnom_control.ingestion.sources import CHUNK_BYTES, Chunk, ChunkSize, Source, SourceError

__all__ = [
    "GaveUp",
    "Ingestion",
    "JournalError",
    "NotRecords",
    "Options",
    "Refusal",
    "Source",
    "SourceError",
    "Tally",
    "entity_of_file",
]

_SHOWN_REFUSALS = 1000
_LOOKED_AT = 20


class NotRecords(ControlError):  # noqa: N818
    """A file whose first lines are none of the schema's records."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to send. Times in seconds."""

    lines: int = 5000
    """Lines a request."""
    in_flight: int = 4
    """Requests at a time. With one, lines are received in the file's order, and of one key the last line wins."""
    patience: float = 120.0
    """How long to go on while the api takes nothing."""
    grouped: bool = False
    """Child lines join the parent above them: one message, one request."""
    unchecked: bool = False
    """Send though no first line is a record of the schema."""


@dataclass(slots=True)
class Tally:
    """What has been sent of one source. Earlier runs' part counts in all but ``seconds`` and ``sent``."""

    name: str
    size: int | None = None
    """Bytes in all, where known; ``position`` of them are acknowledged."""
    position: int = 0
    lines: int = 0
    """Lines acknowledged, blank ones too."""
    records: int = 0
    """Messages that were in them."""
    accepted: int = 0
    duplicates: int = 0
    refused: int = 0
    sent: int = 0
    """Messages answered in this run."""
    resumed_at: int | None = None
    """The line at which this run went on, where an earlier one had stopped."""
    finished_before: datetime | None = None
    """When an earlier run had finished; this one sent nothing."""
    seconds: float = 0.0
    refusals: list[Refusal] = field(default_factory=list[Refusal])
    """The first refusals of this run."""

    @property
    def rate(self) -> float:
        """Messages a second in this run."""
        return self.sent / self.seconds if self.seconds > 0 else 0.0


@dataclass
class Ingestion:
    """One source on its way into the pipeline. ``folder`` keeps the journals; a pipe has none and cannot be resumed."""

    source: Source
    api: Api
    schema: Schema
    folder: Path
    entity: Entity | None = None
    """Its tag is put before each line."""
    options: Options = field(default_factory=Options)
    restart: bool = False
    rejects: IO[bytes] | None = None
    """Gets the lines that were refused, as they stand in the source."""
    changed: Callable[[Tally], None] = lambda _: None
    """Told of each acknowledged chunk."""
    waiting: Callable[[str, float], None] = lambda _, __: None
    """Told why, and for how many seconds, nothing is sent."""
    tally: Tally = field(init=False)

    def __post_init__(self) -> None:
        self.tally = Tally(self.source.name)
        if self.options.grouped and self.entity is not None:
            raise NotRecords("lines that are grouped carry their own tags: leave the entity out")

    async def run(self) -> Tally:
        """Send all of it. Cancelled, or after an error, a later run of the same file goes on where this one was.

        Raises SourceError, JournalError, NotRecords, GaveUp, ApiRefused.
        """
        loop = asyncio.get_running_loop()
        begun = loop.time()
        journal = await self._open_journal()
        try:
            if journal is not None and journal.finished_at is not None:
                self.tally.finished_before = journal.finished_at
                return self.tally
            await self._send_all(journal, begun)
            if journal is not None:
                await asyncio.to_thread(journal.finish)
        except BaseExceptionGroup as group:
            raise _first(group) from None
        finally:
            self.tally.seconds = loop.time() - begun
            if journal is not None:
                await asyncio.to_thread(journal.close)
        return self.tally

    async def _open_journal(self) -> Journal | None:
        if self.source.path is None:
            return None
        identity = await asyncio.to_thread(self.source.identity, self.entity.name if self.entity else None)
        header = Header(
            name=self.source.name,
            identity=identity,
            lines=self.options.lines,
            bytes=CHUNK_BYTES,
            grouped=self.options.grouped,
            begun_at=datetime.now(UTC),
        )
        journal = await asyncio.to_thread(Journal.open, self.folder, header, restart=self.restart)
        if journal.header.grouped != self.options.grouped:
            await asyncio.to_thread(journal.close)
            way = "with its lines grouped" if journal.header.grouped else "line by line"
            raise JournalError(f"{self.source.name} was begun {way}: go on so, or start anew with --restart")
        tally = self.tally
        tally.size = self.source.size
        for each in journal.done.values():
            self._count(each)
        if journal.done and journal.finished_at is None:
            tally.resumed_at = journal.reached[1]
        return journal

    def _begins(self) -> Callable[[bytes], bool]:
        children = tuple(each.tag.encode() + b"|" for each in self.schema if each.parent is not None)
        return lambda line: not line.startswith(children)

    def _sender(self) -> Sender:
        patience = Patience(self.options.patience, self.waiting)
        if self.options.grouped:
            return MessageSender(self.api, patience, self._begins())
        return BatchSender(self.api, patience, self.entity.tag.encode() + b"|" if self.entity else b"")

    async def _send_all(self, journal: Journal | None, begun: float) -> None:
        key = journal.key if journal is not None else f"ingest:{new_message_id()}"
        offset, line = journal.reached if journal is not None else (0, 1)
        kept = journal.header if journal is not None else None
        size = ChunkSize(
            kept.lines if kept else self.options.lines,
            kept.bytes if kept else CHUNK_BYTES,
            self._begins() if self.options.grouped else None,
        )
        sender = self._sender()
        slots = asyncio.Semaphore(self.options.in_flight)

        async def send(chunk: Chunk) -> None:
            try:
                outcome = await sender.send(chunk, f"{key}:{chunk.start}")
                await self._acknowledged(chunk, outcome, journal, begun)
            finally:
                slots.release()

        async with asyncio.TaskGroup() as group, aclosing(self.source.chunks(size, offset, line)) as chunks:
            async for chunk in chunks:
                if chunk.start == 0 and not self.options.unchecked:
                    check_tags(chunk.lines, self.schema, self.entity, self.source.name)
                if journal is None or chunk.start not in journal.done:
                    await slots.acquire()
                    group.create_task(send(chunk))

    async def _acknowledged(self, chunk: Chunk, outcome: Outcome, journal: Journal | None, begun: float) -> None:
        refused = len(outcome.refused)
        if refused and self.rejects is not None:
            # Before the journal says that the chunk is done: a line may be there twice, and never be missing.
            await asyncio.to_thread(_write_lines, self.rejects, outcome.refused)
        done = Done(
            chunk.start,
            chunk.end,
            len(chunk.lines),
            outcome.records,
            outcome.accepted,
            outcome.duplicates,
            refused,
        )
        if journal is not None:
            await asyncio.to_thread(journal.add, done)
        tally = self.tally
        self._count(done)
        tally.sent += outcome.records
        tally.refusals += outcome.refused[: max(0, _SHOWN_REFUSALS - len(tally.refusals))]
        tally.seconds = asyncio.get_running_loop().time() - begun
        self.changed(tally)

    def _count(self, done: Done) -> None:
        tally = self.tally
        # A compressed file's size is that of what is on disk: its own position tells how far it is.
        tally.position = self.source.position if self.source.compressed else tally.position + done.end - done.start
        tally.lines += done.lines
        tally.records += done.records
        tally.accepted += done.accepted
        tally.duplicates += done.duplicates
        tally.refused += done.refused


def entity_of_file(path: Path, schema: Schema) -> Entity:
    """The entity that a file's name tells (``orders.tbl.gz``: orders); raises NotRecords where it tells none."""
    name = path.name.split(".")[0].lower()
    found = next((each for each in schema if name in (each.name, each.table)), None)
    if found is None:
        known = ", ".join(each.name for each in schema)
        raise NotRecords(f"the name of {path} tells no entity; give --entity, one of {known}")
    return found


def find_entity(name: str, schema: Schema) -> Entity:
    """The entity of this name, tag or table; raises NotRecords."""
    try:
        return schema.entity(name)
    except SchemaError as error:
        raise NotRecords(error.problem) from error


def check_tags(lines: Sequence[bytes], schema: Schema, entity: Entity | None, name: str) -> None:
    """Whether the first lines can be records at all; raises NotRecords, so that a slip does not fill the dead letters."""
    first = [line for line in lines if line.strip()][:_LOOKED_AT]
    tags = [line[: line.find(b"|")].decode(errors="replace") if b"|" in line else "" for line in first]
    if not first:
        return
    if entity is not None:
        if all(tag == entity.tag for tag in tags):
            raise NotRecords(f"the lines of {name} begin with {entity.tag}| already: leave --entity out")
        return
    if any(schema.by_tag(tag) for tag in tags):
        return
    known = ", ".join(f"{each.tag} ({each.name})" for each in schema)
    begins = first[0][:40].decode(errors="replace")
    raise NotRecords(
        f"no line at the start of {name} begins with a tag of the schema {schema.name} (the first is {begins!r}): if "
        f"they lack their tag, --entity names it, one of {known}; --unchecked sends them as they are"
    )


def _write_lines(file: IO[bytes], refusals: Sequence[Refusal]) -> None:
    file.writelines(each.text + b"\n" for each in refusals)
    file.flush()


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that ended a group of tasks."""
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
