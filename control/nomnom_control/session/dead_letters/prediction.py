"""Dry run: what a replay would do, without doing it.

The grammar, the message's status and newer rows of the same keys are asked of what is there. What only PostgreSQL can
know (a constraint of its own) is asked, where wanted, by running the workers' own upsert in a transaction that is
always rolled back, one dead letter at a time, with short timeouts so that no worker waits for it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import asyncpg

from nomnom.envelope import Reason, Status
from nomnom.grammar import Problem, Record
from nomnom.inspection.dead_letters import DeadLetter
from nomnom.inspection.statuses import Answer
from nomnom.schema import Entity
from nomnom.tables import Table
from nomnom_control.session.dead_letters.editing import Edit, EditError, Validation, validate

if TYPE_CHECKING:
    from nomnom_control.session.pipeline import Pipeline

_STRIDE = 20
"""Dead letters examined before the event loop gets its turn."""
_LIMITS = "SET LOCAL statement_timeout = '2s'; SET LOCAL lock_timeout = '200ms'; SET CONSTRAINTS ALL IMMEDIATE"


class Outcome(StrEnum):
    """What a replay would come to."""

    COMPLETES = "completes"
    SUPERSEDED = "superseded"
    """It completes without effect: a row received later is there."""
    FAILS = "fails"
    """It comes back as a dead letter."""
    ALREADY = "already completed"
    """Nothing happens: a message is never applied twice."""
    UNDETERMINED = "undetermined"
    """Only PostgreSQL can say: ask with a deep dry run."""
    GONE = "gone"
    """The dead letter no longer exists."""
    IMPOSSIBLE = "impossible"
    """It cannot be replayed, or not be edited so."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The outcome of one dead letter, and why. ``entity`` is that of the payload as it would be replayed."""

    sequence: int
    message_id: str
    outcome: Outcome
    detail: str
    entity: str
    entity_changed: bool = False
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Forecast:
    """The predictions of many dead letters, counted."""

    total: int
    outcomes: dict[Outcome, int]


def forecast(predictions: Sequence[Prediction]) -> Forecast:
    """Count predictions by outcome."""
    return Forecast(len(predictions), dict(Counter(each.outcome for each in predictions)))


async def predict(
    pipeline: Pipeline, dead_letters: Sequence[DeadLetter], edit: Edit, *, deep: bool
) -> list[Prediction]:
    """The outcomes of these dead letters (with payloads), in their order. Raises DatabaseUnavailable or NotSetUp."""
    identified = [each.message_id for each in dead_letters if not each.envelope_problem]
    answers = await pipeline.statuses.answers(identified)
    found: dict[int, Prediction] = {}
    open_cases: list[tuple[DeadLetter, Validation, bool]] = []
    for number, dead_letter in enumerate(dead_letters, start=1):
        if number % _STRIDE == 0:
            await asyncio.sleep(0)
        try:
            payload = edit.apply(dead_letter.payload or b"", pipeline.schema)
        except EditError as error:
            found[dead_letter.sequence] = _prediction(dead_letter, Outcome.IMPOSSIBLE, str(error), dead_letter.entity)
            continue
        validation = validate(payload, pipeline.grammar)
        early = _without_database(dead_letter, validation, answers.get(dead_letter.message_id))
        if early is not None:
            found[dead_letter.sequence] = early
        else:
            open_cases.append((dead_letter, validation, payload == dead_letter.payload))
    if open_cases:
        for prediction in await (_deep(pipeline, open_cases) if deep else _shallow(pipeline, open_cases)):
            found[prediction.sequence] = prediction
    return [found[each.sequence] for each in dead_letters]


def _without_database(dead_letter: DeadLetter, validation: Validation, answer: Answer | None) -> Prediction | None:
    if dead_letter.envelope_problem:
        return _prediction(dead_letter, Outcome.IMPOSSIBLE, dead_letter.envelope_problem, dead_letter.entity)
    if answer is not None and answer.status is Status.COMPLETED:
        return _prediction(dead_letter, Outcome.ALREADY, "this message is completed already", validation.entity)
    if answer is not None and answer.replays > dead_letter.replays:
        detail = f"replay {answer.replays} of this message has been processed: {answer.status}"
        return _prediction(dead_letter, Outcome.ALREADY, detail, validation.entity)
    if validation.problems:
        text = "; ".join(str(each) for each in validation.problems)
        again = "fails the same way: " if text == dead_letter.error else ""
        return _prediction(dead_letter, Outcome.FAILS, again + text, validation.entity, validation.problems)
    return None


