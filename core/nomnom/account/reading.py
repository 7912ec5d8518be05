"""Reading the account: what became of the messages of a period, from what is stored.

A period is a range of the stream's sequences, because a lost message has no other trace than its sequence, and because
clocks do not decide any order. It begins with the first message received at or after its beginning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, TypeAlias, get_args

import asyncpg
import msgspec

from nomnom.account import statements
from nomnom.account.ranges import Range
from nomnom.account.verification import Incarnation, incarnations_of
from nomnom.connections.errors import NotSetUp
from nomnom.connections.postgres import Database
from nomnom.envelope import SEGMENTS, Status, parse_message_id, segment_in
from nomnom.inspection.jetstream import JetStream, StreamReport
from nomnom.inspection.jetstream.messages import read_batch
from nomnom.inspection.jetstream.requests import API
from nomnom.positions import BLOCK_BITS, find_stream, position_of, sequence_of
from nomnom.segments import message_ids
from nomnom.settings.streams import StreamSettings

_NAMED = 1000
_SEGMENTS_READ = 100
_SECONDS = 60.0
"""Statements on millions of rows that were not verified yet may take this long."""


Kind: TypeAlias = Literal["sequence", "rows", "dead letter", "pending"]


@dataclass(frozen=True, slots=True)
class Unexplained:
    """A loss. ``kind`` is ``sequence`` (neither in the stream nor in a table), ``rows`` (messages of a segment have
    no row), ``dead letter`` (it does not exist, although the status of its message is dlq) or ``pending`` (it is not in
    the stream, although its status is failed or processing). ``messages`` is less than the sequences if it is not known
    which of them are lost.
    """

    kind: Kind
    incarnation: int
    first_sequence: int
    last_sequence: int
    messages: int
    message_id: str | None
    noticed_at: datetime


@dataclass(frozen=True, slots=True)
class Account:
    """What became of the messages accepted in a period: ``accepted`` is the sum of ``fates`` and ``unexplained``.

    Times are None if the period is not limited.
    """

    since: datetime | None
    until: datetime | None
    began_at: datetime | None
    """When the account began; earlier messages are not part of it."""
    accepted: int = 0
    completed: int = 0
    """Including ``superseded``."""
    superseded: int = 0
    dead_letters: int = 0
    pending: int = 0
    """In the stream; no worker has tried them."""
    processing: int = 0
    failed: int = 0
    """In the stream; will be retried."""
    deleted: int = 0
    purged: int = 0
    expired: int = 0
    retired: int = 0
    """Processed; their rows were dropped at the end of their retention."""
    unexplained: int = 0
    replayed: int = 0
    """Copies of messages, like ``repeated`` and ``removed``: they are not accepted messages of their own."""
    repeated: int = 0
    removed: int = 0
    """Copies that were removed: undone, purged, or an earlier life of a message under the same key."""
    waiting_replays: int = 0
    """Of ``replayed``: those in the stream."""
    verified_at: datetime | None = None
    """The oldest verification of any part of the account."""
    losses: tuple[Unexplained, ...] = field(default=())

    @property
    def explained(self) -> bool:
        """Whether nothing is unexplained."""
        return self.unexplained == 0

    @property
    def fates(self) -> int:
        """The explained messages."""
        return (
            self.completed
            + self.dead_letters
            + self.pending
            + self.processing
            + self.failed
            + self.deleted
            + self.purged
            + self.expired
            + self.retired
        )


async def read_account(
    database: Database,
    jetstream: JetStream,
    streams: StreamSettings,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Account:
    """The account of the messages received from ``since`` on and before ``until``; changes nothing.

    Raises NatsUnavailable, NotSetUp, DatabaseUnavailable or DatabaseRefused.
    """
    report = await jetstream.stream(streams.stream)
    listed = await jetstream.segments(streams.stream) if report.state.messages else {}
    arrived = [await _first_stored(jetstream, report, each) if each else None for each in (since, until)]
    async with database.connection(_SECONDS, snapshot=True) as connection:
        rows = await connection.fetch(statements.ACCOUNTS, streams.stream)
        present = await find_stream(connection, report.name, report.created)
        if present not in [row["incarnation"] for row in rows] or present is None:
            raise NotSetUp(
                f"stream {streams.stream} has no account yet; run nomnom setup or nomnom account --verify, or start "
                "the housekeeper"
            )
        incarnations = incarnations_of(rows, present, report.state.last_seq)
        low = await _boundary(connection, since, arrived[0], present) if since else 0
        high = await _boundary(connection, until, arrived[1], present) - 1 if until else (1 << 63) - 1
        present_part = next((each for each in incarnations if each.current), None)
        if listed and present_part is not None:
            state = report.state
            inside = (max(low, present_part.low), min(high, present_part.high))
            if sequence_of(inside[0]) > state.first_seq or sequence_of(inside[1]) < state.last_seq:
                listed = await _segments_between(jetstream, streams.stream, *map(sequence_of, inside))
        parts = [
            await _read_part(connection, each, max(low, each.low), min(high, each.high), report, listed)
            for each in incarnations
            if each.low <= high and each.high >= low
        ]
        verified = await connection.fetchval(statements.OLDEST_VERIFIED, streams.stream)
    totals = {name: sum(getattr(part, name) for part in parts) for name in _COUNTS}
    return Account(
        since,
        until,
        min((row["since"] for row in rows), default=None),
        **totals,
        verified_at=verified if isinstance(verified, datetime) and verified.year > 1 else None,
        losses=tuple(each for part in parts for each in part.losses),
    )


_COUNTS = (
    "accepted", "completed", "superseded", "dead_letters", "pending", "processing", "failed", "deleted", "purged",
    "expired", "retired", "unexplained", "replayed", "repeated", "removed", "waiting_replays",
)  # fmt: skip


async def _read_part(  # noqa: PLR0917 (what one part of the account is read from)
    connection: asyncpg.Connection,
    incarnation: Incarnation,
    low: int,
    high: int,
    report: StreamReport,
    segments: Mapping[str, int],
) -> Account:
    """The account of a range of one incarnation. ``segments``: the sizes of those in the stream, by ID."""
    rows, retired, retired_copies, doubles = await _count_rows(connection, incarnation, low, high)
    statuses = {row["status"]: row["messages"] for row in await connection.fetch(statements.OTHERS, low, high)}
    superseded = int(str(await connection.fetchval(statements.SUPERSEDED, low, high)))
    copies = {row["kind"]: row["copies"] for row in await connection.fetch(statements.COPIES, low, high)}
    found = await connection.fetch(statements.UNEXPLAINED, low, high, None)
    losses = [_unexplained(row, low, high) for row in found]
    lost = {kind: sum(each.messages for each in losses if each.kind == kind) for kind in get_args(Kind)}
    waiting = 0
    if incarnation.current and report.state.messages:
        begun = report.state.first_ts
        bounds = (max(sequence_of(low), report.state.first_seq), sequence_of(high))
        waiting = int(str(await connection.fetchval(statements.WAITING_REPLAYS, begun, incarnation.number, *bounds)))
    copied = sum(copies.values()) + retired_copies - doubles
    pending = max(0, (high - low + 1) - rows - retired - copied - lost["sequence"] - waiting)
    if pending and incarnation.current and segments:
        sizes = {message_ids(each, size)[0]: size for each, size in segments.items() if parse_message_id(each)}
        known = {str(row["message_id"]) for row in await connection.fetch(statements.KNOWN, list(sizes))}
        # A segment was counted once, as a sequence.
        pending += sum(size - 1 for first, size in sizes.items() if first not in known)
    dead, failed = statuses.get(Status.DLQ, 0), statuses.get(Status.FAILED, 0)
    lost_failed = min(failed, lost["pending"])
    accepted = rows + retired + pending + lost["sequence"] + lost["rows"]
    return Account(
        None,
        None,
        incarnation.since,
        accepted=accepted,
        completed=rows - sum(statuses.values()),
        superseded=superseded,
        dead_letters=dead - lost["dead letter"],
        pending=pending,
        processing=statuses.get(Status.PROCESSING, 0) - (lost["pending"] - lost_failed),
        failed=failed - lost_failed,
        deleted=statuses.get(Status.DELETED, 0),
        purged=statuses.get(Status.PURGED, 0),
        expired=statuses.get(Status.EXPIRED, 0),
        retired=retired,
        unexplained=sum(lost.values()),
        replayed=copies.get("replay", 0) + waiting,
        repeated=copies.get("repeat", 0),
        removed=sum(number for kind, number in copies.items() if kind not in ("replay", "repeat")),
        waiting_replays=waiting,
        losses=tuple(losses[:_NAMED]),
    )


async def _count_rows(
    connection: asyncpg.Connection, incarnation: Incarnation, low: int, high: int
) -> tuple[int, int, int, int]:
    """Rows of message_status; rows and copies that were dropped at the end of their retention; rows more than
    positions. From closed blocks if they are wholly inside, counted otherwise.
    """
    first, last = low >> BLOCK_BITS, high >> BLOCK_BITS
    whole_first = first if incarnation.clip(first)[0] == low else first + 1
    whole_last = last if incarnation.clip(last)[1] == high else last - 1
    whole = (whole_first, whole_last)
    sums = await connection.fetchrow(statements.BLOCKS, *whole)
    assert sums is not None
    retired = await connection.fetchrow(statements.RETIRED, *whole)
    assert retired is not None
    closed = await connection.fetchrow(statements.RETIRED_CLOSED, *whole)
    assert closed is not None
    rows, doubles = sums["messages"] - closed["messages"], sums["doubles"] + retired["doubles"] - closed["doubles"]
    # Blocks that are partly inside or not closed.
    opened = {row["block"] for row in await connection.fetch(statements.OPEN_BLOCKS, low, high)}
    opened |= {each for each in (first, last) if not whole_first <= each <= whole_last}
    for start, end in join_blocks(incarnation, sorted(opened), low, high):
        counted = await connection.fetchrow(statements.COUNT, [start], [end])
        assert counted is not None
        rows += counted["messages"]
        explained = int(str(await connection.fetchval(statements.EXPLAINED, start, end)))
        doubles += counted["messages"] + counted["copies"] - explained
    return rows, retired["messages"], retired["copies"], doubles


def join_blocks(incarnation: Incarnation, blocks: Sequence[int], low: int, high: int) -> list[Range]:
    """The positions of blocks from ``low`` to ``high``; adjacent ones as one range."""
    found: list[Range] = []
    for block in blocks:
        start, end = incarnation.clip(block)
        start, end = max(start, low), min(end, high)
        if found and found[-1][1] == start - 1:
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return found


async def _segments_between(jetstream: JetStream, stream: str, first: int, last: int) -> dict[str, int]:
    """The sizes of the segments, by ID, that a stream stores from one sequence to another. A listing of subjects has no
    sequences, so this reads the segments themselves.
    """
    found: dict[str, int] = {}
    start = first
    while start <= last:
        batch = await read_batch(jetstream.nats, stream, start, _SEGMENTS_READ, SEGMENTS)
        found |= map(segment_in, (each.subject for each in batch.messages if each.sequence <= last))
        if not batch.messages or not batch.pending:
            break
        start = batch.messages[-1].sequence + 1
    return found


async def _boundary(connection: asyncpg.Connection, moment: datetime, arrived: int | None, present: int) -> int:
    """The position of the first message received at or after a moment; ``arrived`` is the first such sequence that the
    stream stores.
    """
    found = [await connection.fetchval(statements.FIRST_RECEIVED, moment)]
    retired = await connection.fetchval(statements.FIRST_RETIRED, moment)
    found.append(int(str(retired)) << BLOCK_BITS if retired is not None else None)
    found.append(position_of(present, arrived) if arrived is not None else None)
    boundary = min((int(str(each)) for each in found if each is not None), default=(1 << 63) - 1)
    # Of rows that were dropped, only the numbers by block are known.
    if await connection.fetchval(statements.IS_RETIRED, boundary >> BLOCK_BITS):
        return boundary >> BLOCK_BITS << BLOCK_BITS
    return boundary


async def _first_stored(jetstream: JetStream, report: StreamReport, moment: datetime) -> int | None:
    """The first sequence of the stream that was stored at or after a moment, among those that still are."""
    if not report.state.messages:
        return None
    body = {"start_time": moment.astimezone(UTC), "next_by_subj": ">"}
    response = await jetstream.nats.request(f"{API}.DIRECT.GET.{report.name}", msgspec.json.encode(body))
    sequence = (response.headers or {}).get("Nats-Sequence")
    return int(sequence) if sequence is not None else None


def _unexplained(row: asyncpg.Record, low: int, high: int) -> Unexplained:
    first, last = max(row["low"], low), min(row["high"], high)
    return Unexplained(
        row["kind"],
        first >> 48,
        sequence_of(first),
        sequence_of(last),
        row["messages"] if row["kind"] == "rows" else min(row["messages"], last - first + 1),
        str(row["message_id"]) if row["message_id"] else None,
        row["noticed_at"],
    )


@dataclass(frozen=True, slots=True)
class Balance:
    """The account at a glance: how much is unexplained, since when, and the oldest verification of any part of it."""

    unexplained: int
    since: datetime | None
    verified_at: datetime | None


async def read_balance(database: Database, streams: StreamSettings) -> Balance:
    """How much is unexplained; cheap enough to be read every second. Raises DatabaseUnavailable, NotSetUp or
    DatabaseRefused.
    """
    async with database.connection() as connection:
        row = await connection.fetchrow(statements.OPEN_UNEXPLAINED)
        verified = await connection.fetchval(statements.OLDEST_VERIFIED, streams.stream)
    assert row is not None
    known = verified if isinstance(verified, datetime) and verified.year > 1 else None
    return Balance(row["messages"], row["since"], known)


def named(losses: Sequence[Unexplained]) -> list[str]:
    """The losses as text, one line each."""
    return [_line(each) for each in losses]


def _line(loss: Unexplained) -> str:
    sequences = (
        f"sequence {loss.first_sequence:,}"
        if loss.first_sequence == loss.last_sequence
        else f"sequences {loss.first_sequence:,} to {loss.last_sequence:,}"
    )
    message = f"message {loss.message_id}, " if loss.message_id else ""
    what = {
        "sequence": f"{message}{sequences}: neither in the stream nor in message_status",
        "rows": f"{message}{sequences}: {loss.messages:,} messages of the segment have no row in message_status",
        "pending": f"{message}{sequences}: it is to be tried again, but is not in the stream",
        "dead letter": f"{message}{sequences}: its status is dlq, but its dead letter does not exist",
    }[loss.kind]
    partly = loss.messages < loss.last_sequence - loss.first_sequence + 1
    return f"{what} ({loss.messages:,} of these messages)" if partly else what
