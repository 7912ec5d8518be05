"""Dry run: predict the outcome of a replay.

The prediction uses the grammar, the message's status and newer rows with the same keys. A deep dry run also checks
PostgreSQL's own constraints: it runs the workers' upsert for one dead letter at a time in a transaction that is always
rolled back, with short timeouts so that no worker has to wait for it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import asyncpg

from nomnom.envelope import REMOVED, Reason, Status
from nomnom.grammar import Problem, Record
from nomnom.inspection.dead_letters import DeadLetter
from nomnom.inspection.statuses import Answer
from nomnom.schema import Entity
from nomnom.tables import Table
from nomnom_control.session.dead_letters.editing import Edit, EditError, Validation, validate

if TYPE_CHECKING:
    from nomnom_control.session.pipeline import Pipeline

_STRIDE = 20
"""Yield to the event loop after this many dead letters."""
_LIMITS = "SET LOCAL statement_timeout = '2s'; SET LOCAL lock_timeout = '200ms'; SET CONSTRAINTS ALL IMMEDIATE"


class Outcome(StrEnum):
    """The predicted outcome of a replay."""

    COMPLETES = "completes"
    SUPERSEDED = "superseded"
    """It completes without effect: rows received later exist."""
    FAILS = "fails"
    """It becomes a dead letter again."""
    ALREADY = "already completed"
    """It has no effect: a message is never applied twice."""
    UNDETERMINED = "undetermined"
    """It depends on PostgreSQL: use a deep dry run."""
    GONE = "gone"
    """The dead letter does not exist any more."""
    IMPOSSIBLE = "impossible"
    """It cannot be replayed, or the edit cannot be applied."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The predicted outcome of one dead letter and the reason. ``entity`` is that of the payload to be replayed."""

    sequence: int
    message_id: str
    outcome: Outcome
    detail: str
    entity: str
    entity_changed: bool = False
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Forecast:
    """The numbers of predictions by outcome."""

    total: int
    outcomes: dict[Outcome, int]


def forecast(predictions: Sequence[Prediction]) -> Forecast:
    """Count predictions by outcome."""
    return Forecast(len(predictions), dict(Counter(each.outcome for each in predictions)))


async def predict(
    pipeline: Pipeline, dead_letters: Sequence[DeadLetter], edit: Edit, *, deep: bool
) -> list[Prediction]:
    """Predict the outcomes of dead letters with payloads, in order. Raises DatabaseUnavailable or NotSetUp."""
    identified = [each.message_id for each in dead_letters if not each.envelope_problem]
    answers = await pipeline.statuses.answers(identified)
    found: dict[int, Prediction] = {}
    undecided: list[tuple[DeadLetter, Validation, bool]] = []
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
            undecided.append((dead_letter, validation, payload == dead_letter.payload))
    if undecided:
        for prediction in await (_deep(pipeline, undecided) if deep else _shallow(pipeline, undecided)):
            found[prediction.sequence] = prediction
    return [found[each.sequence] for each in dead_letters]


def _without_database(dead_letter: DeadLetter, validation: Validation, answer: Answer | None) -> Prediction | None:
    if dead_letter.envelope_problem:
        return _prediction(dead_letter, Outcome.IMPOSSIBLE, dead_letter.envelope_problem, dead_letter.entity)
    if answer is not None and answer.status is Status.COMPLETED:
        return _prediction(dead_letter, Outcome.ALREADY, "the message is already completed", validation.entity)
    if answer is not None and answer.replays > dead_letter.replays and answer.status not in REMOVED:
        detail = f"replay {answer.replays} of this message was processed: {answer.status}"
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
    """Predict from the existing rows: superseded if all rows of a message are older than existing ones."""
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
            positions = [cases[at][0].position for at, _ in records]
            rows = await connection.fetch(Table(entity).newer, *keys, received, ids, positions)
            newer.update(records[row["position"]][0] for row in rows)
    return [
        _compare(dead_letter, validation, newer[at], unchanged=unchanged)
        for at, (dead_letter, validation, unchanged) in enumerate(cases)
    ]


def _compare(dead_letter: DeadLetter, validation: Validation, newer: int, *, unchanged: bool) -> Prediction:
    rows = len(validation.records)
    if newer == rows:
        return _prediction(dead_letter, Outcome.SUPERSEDED, "rows received later exist", validation.entity)
    if unchanged and dead_letter.reason == Reason.DATA:
        detail = f"PostgreSQL rejected these values before ({dead_letter.error}); use a deep dry run to test them again"
        return _prediction(dead_letter, Outcome.UNDETERMINED, detail, validation.entity)
    if unchanged and dead_letter.reason == Reason.UNANSWERED:
        detail = "it matches the schema, but was not acknowledged before"
        return _prediction(dead_letter, Outcome.UNDETERMINED, detail, validation.entity)
    detail = (
        f"{newer} of {rows} rows are older than existing ones, which are kept" if newer else "it matches the schema"
    )
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
            # Like the workers: of several rows with the same key, the last one is written.
            keyed = list({each.key: each for each in records if each.key is not None}.values())
            keyless = [each for each in records if each.key is None]
            table = Table(entity)
            for statement, rows in ((table.upsert, keyed), (table.insert_keyless, keyless)):
                if rows:
                    columns = [list(column) for column in zip(*(each.values for each in rows), strict=True)]
                    received = [dead_letter.received_at] * len(rows)
                    ids = [dead_letter.message_id] * len(rows)
                    positions = [dead_letter.position] * len(rows)
                    parameters = table.parameters([*columns, received, ids, positions])
                    written += len(await connection.fetch(statement, *parameters))
    except (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError, asyncpg.DeadlockDetectedError) as error:
        detail = f"its row is locked by another transaction ({error}); try again"
        return _prediction(dead_letter, Outcome.UNDETERMINED, detail, validation.entity)
    except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.ProgramLimitExceededError) as error:
        again = "fails the same way: " if str(error) in dead_letter.error else ""
        return _prediction(dead_letter, Outcome.FAILS, f"{again}PostgreSQL rejects it: {error}", validation.entity)
    finally:
        if not connection.is_closed():
            await transaction.rollback()
    if not written:
        return _prediction(dead_letter, Outcome.SUPERSEDED, "rows received later exist", validation.entity)
    return _prediction(dead_letter, Outcome.COMPLETES, "PostgreSQL accepts it", validation.entity)
