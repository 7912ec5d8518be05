"""Undo a replay that no worker has processed yet: the message becomes the original dead letter again.

The dead letter is published first, then its message is deleted from the stream, so it always exists in one of them. A
message that was delivered to a worker is not changed. The consumer is paused between the check and the deletion, so
that the message is not delivered in between; if this session ends there, the pause expires after :data:`HOLD` seconds.
If the pause was not effective, the delivered sequence of the consumer has passed that of the message. Then the undo
waits until the worker has processed the message. If that does not happen in time, the undo is uncertain and the dead
letter is kept: if a worker does complete the message, replaying the dead letter has no effect.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from nomnom.envelope import DEAD, MSG_ID, REMOVED, REPLAYS, Status, new_message_id
from nomnom.errors import NomnomError
from nomnom.inspection.jetstream import ConsumerReport
from nomnom.inspection.jetstream.messages import StoredMessage, read_last, read_last_each, read_many
from nomnom.inspection.statuses import Answer
from nomnom.positions import position_of
from nomnom.stream_changes import delete_message, publish_once
from nomnom.tasks import finish
from nomnom_control.errors import ControlError
from nomnom_control.session.audit import Action, Entry, Ledger, Record, effects
from nomnom_control.session.dead_letters.publication import all_of
from nomnom_control.session.jetstream.pausing import paused

if TYPE_CHECKING:
    from nomnom_control.session.pipeline import Pipeline

SETTLE = 2.0
"""Seconds to wait for a worker that may have received the message just before the pause."""
HOLD = 5.0
"""Maximum duration of the pause in seconds, in case this session ends before it resumes the consumer."""
PART = 256
"""Number of replays that are undone during one pause, which takes a few tenths of a second."""
_POLL = 0.05


class UndoResult(StrEnum):
    """The result of undoing a replay."""

    UNDONE = "undone"
    TOO_LATE = "too late"
    """A worker has processed the message, or it was removed from the stream for another reason."""
    PROCESSING = "processing"
    """The message was delivered to a worker, or waits for its next attempt: nothing was changed; try again later."""
    UNCERTAIN = "uncertain"
    """It is a dead letter again, but a worker may also process the message."""
    FAILED = "failed"
    """The undo failed; nothing was lost."""


@dataclass(frozen=True, slots=True)
class Undone:
    """The result of one replay; ``dead_letter`` is the sequence of the restored dead letter."""

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
    """The original payload, if the replay changed it."""
    position: int = 0
    """Of the replay's message in the stream."""
    message: StoredMessage | None = None
    dead_letter: int | None = None
    removed: bool = False
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
        """The deduplication id of the restored dead letter, unique for each undone replay."""
        return f"{self.message_id}.{self.replays}.dead.undo.{self.record.event}"

    def answer(self, answers: dict[str, Answer]) -> Answer | None:
        """The result of processing the replayed message, not of an earlier replay or a removal."""
        answer = answers.get(self.message_id)
        processed = answer is not None and answer.replays > self.replays and answer.status not in REMOVED
        return answer if processed else None

    def decide(self, result: UndoResult, detail: str) -> None:
        self.result, self.detail = result, detail


