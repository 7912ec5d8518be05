"""The index of the dead letters: every letter read once, kept, and brought up to date by what came and went.

Letters never change; they are appended, deleted and expire. A refresh asks the stream's state, reads what lies above
the last known sequence, and, only where the number does not fit, which sequences are deleted.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime

import msgspec

from nomnom_control.session.connections import NatsConnection
from nomnom_control.session.dead_letters.dead_letter import DeadLetter, read_dead_letter
from nomnom_control.session.dead_letters.filters import Filter
from nomnom_control.session.jetstream import JetStream
from nomnom_control.session.jetstream.reading import BATCH, read_batch, read_many
from nomnom_control.session.jetstream.streams import StreamState

_KEPT_PAYLOAD = 4096
_KEPT_TOTAL = 64 * 1024 * 1024
_STRIDE = 4000
"""Letters looked at before the loop gets its turn: a few milliseconds."""
_PARSED = 50
"""Letters read before the loop gets its turn."""


class DeadLetterIndex:
    """All letters of a stream by sequence; payloads of up to 4 KiB too, until they are 64 MiB together."""

    def __init__(self, nats: NatsConnection, jetstream: JetStream, stream: str) -> None:
        self._nats, self._jetstream, self.stream = nats, jetstream, stream
        self._dead_letters: dict[int, DeadLetter] = {}
        self._order: list[int] | None = []
        self._next = 1
        self._created: datetime | None = None
        self._kept = 0
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
        """A known letter, maybe without its payload."""
        return self._dead_letters.get(sequence)

    async def refresh(self, within: float | None = None, progress: Callable[[int, int], None] | None = None) -> bool:
        """Bring the index up to date; returns whether it is.

        With ``within`` it stops after about so many seconds, and goes on from there the next time. ``progress`` is
        told how many letters are known, of how many. Raises NatsUnavailable or NotSetUp.
        """
        loop = asyncio.get_running_loop()
        deadline = None if within is None else loop.time() + within
        try:
            async with asyncio.timeout(within):
                await self._refreshing.acquire()
        except TimeoutError:
            return False
        try:
            await self._look()
            while self._next <= self.state.last_seq:
                batch = await read_batch(self._nats, self.stream, max(self._next, self.state.first_seq), BATCH)
                for number, message in enumerate(batch.messages):
                    if number % _PARSED == 0:
                        await asyncio.sleep(0)
                    self._add(read_dead_letter(message))
                if progress is not None:
                    progress(len(self._dead_letters), self.state.messages)
                if not batch.messages or batch.pending == 0:
                    break
                if deadline is not None and loop.time() >= deadline:
                    return False
            await self._drop_deleted()
            self.complete = True
            return True
        finally:
            self._refreshing.release()

    def forget(self, sequences: Iterable[int]) -> None:
        """Drop letters that are known to be deleted."""
        for sequence in sequences:
            dead_letter = self._dead_letters.pop(sequence, None)
            if dead_letter is not None:
                self._order = None
                self._kept -= len(dead_letter.payload or b"")

    async def select(self, wanted: Filter) -> list[int]:
        """The known sequences that a filter lets through, ascending."""
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

    async def with_payloads(self, dead_letters: Sequence[DeadLetter]) -> list[DeadLetter]:
        """The same letters, each with its payload; those that are gone by now are left out."""
        missing = [each.sequence for each in dead_letters if each.payload is None]
        if not missing:
            return list(dead_letters)
        read = await read_many(self._nats, self.stream, missing)
        self.forget(each for each in missing if each not in read)
        return [
            each if each.payload is not None else read_dead_letter(read[each.sequence])
            for each in dead_letters
            if each.payload is not None or each.sequence in read
        ]

    async def _look(self) -> None:
        report = await self._jetstream.stream(self.stream)
        if self._created != report.created or report.state.last_seq < self._next - 1:
            # Another stream by the same name: nothing known is of it.
            self._dead_letters.clear()
            self._order, self._next, self._kept, self._created = None, 1, 0, report.created
            self.complete = False
        self.state = report.state
        expired = bisect_left(self.sequences, report.state.first_seq)
        self.forget(self.sequences[:expired])

    async def _drop_deleted(self) -> None:
        if len(self._dead_letters) == self.state.messages:
            return
        report = await self._jetstream.stream(self.stream, deleted=True)
        first = report.state.first_seq
        gone = set(report.state.deleted or ()) & self._dead_letters.keys()
        self.forget([*gone, *self.sequences[: bisect_left(self.sequences, first)]])
        self.state = msgspec.structs.replace(report.state, deleted=None)

    def _add(self, dead_letter: DeadLetter) -> None:
        self._next = dead_letter.sequence + 1
        if dead_letter.sequence in self._dead_letters:
            return
        # Thousands of letters share a few texts.
        intern = self._interned.setdefault
        payload = dead_letter.payload or b""
        kept = len(payload) <= _KEPT_PAYLOAD and self._kept + len(payload) <= _KEPT_TOTAL
        self._kept += len(payload) if kept else 0
        self._dead_letters[dead_letter.sequence] = replace(
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
    """The page of ascending ``sequences``: those nearest to ``after`` where only it is given, else to ``before``.

    Neither: the newest or the oldest. Returns them ascending, and whether there are others below and above.
    """
    low = 0 if after is None else bisect_right(sequences, after)
    high = len(sequences) if before is None else bisect_left(sequences, before)
    from_below = (after is not None and before is None) or (before is None and not newest_first)
    if from_below:
        high = min(high, low + limit)
    else:
        low = max(low, high - limit)
    return list(sequences[low:high]), low > 0, high < len(sequences)
