"""Undo: a replay that no worker has taken yet becomes the dead letter again that it was.

The dead letter is restored first, then its message is deleted from the stream, so it is always in one of them. A
message that a worker holds is not touched. The consumer is paused between the check and the deletion (it resumes by
itself after :data:`HOLD` seconds, should this session end there), so no worker is given the message meanwhile. If the
pause did not hold, deliveries have passed the message's sequence afterwards. Then the worker's result is waited for;
without one the undo is reported as uncertain, and the dead letter is kept: should a worker complete the message,
replaying the dead letter does nothing.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from nomnom.envelope import DEAD, MSG_ID, REPLAYS, Status, new_message_id
from nomnom.errors import NomnomError
from nomnom.inspection.jetstream import ConsumerReport
from nomnom.inspection.jetstream.messages import StoredMessage, read_last, read_last_each, read_many
from nomnom.inspection.statuses import Answer
from nomnom_control.errors import ControlError
from nomnom_control.session.audit import Action, Entry, Ledger, Record
from nomnom_control.session.dead_letters.publication import all_of, finish, publish_once
from nomnom_control.session.jetstream.changes import delete_message
from nomnom_control.session.jetstream.pausing import held

if TYPE_CHECKING:
    from nomnom_control.session.pipeline import Pipeline

SETTLE = 2.0
"""Seconds to wait for the result of a worker that may have been given a message at the last moment."""
HOLD = 5.0
"""Seconds after which deliveries resume by themselves, should this session end before it resumes them."""
PART = 256
"""Replays undone while deliveries are held back: a few tenths of a second."""
_POLL = 0.05


class UndoResult(StrEnum):
    """What became of a replay that was to be undone."""

    UNDONE = "undone"
    TOO_LATE = "too late"
    """A worker has processed it; or it is gone from the stream for another reason."""
    PROCESSING = "processing"
    """A worker holds it, or it waits for its next attempt: nothing was changed; ask again later."""
    UNCERTAIN = "uncertain"
    """It is a dead letter again, and a worker may have it too."""
    FAILED = "failed"
    """It could not be done; nothing was lost."""


@dataclass(frozen=True, slots=True)
class Undone:
    """One replay's result; ``dead_letter`` is the sequence of the dead letter that it is again."""

    message_id: str
    result: UndoResult
    detail: str
    dead_letter: int | None = None


@dataclass(slots=True)
class _Case:
    record: Record
    stream_sequence: int
    subject: str
    headers: dict[str, str]
    payload: bytes | None
    """The dead letter's payload, if the replay changed it."""
    message: StoredMessage | None = None
    dead_letter: int | None = None
    taken_out: bool = False
    entry: Entry | None = None
    result: UndoResult | None = None
    detail: str = ""

    @property
    def message_id(self) -> str:
        return str(self.record.message_id)

    @property
    def replays(self) -> int:
        return int(self.headers.get(REPLAYS, "0"))

    @property
    def identity(self) -> str:
        """The restored dead letter's deduplication id: one for each replay that is undone."""
        return f"{self.message_id}.{self.replays}.dead.undo.{self.record.event}"

    def answered(self, answers: dict[str, Answer]) -> Answer | None:
        """What a worker recorded of this replay, not of an earlier generation."""
        answer = answers.get(self.message_id)
        return answer if answer is not None and answer.replays > self.replays else None

    def decide(self, result: UndoResult, detail: str) -> None:
        self.result, self.detail = result, detail


