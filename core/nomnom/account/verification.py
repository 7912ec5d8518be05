"""Verification: looks for sequences that nothing explains, and records them.

A sequence is explained if it is stored in the stream, is the position of a row of ``message_status``, or has a row in
``nomnom_sequences``. Workers commit before they acknowledge. So what was neither in PostgreSQL, nor then in the stream,
nor then in PostgreSQL again is lost, unless the server that responded was not up to date: therefore it has to be found
so twice, seconds apart, and the stream's leader is asked.

A segment has one sequence, and a row for each of its messages; fewer rows are a loss, too.

A block of sequences that are all explained by rows is closed with their numbers. Closed blocks are counted again in
rotation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import asyncpg

from nomnom.account import statements
from nomnom.account.dead_letters import DeadLetterCheck
from nomnom.account.presence import Presence, find_at_leader
from nomnom.account.ranges import Range, intersect, size_of, subtract
from nomnom.connections.postgres import Database
from nomnom.inspection.jetstream import JetStream, StreamReport
from nomnom.positions import BLOCK_BITS, LARGEST_SEQUENCE, incarnation_of, position_of, register_stream, sequence_of
from nomnom.settings.streams import StreamSettings

BLOCK = 1 << BLOCK_BITS
"""Sequences in a block."""
CONFIRMATION = 5.0
"""Seconds after which a sequence without an explanation is looked up again before it counts as lost."""
_REWOUND = 30.0
"""The same for sequences after the last one of the stream: its leader may not be the leader any more."""
_SETTLING = timedelta(minutes=15)
"""How long workers of the earlier version may be active after an upgrade."""
ROTATION = 30.0
"""Seconds for which the count of a closed block is trusted."""
_CHUNK = 8
_RESOLVED = 200
"""Losses that are looked up again in one call."""


@dataclass(frozen=True, slots=True)
class Incarnation:
    """The account of one incarnation of the stream: positions from ``low`` to ``high``."""

    number: int
    low: int
    high: int
    since: datetime
    current: bool

    def clip(self, block: int) -> Range:
        """The positions of a block that are in the account."""
        return max(self.low, block << BLOCK_BITS), min(self.high, (block << BLOCK_BITS) + BLOCK - 1)

    def is_complete(self, block: int) -> bool:
        """Whether no position of a block is still to be assigned."""
        return not self.current or (block << BLOCK_BITS) + BLOCK - 1 <= self.high


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of a call: losses recorded so far, and what has to be looked up again before it counts as one."""

    unexplained: int
    suspicious: int
    complete: bool
    """Whether all there was to do was done within the time."""


@dataclass(slots=True)
class _Open:
    """A block that is not closed. ``gaps``: what no row explains; ``incomplete``: segments with fewer rows than
    messages, and how many are missing, by position.
    """

    block: int
    incarnation: Incarnation
    messages: int
    copies: int
    explained: int
    gaps: list[Range]
    incomplete: dict[int, int]
    retired_messages: int = 0
    retired_copies: int = 0
    retired_doubles: int = 0
    settled: bool = False
    """Whether ``incomplete`` was looked up."""

    @property
    def retired(self) -> int:
        """Positions whose rows were dropped at the end of their retention; which ones is not known."""
        return self.retired_messages + self.retired_copies - self.retired_doubles

    @property
    def suspects(self) -> list[Range]:
        """The positions that only the stream can explain."""
        return sorted([*self.gaps, *((each, each) for each in self.incomplete)])


