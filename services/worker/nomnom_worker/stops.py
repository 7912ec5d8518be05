"""Entities that are stopped because their table does not take rows: altered, locked, or without a privilege.

The messages of a stopped entity are returned to the stream and delivered again after a few seconds, without using up an
attempt, while the other entities continue. A stop ends when its table takes rows again, which is checked every second.

Redeliveries count towards the suspicion of a crash (see :mod:`nomnom_worker.failures`); for a while after a stop, those
of its messages are explained by it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import asyncpg

from nomnom.connections.outage import Outage
from nomnom.connections.postgres import NOT_SET_UP, transaction
from nomnom.retry import RetryPolicy
from nomnom.schema import Entity
from nomnom.telemetry import logger
from nomnom_worker.batches import Batch, Statement
from nomnom_worker.database import Fault, fault_of
from nomnom_worker.deliveries import Delivery
from nomnom_worker.metrics import Metrics

_log = logger(__name__)
_PROBE = 2.0
_EXPLAINED = 60.0
HOLD = RetryPolicy(first=1.0, longest=10.0)
"""Seconds until the messages of a stopped entity are delivered again, by the number of their deliveries."""


@dataclass(slots=True)
class Stop:
    """The stop of one entity."""

    statements: dict[str, Statement]
    """The statements that failed, by their text."""
    sample: Batch | None
    """A message whose rows the table rejects, if it accepts the statements without rows."""
    outage: Outage = field(default_factory=Outage)
    messages: set[str] = field(default_factory=set[str])
    """The entities of the messages that were held."""


class Stops:
    """The stopped entities of one worker."""

    def __init__(self, metrics: Metrics) -> None:
        self._metric = metrics.stopped
        self._stops: dict[Entity, Stop] = {}
        self._ended: dict[str, float] = {}

    def __bool__(self) -> bool:
        return bool(self._stops)

    @property
    def reason(self) -> str | None:
        """Which entities are stopped, and why; None if none is."""
        return "; ".join(f"{entity.name}: {stop.outage.reason}" for entity, stop in self._stops.items()) or None

    def begin(self, entity: Entity, reason: str, statements: Iterable[Statement], sample: Batch | None) -> None:
        """Stop an entity, or report that it is still stopped."""
        stop = self._stops.setdefault(entity, Stop({}, sample))
        stop.sample = stop.sample or sample
        for each in statements:
            stop.statements.setdefault(each.sql, each)
        if stop.outage.report(reason):
            _log.error("entity stopped", entity=entity.name, reason=reason)
            self._metric.labels(entity.name).set(1)

    def holds(self, delivery: Delivery) -> bool:
        """Whether a message must wait: it has rows of a stopped entity or, if it was not parsed, is such an entity."""
        if not self._stops:
            return False
        for entity, stop in self._stops.items():
            if entity.name == delivery.envelope.entity or any(each.entity is entity for each in delivery.records):
                stop.messages.add(delivery.envelope.entity)
                return True
        return False

    def explains(self, delivery: Delivery) -> bool:
        """Whether earlier deliveries of a message are explained by a stop that has just ended."""
        ended = self._ended.get(delivery.envelope.entity)
        return ended is not None and asyncio.get_running_loop().time() - ended < _EXPLAINED

    async def check(self, connection: asyncpg.Connection) -> None:
        """End the stops whose tables take rows again."""
        for entity, stop in list(self._stops.items()):
            reason = (await rejections(connection, list(stop.statements.values()))).get(entity)
            if reason is None and stop.sample is not None:
                reason = await _rejection(connection, stop.sample)
            if reason is not None:
                self.begin(entity, reason, (), stop.sample)
                continue
            del self._stops[entity]
            now = asyncio.get_running_loop().time()
            self._ended |= dict.fromkeys(stop.messages | {entity.name}, now)
            _log.info("entity resumed", entity=entity.name)
            self._metric.labels(entity.name).set(0)


async def rejections(connection: asyncpg.Connection, statements: Sequence[Statement]) -> dict[Entity, str]:
    """Why the tables of these statements reject them even without rows, by entity; empty if none does.

    PostgreSQL then plans the statement, checks privileges and locks the table, but no value can be the cause. Raises
    what asyncpg raises if the server is at fault.
    """
    found: dict[Entity, str] = {}
    for each in statements:
        table = f"table {each.table.entity.table}"
        try:
            async with transaction(connection):
                await connection.fetch(each.sql, *each.no_rows, timeout=_PROBE)
        except asyncpg.PostgresError as error:
            if connection.is_closed() or fault_of(error) is Fault.SERVER:
                raise
            advice = "; run nomnom setup with this schema" if isinstance(error, NOT_SET_UP) else ""
            found[each.table.entity] = f"{table} cannot be written: {error}{advice}"
        except TimeoutError:
            if connection.is_closed():
                raise
            found[each.table.entity] = f"{table} does not respond within {_PROBE:g} s; it may be locked"
    return found


def required_column(batch: Batch, table: str | None, column: str | None) -> tuple[Entity, str] | None:
    """The entity whose table requires a column that is not in the schema, and the reason, if that is the error."""
    for each in batch.statements:
        entity = each.table.entity
        if column is not None and entity.table == table and column not in each.table.columns:
            return entity, f"table {table} requires column {column}, which the schema does not have; add a default"
    return None


async def _rejection(connection: asyncpg.Connection, sample: Batch) -> str | None:
    """Why a table requires a column that no row has: the rows of a sample are written, and rolled back."""
    begun = connection.transaction()
    await begun.start()
    try:
        for each in sample.statements:
            await connection.fetch(each.sql, *each.parameters, timeout=_PROBE)
    except asyncpg.NotNullViolationError as error:
        table, column = getattr(error, "table_name", None), getattr(error, "column_name", None)
        found = required_column(sample, table, column)
        return found[1] if found else None
    except asyncpg.PostgresError as error:
        if connection.is_closed() or fault_of(error) is Fault.SERVER:
            raise
        return None
    finally:
        if not connection.is_closed():
            await begun.rollback()
    return None