def _prediction(
    dead_letter: DeadLetter, outcome: Outcome, detail: str, entity: str, problems: tuple[Problem, ...] = ()
) -> Prediction:
    changed = entity != dead_letter.entity
    return Prediction(dead_letter.sequence, dead_letter.message_id, outcome, detail, entity, changed, problems)


async def _shallow(pipeline: Pipeline, cases: Sequence[tuple[DeadLetter, Validation, bool]]) -> list[Prediction]:
    """By the rows that are there: superseded where each of a message's rows has a later one."""
    by_entity: dict[Entity, list[tuple[int, Record]]] = {}
    for at, (_, validation, _) in enumerate(cases):
        for record in validation.records:
            if record.key is not None:
                by_entity.setdefault(record.entity, []).append((at, record))
    newer = Counter[int]()
    async with pipeline.database.connection() as connection:
        for entity, records in by_entity.items():
            keys = [list(column) for column in zip(*(record.key or () for _, record in records), strict=True)]
            received = [cases[at][0].received_at for at, _ in records]
            ids = [cases[at][0].message_id for at, _ in records]
            rows = await connection.fetch(Table(entity).newer, *keys, received, ids)
            newer.update(records[row["position"]][0] for row in rows)
    return [
        _judge(dead_letter, validation, newer[at], unchanged=unchanged)
        for at, (dead_letter, validation, unchanged) in enumerate(cases)
    ]


def _judge(dead_letter: DeadLetter, validation: Validation, newer: int, *, unchanged: bool) -> Prediction:
    rows = len(validation.records)
    if newer == rows:
        return _prediction(dead_letter, Outcome.SUPERSEDED, "rows received later are there", validation.entity)
    if unchanged and dead_letter.reason == Reason.DATA:
        detail = f"PostgreSQL refused these values before ({dead_letter.error}); a deep dry run asks it again"
        return _prediction(dead_letter, Outcome.UNDETERMINED, detail, validation.entity)
    if unchanged and dead_letter.reason == Reason.UNANSWERED:
        detail = "it follows the schema, and was delivered without an answer before"
        return _prediction(dead_letter, Outcome.UNDETERMINED, detail, validation.entity)
    detail = f"{newer} of {rows} rows have later ones, which stay" if newer else "it follows the schema"
    return _prediction(dead_letter, Outcome.COMPLETES, detail, validation.entity)


async def _deep(pipeline: Pipeline, cases: Sequence[tuple[DeadLetter, Validation, bool]]) -> list[Prediction]:
    predictions: list[Prediction] = []
    async with pipeline.database.connection() as connection:
        for dead_letter, validation, _ in cases:
            predictions.append(await _try(connection, dead_letter, validation, pipeline.schema.entities))
    return predictions


async def _try(
    connection: asyncpg.Connection, dead_letter: DeadLetter, validation: Validation, entities: Sequence[Entity]
) -> Prediction:
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(_LIMITS)
        written = 0
        for entity in entities:
            records = [each for each in validation.records if each.entity is entity]
            # As the workers do: of several rows of one key the last counts.
            keyed = list({each.key: each for each in records if each.key is not None}.values())
            keyless = [each for each in records if each.key is None]
            table = Table(entity)
            for statement, rows in ((table.upsert, keyed), (table.insert_keyless, keyless)):
                if rows:
                    columns = [list(column) for column in zip(*(each.values for each in rows), strict=True)]
                    received = [dead_letter.received_at] * len(rows)
                    ids = [dead_letter.message_id] * len(rows)
                    written += len(await connection.fetch(statement, *columns, received, ids))
    except (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError, asyncpg.DeadlockDetectedError) as error:
        detail = f"its row is being written by others just now ({error}); ask again"
        return _prediction(dead_letter, Outcome.UNDETERMINED, detail, validation.entity)
    except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.ProgramLimitExceededError) as error:
        again = "fails the same way: " if str(error) in dead_letter.error else ""
        return _prediction(dead_letter, Outcome.FAILS, f"{again}PostgreSQL refuses it: {error}", validation.entity)
    finally:
        if not connection.is_closed():
            await transaction.rollback()
    if not written:
        return _prediction(dead_letter, Outcome.SUPERSEDED, "rows received later are there", validation.entity)
    return _prediction(dead_letter, Outcome.COMPLETES, "PostgreSQL takes it", validation.entity)