@dataclass
class Undo:
    """Undoes replays in batches."""

    pipeline: Pipeline
    settle: float = SETTLE
    run: str = field(default_factory=new_message_id)

    async def undo(self, records: Sequence[Record], progress: Callable[[int, int], None] | None = None) -> list[Undone]:
        """Undo these replays (entries of the audit log). Cancellation takes effect between batches.

        Raises DatabaseUnavailable or NotSetUp before anything is done; NatsUnavailable or AuditPending during the run,
        with every message in the stream or among the dead letters.
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
        incarnation = await self.pipeline.jetstream.incarnation(streams.stream)
        for case in cases:
            case.position = position_of(incarnation, case.stream_sequence)
        found = await read_many(self.pipeline.nats, streams.stream, [each.stream_sequence for each in cases])
        answers = await self._answers(cases)
        for case in cases:
            message = found.get(case.stream_sequence)
            known = message is not None and message.headers.get(MSG_ID) == case.record.detail.get("stream_message")
            case.message = message if known else None
            if case.message is None:
                await self._missing(case, answers)
        self._exclude_delivered(cases, await self._consumer())
        if any(each.result is None for each in cases):
            async with paused(self.pipeline.jetstream, streams.stream, streams.consumer, HOLD):
                self._exclude_delivered(cases, await self._consumer())
                ready = [each for each in cases if each.result is None]
                await self._prepare(cases, ledger)
                await self._restore(ready)
                await self._resolve(ready)
            await self._wait_for_answers(ready)
        else:
            await self._prepare(cases, ledger)
        await ledger.write([entry for each in cases if (entry := self._concluded(each)) is not None])
        return [
            Undone(each.message_id, each.result or UndoResult.UNCERTAIN, each.detail, each.dead_letter)
            for each in cases
        ]

    async def _consumer(self) -> ConsumerReport:
        return await self.pipeline.jetstream.consumer(self.pipeline.streams.stream, self.pipeline.streams.consumer)

    @staticmethod
    def _exclude_delivered(cases: Sequence[_Case], consumer: ConsumerReport) -> None:
        for case in cases:
            if case.result is None and case.stream_sequence <= consumer.delivered.stream_seq:
                case.decide(UndoResult.PROCESSING, "it was delivered to a worker, or waits for its next attempt")

    async def _prepare(self, cases: Sequence[_Case], ledger: Ledger) -> None:
        for case in cases:
            case.entry = self._entry(case)
        await ledger.prepare([each.entry for each in cases if each.entry is not None])

    async def _missing(self, case: _Case, answers: dict[str, Answer]) -> None:
        """Decide about a message that is not in the stream any more."""
        answer = case.answer(answers)
        if answer is not None:
            case.decide(UndoResult.TOO_LATE, f"a worker has processed it: {answer.status}")
            return
        subject = f"{DEAD}.*.{case.message_id}"
        last = await read_last(self.pipeline.nats, self.pipeline.streams.dead_stream, subject)
        if last is not None and last.headers.get(MSG_ID, "").startswith(case.identity):
            case.dead_letter = last.sequence
            case.decide(UndoResult.UNDONE, "done by an earlier undo that was interrupted")
        else:
            case.decide(
                UndoResult.TOO_LATE, "its message is not in the stream any more, and no worker has processed it"
            )

    async def _restore(self, cases: Sequence[_Case]) -> None:
        stream = self.pipeline.streams.dead_stream
        dead_letters = await read_last_each(self.pipeline.nats, stream, [each.subject for each in cases])
        last = {each.subject: each for each in dead_letters}
        for case in cases:
            dead_letter = last.get(case.subject)
            if dead_letter is not None and dead_letter.headers.get(MSG_ID, "").startswith(case.identity):
                case.dead_letter = (
                    dead_letter.sequence
                )  # restored by an undo that was interrupted before it deleted the message
        for case, outcome in zip(cases, await all_of(self._swap(each) for each in cases), strict=True):
            if isinstance(outcome, NomnomError):
                kept = (
                    "the dead letter is restored; its message may still be in the stream"
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
        case.removed = await delete_message(nats, streams.stream, case.stream_sequence)

    async def _resolve(self, cases: Sequence[_Case]) -> None:
        """Decide the cases whose result is known."""
        rest = [each for each in cases if each.result is None]
        consumer = await self._consumer()
        answers = await self._answers(rest)
        for case in rest:
            answer = case.answer(answers)
            if answer is not None and answer.status in (Status.COMPLETED, Status.DLQ):
                await self._withdraw(case, answer)
            elif answer is None and case.removed and consumer.delivered.stream_seq < case.stream_sequence:
                case.decide(UndoResult.UNDONE, "")

    async def _wait_for_answers(self, cases: Sequence[_Case]) -> None:
        """Wait for the result of messages that a worker may have received despite the pause."""
        deadline = asyncio.get_running_loop().time() + self.settle
        while any(each.result is None for each in cases):
            if asyncio.get_running_loop().time() >= deadline:
                for case in cases:
                    if case.result is None:
                        case.decide(UndoResult.UNCERTAIN, "a worker may process it; the dead letter is kept")
                return
            await asyncio.sleep(_POLL)
            await self._resolve(cases)

    async def _withdraw(self, case: _Case, answer: Answer) -> None:
        """A worker has processed the message: delete the restored dead letter."""
        if case.dead_letter is not None:
            await delete_message(self.pipeline.nats, self.pipeline.streams.dead_stream, case.dead_letter)
        case.dead_letter = None
        case.decide(UndoResult.TOO_LATE, f"a worker has processed it: {answer.status}")

    async def _answers(self, cases: Sequence[_Case]) -> dict[str, Answer]:
        return await self.pipeline.statuses.answers([each.message_id for each in cases])

    def _entry(self, case: _Case) -> Entry | None:
        if case.result is UndoResult.PROCESSING:
            return None  # nothing is changed
        return Entry(
            Action.UNDO,
            UndoResult.UNDONE.value,
            entity=case.record.entity,
            message_id=case.message_id,
            sequence=case.record.sequence,
            undoes=case.record.event,
            detail={
                "replay_run": case.record.run,
                "stream_sequence": case.stream_sequence,
                "stream_message": case.record.detail.get("stream_message"),
                "position": case.position,
                "replays": case.replays,
                "letter": {"subject": case.subject, "headers": case.headers},
            },
            run=self.run,
        )

    def _concluded(self, case: _Case) -> Entry | None:
        if case.entry is None or case.result is None:
            return None
        removed = case.result is UndoResult.UNDONE or (case.removed and case.result is UndoResult.UNCERTAIN)
        detail: dict[str, Any] = {
            **case.entry.detail,
            "note": case.detail,
            "dead_letter": case.dead_letter,
            effects.REMOVED: removed,
        }
        return replace(case.entry, result=case.result.value, detail=detail)


def _case(record: Record) -> _Case:
    try:
        dead_letter: dict[str, Any] = record.detail["letter"]
        payload = base64.b64decode(dead_letter["payload"]) if "payload" in dead_letter else None
        return _Case(
            record, int(record.detail["stream_sequence"]), dead_letter["subject"], dict(dead_letter["headers"]), payload
        )
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise ControlError(f"audit entry {record.id} is incomplete and cannot be undone: {error!r}") from error
