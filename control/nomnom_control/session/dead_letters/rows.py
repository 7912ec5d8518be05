"""The rows that a message wrote, compared with a payload."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nomnom.grammar import Record
from nomnom.inspection.rows import EntityTable
from nomnom.schema import Entity
from nomnom_control.session.dead_letters.editing import validate

if TYPE_CHECKING:
    from nomnom.inspection.dead_letters import DeadLetter
    from nomnom_control.session.pipeline import Pipeline


async def was_written(pipeline: Pipeline, dead_letter: DeadLetter, payload: bytes) -> bool:
    """Whether the rows of this message hold exactly the values of ``payload``; False if later rows replaced them.

    Raises DatabaseUnavailable or NotSetUp.
    """
    validation = validate(payload, pipeline.grammar)
    if validation.problems:
        return False
    expected: defaultdict[Entity, list[Record]] = defaultdict(list)
    for record in validation.records:
        expected[record.entity].append(record)
    for entity, records in expected.items():
        # Like the workers: of several lines with the same key, the last one is written.
        keyed = {each.key: each for each in records if each.key is not None}
        last = [each for each in records if each.key is None or keyed[each.key] is each]
        table = EntityTable(entity)
        rows = await pipeline.database.fetch(
            table.written_by, dead_letter.received_at, dead_letter.message_id, len(last) + 1
        )
        if Counter(_values(entity, each.mapping()) for each in last) != Counter(
            _values(entity, table.row(each)) for each in rows
        ):
            return False
    return True


def _values(entity: Entity, row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[each.name] for each in entity.fields)
