"""The newest dead letters, without their payloads, in memory: what makes filters and groups quick.

Letters never change; they are only added and deleted. So a refresh reads the sequences that are new, and drops those
that the stream says are gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

from nomnom.envelope import (
    ATTEMPTS,
    DEAD,
    ERROR,
    FAILED_AT,
    REASON,
    Envelope,
    EnvelopeError,
    from_microseconds,
    read_envelope,
)
from nomnom.envelope import UNKNOWN_ENTITY as UNKNOWN
from nomnom_dashboard.answers import DeadLetter, DeadLetterGroup
from nomnom_dashboard.broker import Broker, StoredMessage, StreamInfo

_BATCH = 500
_ERROR_SHOWN = 500


@dataclass(frozen=True, slots=True)
class Filter:
    """Which letters are meant; None means all."""

    reason: str | None = None
    entity: str | None = None
    text: str | None = None

    def takes(self, letter: DeadLetter) -> bool:
        """Whether the letter is one of them. ``text`` is looked for in its error and its message id."""
        if (self.reason and letter.reason != self.reason) or (self.entity and letter.entity != self.entity):
            return False
        return not self.text or self.text.lower() in f"{letter.error} {letter.message_id or ''}".lower()


class DeadLetterIndex:
    """The index of one stream, at most ``kept`` letters: the newest."""

    def __init__(self, broker: Broker, kept: int) -> None:
        self._broker, self._kept = broker, kept
        self._letters: dict[int, DeadLetter] = {}
        self._next = 0
        self._deleted = -1
        self._last: StreamInfo | None = None
        self._refreshing = asyncio.Lock()

    @property
    def depth(self) -> int:
        """Letters in the stream."""
        return self._last.state.messages if self._last else 0

    @property
    def seen(self) -> tuple[int, int] | None:
        """The stream's last sequence and its number of letters when it was last read."""
        return (self._last.state.last_seq, self._last.state.messages) if self._last else None

    @property
    def older(self) -> int:
        """Letters in the stream that are too old to be in the index."""
        return max(0, self.depth - len(self._letters))

    async def refresh(self) -> None:
        """Catch up with the stream; raises UnavailableError. Two at once are one after the other."""
        async with self._refreshing:
            info = await self._broker.stream(self._broker.streams.dead_stream)
            state = info.state
            if self._last and state.last_seq < self._last.state.last_seq:
                # The stream was made anew, and counts from the start.
                self._letters.clear()
                self._next, self._deleted = 0, -1
            await self._drop(info)
            await self._add(info)
            self._last = info

    def newest_first(self, chosen: Filter, before: int | None) -> Iterator[DeadLetter]:
        """The letters that the filter takes, below a sequence."""
        for letter in reversed(self._letters.values()):
            if (before is None or letter.sequence < before) and chosen.takes(letter):
                yield letter

    def groups(self, chosen: Filter) -> list[DeadLetterGroup]:
        """The letters by reason and entity, the largest group first, each with its newest error."""
        found: dict[tuple[str, str], tuple[int, DeadLetter]] = {}
        for letter in self._letters.values():
            if chosen.takes(letter):
                key = (letter.reason, letter.entity)
                found[key] = (found[key][0] + 1 if key in found else 1, letter)
        groups = [
            DeadLetterGroup(reason, entity, letters, newest.failed_at or newest.stored_at, newest.error)
            for (reason, entity), (letters, newest) in found.items()
        ]
        return sorted(groups, key=lambda each: (-each.letters, each.reason, each.entity))

    async def _drop(self, info: StreamInfo) -> None:
        state = info.state
        for sequence in [each for each in self._letters if each < state.first_seq or state.messages == 0]:
            del self._letters[sequence]
        if state.num_deleted != self._deleted and self._letters:
            gone = (await self._broker.stream(self._broker.streams.dead_stream, deleted=True)).state.deleted or []
            for sequence in gone:
                self._letters.pop(sequence, None)
        self._deleted = state.num_deleted

    async def _add(self, info: StreamInfo) -> None:
        state = info.state
        sequence = max(self._next, state.first_seq, state.last_seq - self._kept + 1 if self._next == 0 else 0, 1)
        while state.messages and sequence <= state.last_seq:
            batch = await self._broker.batch(self._broker.streams.dead_stream, sequence, _BATCH)
            if not batch:
                break
            for message in batch:
                self._letters[message.sequence] = read_letter(message)
            sequence = batch[-1].sequence + 1
            while len(self._letters) > self._kept:
                del self._letters[next(iter(self._letters))]
            self._next = sequence
        self._next = max(sequence, state.last_seq + 1)


def read_letter(message: StoredMessage) -> DeadLetter:
    """A letter from what the stream holds; one whose headers are not nomnom's is still a letter."""
    headers = message.headers
    envelope: Envelope | None
    try:
        envelope = read_envelope(message.subject, headers, DEAD)
    except EnvelopeError:
        envelope = None
    failed_at = headers.get(FAILED_AT, "")
    attempts = headers.get(ATTEMPTS, "")
    return DeadLetter(
        sequence=message.sequence,
        message_id=envelope.message_id if envelope else None,
        entity=envelope.entity if envelope else UNKNOWN,
        reason=headers.get(REASON, UNKNOWN),
        error=headers.get(ERROR, "")[:_ERROR_SHOWN],
        attempts=int(attempts) if attempts.isdecimal() else None,
        replays=envelope.replays if envelope else 0,
        received_at=envelope.received_at if envelope else None,
        failed_at=from_microseconds(int(failed_at)) if failed_at.isdecimal() else None,
        stored_at=message.stored_at,
        size=len(message.payload),
    )