class Verifier:
    """Verifies the account of a pipeline. It keeps what is suspicious between calls: use one for as long as possible.

    ``confirmation``: seconds after which what is missing is looked up again before it counts as lost. ``rotation``:
    seconds for which the count of a closed block is trusted.
    """

    def __init__(
        self,
        database: Database,
        jetstream: JetStream,
        streams: StreamSettings,
        *,
        confirmation: float = CONFIRMATION,
        rotation: float = ROTATION,
    ) -> None:
        self._database, self._jetstream, self._streams = database, jetstream, streams
        self._confirmation, self._rotation = confirmation, rotation
        self._suspicious: list[tuple[int, int, float]] = []
        self._missing: dict[int, int] = {}
        """How many rows the suspicious segments lack, by position."""
        self._examined: dict[int, tuple[float, _Open]] = {}
        """Open blocks as they were examined last, and when."""
        self._dead_letters = DeadLetterCheck(database, jetstream, streams, confirmation)

    async def verify(self, within: float = 2.0) -> Verification:
        """Verify for about that many seconds: the closed blocks verified the longest time ago, open blocks, then the
        dead letters. Raises NatsUnavailable, NotSetUp, JetStreamError, DatabaseUnavailable or DatabaseRefused.

        Called every few seconds, it finds a row or message that was removed by other means within a minute.
        """
        deadline = _now() + within
        before = datetime.now(UTC) - timedelta(seconds=self._rotation)
        while (more := await self._verify_closed(before)) and _now() < deadline - within / 2:
            pass
        complete = await self.verify_newest(deadline)
        await self._dead_letters.verify(await self.incarnations(), forced=False)
        return await self._result(complete=complete and not more)

    async def verify_all(self, trusted: float = 0.0) -> Verification:
        """Verify everything now, however long it takes, but what was verified in the last ``trusted`` seconds. Raises
        like :meth:`verify`.
        """
        before = datetime.now(UTC) - timedelta(seconds=trusted)
        while await self._verify_closed(before):
            pass
        await self.verify_newest(None)
        if not trusted or (await self._database.fetch(statements.DEAD_LETTERS_DUE, before))[0][0]:
            await self._dead_letters.verify(await self.incarnations(), forced=True)
        return await self._result(complete=True)

    async def verify_newest(self, deadline: float | None) -> bool:
        """Verify all blocks that are not closed, and look up again what was lost. Returns whether that was completed
        before the deadline (of the event loop's clock).
        """
        report, incarnations = await self._read()
        complete = True
        suspicious: list[Range] = []
        for each in incarnations:
            blocks = [row["block"] for row in await self._database.fetch(statements.OPEN_BLOCKS, each.low, each.high)]
            for start in range(0, len(blocks), _CHUNK):
                if deadline is not None and start and _now() > deadline:
                    complete = False
                    rest = [(blocks[start] << BLOCK_BITS, each.high)]
                    suspicious += intersect([(low, high) for low, high, _ in self._suspicious], rest)
                    break
                suspicious += await self._verify_blocks(each, blocks[start : start + _CHUNK])
            await self._database.fetch(statements.NEWEST_VERIFIED, each.number, sequence_of(each.high))
        await self._confirm(sorted(set(suspicious)), incarnations, report)
        await self._resolve(incarnations)
        return complete

    async def incarnations(self) -> list[Incarnation]:
        """The accounts of all incarnations of the stream, the present one last; begins that one if it is new."""
        return (await self._read())[1]

    async def _read(self) -> tuple[StreamReport, list[Incarnation]]:
        report = await self._jetstream.stream(self._streams.stream)
        async with self._database.connection() as connection:
            present = await begin(connection, report)
            rows = await connection.fetch(statements.ACCOUNTS, self._streams.stream)
        return report, incarnations_of(rows, present, report.state.last_seq)

    async def _verify_blocks(self, incarnation: Incarnation, blocks: Sequence[int]) -> list[Range]:
        """The suspicious positions of open blocks; closes those that are fully explained."""
        opened = [each for block in blocks if (each := await self._examine(incarnation, block)) is not None]
        if not opened:
            return []
        found = await self._absent(incarnation, [each for one in opened for each in one.suspects])
        suspicious: list[Range] = []
        for each in opened:
            bounds = [incarnation.clip(each.block)]
            absent = intersect(found, bounds)
            if not absent:
                continue
            again = await self._gaps(*bounds[0])
            missing = intersect(absent, again)
            closable = missing == again and incarnation.is_complete(each.block)
            each.gaps = again
            incomplete = {} if not each.incomplete else await self._incomplete(*bounds[0])
            partial = {at: rows for at, rows in incomplete.items() if intersect(absent, [(at, at)])}
            self._missing |= partial
            lacking: list[Range] = [(at, at) for at in partial]
            if each.retired:
                suspicious += lacking
                if closable and not incomplete:
                    await self._close_retired(each)
                continue
            suspicious += sorted([*missing, *lacking])
            known = await self._lost(*bounds[0])
            if closable and partial == incomplete and not subtract(sorted([*missing, *lacking]), known):
                await self._count(each)
                await self._close(each, size_of(missing))
        return suspicious

    async def _examine(self, incarnation: Incarnation, block: int) -> _Open | None:
        """Close a block, or return it if it cannot be closed: some of its positions have no row, or too few."""
        low, high = incarnation.clip(block)
        complete = incarnation.is_complete(block)
        # One snapshot, so that the numbers belong together.
        async with self._database.connection(snapshot=True) as connection:
            counted = await connection.fetchrow(statements.COUNT, [low], [high])
            assert counted is not None
            rows = (counted["messages"], counted["copies"])
            when, last = self._examined.get(block, (0.0, None))
            unchanged = last is not None and (last.messages, last.copies) == rows
            if (
                last is not None
                and unchanged
                and last.settled
                and last.incarnation.clip(block) == (low, high)
                and _now() - when < self._rotation
            ):
                return last
            explained = int(str(await connection.fetchval(statements.EXPLAINED, low, high)))
            opened = _Open(block, incarnation, *rows, explained, [], {})
            retired = await connection.fetchrow(statements.RETIRED, block, block)
            assert retired is not None
            opened.retired_messages, opened.retired_copies = retired["messages"], retired["copies"]
            opened.retired_doubles = retired["doubles"]
            if explained != high - low + 1:
                opened.gaps = _ranges(await connection.fetch(statements.GAPS, low, high))
            if complete or unchanged:
                # A segment is being written while they change.
                opened.settled = True
                opened.incomplete = _missing(await connection.fetch(statements.INCOMPLETE, low, high))
        if opened.gaps or opened.incomplete or not complete:
            self._examined[block] = _now(), opened
            return opened
        self._examined.pop(block, None)
        await self._close(opened, 0)
        return None

    async def _close(self, opened: _Open, lost: int) -> None:
        messages, copies = opened.messages + opened.retired_messages, opened.copies + opened.retired_copies
        doubles = opened.messages + opened.copies - opened.explained + opened.retired_doubles
        values = (opened.block, messages, copies, doubles, lost)
        await self._database.fetch(statements.CLOSE, *values)

    async def _close_retired(self, opened: _Open) -> None:
        """Close a block with rows that were dropped at the end of their retention. Which positions they had is not
        known, only how many there were: the other gaps are losses.
        """
        await self._count(opened)
        lost = max(0, size_of(opened.gaps) - opened.retired)
        if lost:
            low, high = opened.incarnation.clip(opened.block)
            await self._database.fetch(statements.NOTE, "sequence", low, high, lost, None)
        await self._close(opened, lost)

    async def _count(self, opened: _Open) -> None:
        low, high = opened.incarnation.clip(opened.block)
        row = await self._database.fetch_row(statements.COUNT, [low], [high])
        assert row is not None
        opened.messages, opened.copies = row["messages"], row["copies"]
        opened.explained = int((await self._database.fetch(statements.EXPLAINED, low, high))[0]["count"])

    async def _verify_closed(self, before: datetime) -> bool:
        """Count some closed blocks again that were verified before a moment; returns whether there were any."""
        rows = await self._database.fetch(statements.OLDEST_BLOCKS, _CHUNK * 4, before)
        if not rows:
            return False
        incarnations = {each.number: each for each in await self.incarnations()}
        known = [row for row in rows if incarnation_of(row["block"] << BLOCK_BITS) in incarnations]
        bounds = [incarnations[incarnation_of(row["block"] << BLOCK_BITS)].clip(row["block"]) for row in known]
        counted = await self._database.fetch(statements.COUNT, [low for low, _ in bounds], [high for _, high in bounds])
        same = [row["block"] for row in rows if incarnation_of(row["block"] << BLOCK_BITS) not in incarnations]
        changed: list[int] = []
        for row, now in zip(known, counted, strict=True):
            unchanged = (row["messages"], row["copies"]) == (now["messages"], now["copies"])
            (same if unchanged else changed).append(row["block"])
        await self._database.fetch(statements.VERIFIED, same)
        await self._database.fetch(statements.OPEN, changed)
        return True

    async def _absent(self, incarnation: Incarnation, gaps: Sequence[Range]) -> list[Range]:
        """The positions of gaps that the stream does not store."""
        if not incarnation.current:
            return list(gaps)
        if not gaps:
            return []
        presence = await Presence.read(self._jetstream, self._streams.stream)
        sequences = [(sequence_of(low), sequence_of(high)) for low, high in gaps]
        absent = await presence.absent(sequences)
        return [(position_of(incarnation.number, low), position_of(incarnation.number, high)) for low, high in absent]

    async def _gaps(self, low: int, high: int) -> list[Range]:
        return _ranges(await self._database.fetch(statements.GAPS, low, high))

    async def _incomplete(self, low: int, high: int) -> dict[int, int]:
        return _missing(await self._database.fetch(statements.INCOMPLETE, low, high))

    async def _lost(self, low: int, high: int) -> list[Range]:
        """The positions that are recorded as lost, or whose segments are recorded as incomplete."""
        rows = await self._database.fetch(statements.UNEXPLAINED, low, high, None)
        return sorted((row["low"], row["high"]) for row in rows if row["kind"] in ("sequence", "rows"))

    async def _confirm(self, found: Sequence[Range], incarnations: Sequence[Incarnation], report: StreamReport) -> None:
        """Record what was suspicious for long enough; keep the rest for the next call."""
        now, kept = _now(), list[tuple[int, int, float]]()
        confirmed: list[Range] = []
        new = list(found)
        for low, high, since in self._suspicious:
            both = intersect(found, [(low, high)])
            new = subtract(new, both)
            for one in both:
                rewound = any(
                    each.current and each.low <= one[1] and sequence_of(one[1]) > report.state.last_seq
                    for each in incarnations
                )
                if now - since < (_REWOUND if rewound else self._confirmation):
                    kept.append((*one, since))
                elif await self._is_absent_at_leader(one, incarnations):
                    confirmed.append(one)
        fresh = subtract(new, [known for low, high in new for known in await self._lost(low, high)])
        self._suspicious = [*kept, *((low, high, now) for low, high in fresh)]
        if confirmed and await self._restarted(incarnations):
            self._suspicious.clear()
            return
        for low, high in confirmed:
            for part in subtract([(low, high)], await self._lost(low, high)):
                lacking = self._missing.get(low) if low == high else None
                kind, messages = ("rows", lacking) if lacking else ("sequence", part[1] - part[0] + 1)
                await self._database.fetch(statements.NOTE, kind, *part, messages, None)
        self._missing = {
            at: rows for at, rows in self._missing.items() if any(at == each[0] for each in self._suspicious)
        }

    async def _is_absent_at_leader(self, lost: Range, incarnations: Sequence[Incarnation]) -> bool:
        if not any(each.current and each.low <= lost[0] <= each.high for each in incarnations):
            return True
        low, high = sequence_of(lost[0]), sequence_of(lost[1])
        found = await find_at_leader(self._jetstream, self._streams.stream, {"seq": low, "next_by_subj": ">"})
        return found is None or found > high

    async def _restarted(self, incarnations: Sequence[Incarnation]) -> bool:
        """Begin the account again if workers of an earlier version, which know no positions, were still at work."""
        restarted = False
        for each in incarnations:
            upgraded = sequence_of(each.low) > 1 and datetime.now(UTC) - each.since < _SETTLING
            if upgraded and (await self._database.fetch(statements.LEGACY, each.since))[0][0]:
                async with self._database.connection() as connection:
                    await connection.execute(statements.RESTART, each.number, sequence_of(each.high))
                    await connection.execute(statements.FORGET_BLOCKS, each.number)
                    await connection.execute(statements.FORGET_UNEXPLAINED, each.number)
                restarted = True
        return restarted

    async def _resolve(self, incarnations: Sequence[Incarnation]) -> None:
        """Resolve losses that are explained now, such as a row that was restored."""
        rows = await self._database.fetch(statements.UNEXPLAINED, 0, (1 << 63) - 1, _RESOLVED)
        for row in rows:
            if row["kind"] == "rows":
                await self._resolve_rows(row)
                continue
            if row["kind"] != "sequence" or row["messages"] != row["high"] - row["low"] + 1:
                continue
            lost = [(row["low"], row["high"])]
            current = next((each for each in incarnations if each.low <= row["low"] <= each.high), None)
            remaining = await self._gaps(*lost[0])
            if remaining and current is not None:
                remaining = await self._absent(current, remaining)
            if remaining == lost:
                continue
            async with self._database.connection() as connection:
                await connection.execute(statements.RESOLVE, row["id"])
                for low, high in remaining:
                    await connection.execute(statements.NOTE, "sequence", low, high, high - low + 1, row["message_id"])

    async def _resolve_rows(self, row: asyncpg.Record) -> None:
        """Resolve a segment's missing rows as far as they exist again."""
        position = row["low"]
        missing = (await self._incomplete(position, position)).get(position, 0)
        if not missing and await self._gaps(position, position):
            return  # the others are missing, too
        if missing != row["messages"]:
            async with self._database.connection() as connection:
                await connection.execute(statements.RESOLVE, row["id"])
                if missing:
                    await connection.execute(statements.NOTE, "rows", position, position, missing, None)

    async def _result(self, *, complete: bool) -> Verification:
        row = await self._database.fetch_row(statements.OPEN_UNEXPLAINED)
        assert row is not None
        suspicious = sum(
            self._missing.get(low, 1) if low == high else high - low + 1 for low, high, _ in self._suspicious
        )
        suspicious += self._dead_letters.suspicious
        return Verification(row["messages"], suspicious, complete)


async def begin(connection: asyncpg.Connection, report: StreamReport) -> int:
    """Begin the account of a stream's incarnation if there is none yet; returns the number of the incarnation."""
    number = await register_stream(connection, report.name, report.created)
    await connection.execute(statements.BEGIN, number, report.name, report.state.last_seq)
    return number


def incarnations_of(rows: Iterable[asyncpg.Record], present: int, last: int) -> list[Incarnation]:
    """The accounts that have any position; ``last`` is the last sequence of the present incarnation."""
    found: list[Incarnation] = []
    for row in rows:
        number = row["incarnation"]
        end = max(last, row["last"]) if number == present else row["last"]
        if end > row["base"]:
            low, high = position_of(number, row["base"] + 1), position_of(number, min(end, LARGEST_SEQUENCE))
            found.append(Incarnation(number, low, high, row["since"], number == present))
    return found


def _now() -> float:
    return asyncio.get_running_loop().time()


def _ranges(rows: Iterable[asyncpg.Record]) -> list[Range]:
    return [(row["low"], row["high"]) for row in rows]


def _missing(rows: Iterable[asyncpg.Record]) -> dict[int, int]:
    """How many rows segments lack, by position."""
    return {row["position"]: row["missing"] for row in rows}