@dataclass
class Undo:
    """Undoes replays, a few at a time."""

    pipeline: Pipeline
    settle: float = SETTLE
    run: str = field(default_factory=new_message_id)

    async def undo(self, records: Sequence[Record], progress: Callable[[int, int], None] | None = None) -> list[Undone]:
        """Undo these replays (entries of the audit); cancelled, it stops between them, each being whole.

        Raises DatabaseUnavailable or NotSetUp with nothing done; NatsUnavailable or AuditWaits in the middle, every
        message being in the stream or among the dead letters.
        """
        done: list[Undone] = []
        async with self.pipeline.audit.ledger() as ledger:
            for start in range(0, len(records), PART):
                done += await finish(self._undo([_case(each) for each in records[start : start + PART]], ledger))
                if progress is not None:
                    progress(len(done), len(records))
        return done

    async def _undo(self, cases: Sequence[_Case], ledger: Ledger) -> list[Undone]:
        streams = self.pipeline.streams
        found = await read_many(self.pipeline.nats, streams.stream, [each.stream_sequence for each in cases])
        answers = await self._answers(cases)
        for case in cases:
            message = found.get(case.stream_sequence)
            known = message is not None and message.headers.get(MSG_ID) == case.record.detail.get("stream_message")
            case.message = message if known else None
            if case.message is None:
                await self._missing(case, answers)
        self._sort_out(cases, await self._consumer())
        if any(each.result is None for each in cases):
            async with held(self.pipeline.jetstream, streams.stream, streams.consumer, HOLD):
                self._sort_out(cases, await self._consumer())
                ready = [each for each in cases if each.result is None]
                await self._prepare(cases, ledger)
                await self._take_back(ready)
                await self._resolve(ready)
            await self._wait_for_answers(ready)
        else:
            await self._prepare(cases, ledger)
        await ledger.enter([entry for each in cases if (entry := self._concluded(each)) is not None])
        return [
            Undone(each.message_id, each.result or UndoResult.UNCERTAIN, each.detail, each.dead_letter)
            for each in cases
        ]

    async def _consumer(self) -> ConsumerReport:
        return await self.pipeline.jetstream.consumer(self.pipeline.streams.stream, self.pipeline.streams.consumer)

    @staticmethod
    def _sort_out(cases: Sequence[_Case], consumer: ConsumerReport) -> None:
        for case in cases:
            if case.result is None and case.stream_sequence <= consumer.delivered.stream_seq:
                case.decide(UndoResult.PROCESSING, "a worker holds it, or it waits for its next attempt")

    async def _prepare(self, cases: Sequence[_Case], ledger: Ledger) -> None:
        for case in cases:
            case.entry = self._entry(case)
        await ledger.prepare([each.entry for each in cases if each.entry is not None])

    async def _missing(self, case: _Case, answers: dict[str, Answer]) -> None:
        """Decide about a message that is no longer where it was published."""
        answer = case.answered(answers)
        if answer is not None:
            case.decide(UndoResult.TOO_LATE, f"a worker has processed it: {answer.status}")
            return
        subject = f"{DEAD}.*.{case.message_id}"
        last = await read_last(self.pipeline.nats, self.pipeline.streams.dead_stream, subject)
        if last is not None and last.headers.get(MSG_ID, "").startswith(case.identity):
            case.dead_letter = last.sequence
            case.decide(UndoResult.UNDONE, "an earlier, interrupted undo had done it")
        else:
            case.decide(
                UndoResult.TOO_LATE, "its message is no longer in the stream, and no worker has recorded a result"
            )

    async def _take_back(self, cases: Sequence[_Case]) -> None:
        stream = self.pipeline.streams.dead_stream
        dead_letters = await read_last_each(self.pipeline.nats, stream, [each.subject for each in cases])
        last = {each.subject: each for each in dead_letters}
        for case in cases:
            dead_letter = last.get(case.subject)
            if dead_letter is not None and dead_letter.headers.get(MSG_ID, "").startswith(case.identity):
                case.dead_letter = dead_letter.sequence  # an undo put it back, and broke before it took the message out
        for case, outcome in zip(cases, await all_of(self._swap(each) for each in cases), strict=True):
            if isinstance(outcome, NomnomError):
                kept = (
                    "the dead letter is restored; its message may be in the stream too"
                    if case.dead_letter
                    else "nothing changed"
                )
                case.decide(UndoResult.UNCERTAIN if case.dead_letter else UndoResult.FAILED, f"{outcome}; {kept}")
            elif isinstance(outcome, Exception):
                raise outcome

    async def _swap(self, case: _Case) -> None:
        """Restore the dead letter, then delete the message."""
        assert case.message is not None
        nats, streams = self.pipeline.nats, self.pipeline.streams
        payload = case.message.payload if case.payload is None else case.payload
        if case.dead_letter is None:
            headers = {**case.headers, MSG_ID: case.identity}
            case.dead_letter, _, _ = await publish_once(nats, case.subject, payload, headers)
        case.taken_out = await delete_message(nats, streams.stream, case.stream_sequence)

    async def _resolve(self, cases: Sequence[_Case]) -> None:
        """Decide what is known by now."""
        rest = [each for each in cases if each.result is None]
        consumer = await self._consumer()
        answers = await self._answers(rest)
        for case in rest:
            answer = case.answered(answers)
            if answer is not None and answer.status in (Status.COMPLETED, Status.DLQ):
                await self._withdraw(case, answer)
            elif answer is None and case.taken_out and consumer.delivered.stream_seq < case.stream_sequence:
                case.decide(UndoResult.UNDONE, "")

    async def _wait_for_answers(self, cases: Sequence[_Case]) -> None:
        """Wait for the results of what a worker may have been given all the same."""
        deadline = asyncio.get_running_loop().time() + self.settle
        while any(each.result is None for each in cases):
            if asyncio.get_running_loop().time() >= deadline:
                for case in cases:
                    if case.result is None:
                        case.decide(UndoResult.UNCERTAIN, "a worker may have it; the dead letter is kept")
                return
            await asyncio.sleep(_POLL)
            await self._resolve(cases)

    async def _withdraw(self, case: _Case, answer: Answer) -> None:
        """A worker was faster: the restored dead letter is one too many."""
        if case.dead_letter is not None:
            await delete_message(self.pipeline.nats, self.pipeline.streams.dead_stream, case.dead_letter)
        case.dead_letter = None
        case.decide(UndoResult.TOO_LATE, f"a worker has processed it: {answer.status}")

    async def _answers(self, cases: Sequence[_Case]) -> dict[str, Answer]:
        return await self.pipeline.statuses.answers([each.message_id for each in cases])

    def _entry(self, case: _Case) -> Entry | None:
        if case.result is UndoResult.PROCESSING:
            return None  # nothing happens
        return Entry(
            Action.UNDO,
            UndoResult.UNDONE.value,
            entity=case.record.entity,
            message_id=case.message_id,
            sequence=case.record.sequence,
            undoes=case.record.event,
            detail={"replay_run": case.record.run, "stream_sequence": case.stream_sequence},
            run=self.run,
        )

    def _concluded(self, case: _Case) -> Entry | None:
        if case.entry is None or case.result is None:
            return None
        detail: dict[str, Any] = {**case.entry.detail, "note": case.detail, "letter": case.dead_letter}
        return replace(case.entry, result=case.result.value, detail=detail)


def _case(record: Record) -> _Case:
    try:
        dead_letter: dict[str, Any] = record.detail["letter"]
        payload = base64.b64decode(dead_letter["payload"]) if "payload" in dead_letter else None
        return _Case(
            record, int(record.detail["stream_sequence"]), dead_letter["subject"], dict(dead_letter["headers"]), payload
        )
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise ControlError(f"audit entry {record.id} does not say enough to undo it: {error!r}") from error
