"""The index of the dead letters: each is read once and kept in memory; a refresh applies what came and went.

Dead letters never change; they are appended, deleted and expire. A refresh asks for the stream's state, reads the
messages above the last known sequence, and, only if the number does not fit, asks which sequences are deleted.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

import msgspec

from nomnom.inspection.dead_letters.dead_letter import DeadLetter, read_dead_letter
from nomnom.inspection.dead_letters.filters import Filter, Group, GroupBy, group
from nomnom.inspection.jetstream import JetStream
from nomnom.inspection.jetstream.messages import BATCH, Batch, read_batch, read_many
from nomnom.inspection.jetstream.streams import StreamState
from nomnom.tasks import end

_KEPT_PAYLOAD = 4096
_KEPT_PAYLOADS = 64 * 1024 * 1024
_STRIDE = 4000
"""Dead letters tested before the event loop gets its turn: a few milliseconds."""
_PARSED = 50
"""Dead letters read before the event loop gets its turn."""


class DeadLetterIndex:
    """The dead letters of a stream by sequence: all, or the newest ``limit``.

    Payloads of up to 4 KiB are kept too, until they are ``payloads`` bytes together.
    """

    def __init__(
        self, jetstream: JetStream, stream: str, *, limit: int | None = None, payloads: int = _KEPT_PAYLOADS
    ) -> None:
        self._jetstream, self.stream = jetstream, stream
        self._limit, self._payloads = limit, payloads
        self._dead_letters: dict[int, DeadLetter] = {}
        self._order: list[int] | None = []
        self._next = 1
        self._created: datetime | None = None
        self._kept = 0
        self._checked = (0, 0)  # the stream's first sequence and its deleted ones, when those were last applied
        self._interned: dict[str, str] = {}
        self._refreshing = asyncio.Lock()
        self.state = StreamState()
        """The stream's state as of the last refresh."""
        self.complete = False
        """Whether the last refresh read all there was."""

    def __len__(self) -> int:
        return len(self._dead_letters)

    @property
    def sequences(self) -> Sequence[int]:
        """All known sequences, ascending."""
        if self._order is None:
            self._order = list(self._dead_letters)
        return self._order

    def get(self, sequence: int) -> DeadLetter | None:
        """A known dead letter, possibly without its payload."""
        return self._dead_letters.get(sequence)

    @property
    def older(self) -> int:
        """How many dead letters are beyond the limit: the oldest of the stream."""
        return max(0, self.state.messages - len(self._dead_letters)) if self._limit is not None else 0

    async def refresh(self, within: float | None = None, progress: Callable[[int, int], None] | None = None) -> bool:
        """Bring the index up to date; returns whether it is.

        With ``within`` it stops after about that many seconds; the next refresh continues from there. ``progress`` is
        called with how many dead letters are known, of how many. Raises NatsUnavailable or NotSetUp.
        """
        loop = asyncio.get_running_loop()
        deadline = None if within is None else loop.time() + within
        try:
            async with asyncio.timeout(within):
                await self._refreshing.acquire()
        except TimeoutError:
            return False
        ahead: asyncio.Task[Batch] | None = None
        try:
            await self._read_state()
            while self._next <= self.state.last_seq:
                batch = await (ahead or self._read(self._next))
                # The server reads the next ones while these are parsed.
                more = batch.messages and batch.pending
                ahead = asyncio.create_task(self._read(batch.messages[-1].sequence + 1)) if more else None
                for number, message in enumerate(batch.messages):
                    if number % _PARSED == 0:
                        await asyncio.sleep(0)
                    self._add(read_dead_letter(message))
                if self._limit is not None and len(self._dead_letters) > self._limit:
                    self.forget(self.sequences[: -self._limit])
                if progress is not None:
                    progress(len(self._dead_letters), self.state.messages)
                if not more:
                    break
                if deadline is not None and loop.time() >= deadline:
                    return False
            await self._drop_deleted()
            self.complete = True
            return True
        finally:
            await end(ahead)
            self._refreshing.release()

    async def _read(self, start: int) -> Batch:
        return await read_batch(self._jetstream.nats, self.stream, start, BATCH)

    def forget(self, sequences: Iterable[int]) -> None:
        """Drop dead letters that are known to be deleted."""
        for sequence in sequences:
            dead_letter = self._dead_letters.pop(sequence, None)
            if dead_letter is not None:
                self._order = None
                self._kept -= len(dead_letter.payload or b"")

    async def select(self, wanted: Filter) -> list[int]:
        """The known sequences that match a filter, ascending."""
        if wanted.empty:
            return list(self.sequences)
        matches, payload_matches = wanted.matcher(), wanted.payload_matcher()
        found: list[int] = []
        sequences = list(self.sequences)
        for start in range(0, len(sequences), _STRIDE):
            part = [self._dead_letters.get(each) for each in sequences[start : start + _STRIDE]]
            dead_letters = [each for each in part if each is not None and matches(each)]
            if payload_matches is not None:
                dead_letters = [
                    each for each in await self.with_payloads(dead_letters) if payload_matches(each.payload or b"")
                ]
            found += [each.sequence for each in dead_letters]
            await asyncio.sleep(0)
        return found

    async def groups(self, by: GroupBy, sequences: Iterable[int]) -> list[Group]:
        """The groups of these dead letters (ascending sequences), the largest first."""
        return await group([each for one in sequences if (each := self.get(one)) is not None], by)

    async def with_payloads(self, dead_letters: Sequence[DeadLetter]) -> list[DeadLetter]:
        """The same dead letters, each with its payload, without those that no longer exist."""
        missing = [each.sequence for each in dead_letters if each.payload is None]
        if not missing:
            return list(dead_letters)
        read = await read_many(self._jetstream.nats, self.stream, missing)
        self.forget(each for each in missing if each not in read)
        return [
            each if each.payload is not None else read_dead_letter(read[each.sequence])
            for each in dead_letters
            if each.payload is not None or each.sequence in read
        ]

    async def _read_state(self) -> None:
        report = await self._jetstream.stream(self.stream)
        if self._created != report.created or report.state.last_seq < self._next - 1:
            # Another stream of the same name.
            self._dead_letters.clear()
            self._order, self._next, self._kept, self._created = None, 1, 0, report.created
            self.complete = False
        state = self.state = report.state
        self._next = max(self._next, state.first_seq)
        if self._limit is not None:
            self._next = max(self._next, state.last_seq - self._limit + 1)
        expired = bisect_left(self.sequences, state.first_seq)
        self.forget(self.sequences[:expired])

    async def _drop_deleted(self) -> None:
        unchanged = self._checked == (self.state.first_seq, self.state.num_deleted)
        # With older ones beyond the limit the numbers never fit; any deletion changes one of those two.
        if len(self._dead_letters) != self.state.messages and not (self._limit is not None and unchanged):
            report = await self._jetstream.stream(self.stream, deleted=True)
            gone = set(report.state.deleted or ()) & self._dead_letters.keys()
            self.forget([*gone, *self.sequences[: bisect_left(self.sequences, report.state.first_seq)]])
            self.state = msgspec.structs.replace(report.state, deleted=None)
        self._checked = (self.state.first_seq, self.state.num_deleted)

    def _add(self, dead_letter: DeadLetter) -> None:
        self._next = dead_letter.sequence + 1
        if dead_letter.sequence in self._dead_letters:
            return
        # Thousands of dead letters share a few texts.
        intern = self._interned.setdefault
        payload = dead_letter.payload or b""
        kept = len(payload) <= _KEPT_PAYLOAD and self._kept + len(payload) <= self._payloads
        self._kept += len(payload) if kept else 0
        self._dead_letters[dead_letter.sequence] = msgspec.structs.replace(
            dead_letter,
            entity=intern(dead_letter.entity, dead_letter.entity),
            reason=intern(dead_letter.reason, dead_letter.reason),
            error=intern(dead_letter.error, dead_letter.error) if len(self._interned) < 10_000 else dead_letter.error,
            payload=payload if kept else None,
        )
        if self._order is not None:
            self._order.append(dead_letter.sequence)


def window(
    sequences: Sequence[int], after: int | None, before: int | None, limit: int, *, newest_first: bool
) -> tuple[list[int], bool, bool]:
    """The page of ascending ``sequences``: those nearest to ``after`` if only that is given, else to ``before``.

    With neither: the newest or the oldest. Returns them ascending, and whether there are others below and above.
    """
    low = 0 if after is None else bisect_right(sequences, after)
    high = len(sequences) if before is None else bisect_left(sequences, before)
    from_below = (after is not None and before is None) or (before is None and not newest_first)
    if from_below:
        high = min(high, low + limit)
    else:
        low = max(low, high - limit)
    return list(sequences[low:high]), low > 0, high < len(sequences)
