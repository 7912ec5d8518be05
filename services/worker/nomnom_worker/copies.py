"""Finds out what the copies in a batch are, before it is written (:mod:`nomnom.copies`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter

from nomnom.copies import Conflict, Copy, apply, settle
from nomnom.envelope import Envelope, Reason, is_keyed
from nomnom.telemetry import logger
from nomnom_worker.deliveries import Delivery, Failure, Readings
from nomnom_worker.errors import RefusedError
from nomnom_worker.writer import Persist

_log = logger(__name__)
_POSITION = attrgetter("position")


class Copies:
    """Finds out what the copies in a batch are."""

    def __init__(self, persist: Persist) -> None:
        self._persist = persist

    async def settle(self, readings: Readings) -> bool:
        """Give repeats the identity of their first copies, and turn conflicts into failures. Returns whether there were
        any. Raises AbandonedError.
        """
        failed = [each.delivery for each in readings.failures if each.reason is not Reason.ENVELOPE]
        groups = (readings.valid, failed, readings.redelivered)
        copies: list[Copy] = [
            each
            for group in groups
            for each in group
            if each.reply not in readings.parts and (each.envelope.replays or is_keyed(each.message_id))
        ]
        copies += readings.keyed
        if not copies:
            return False
        copies.sort(key=_POSITION)
        unknown: set[int] = set()
        found = await self._find(copies, unknown)
        if not found and not unknown:
            return False
        if unknown:
            readings.postponed += (each for group in groups for each in group if each.position in unknown)
            readings.valid[:] = [each for each in readings.valid if each.position not in unknown]
            readings.redelivered[:] = [each for each in readings.redelivered if each.position not in unknown]
            readings.failures[:] = [each for each in readings.failures if each.delivery.position not in unknown]
        conflicts = [
            _failure(each, result)
            for group in groups
            for each in group
            if isinstance(result := found.get(each.position), Conflict)
        ]
        readings.valid[:] = _apply(readings.valid, found)
        readings.redelivered[:] = _apply(readings.redelivered, found)
        kept = {id(each) for each in _apply((each.delivery for each in readings.failures), found)}
        readings.failures[:] = [each for each in readings.failures if id(each.delivery) in kept]
        readings.failures += conflicts
        return True

    async def _find(self, copies: Sequence[Copy], unknown: set[int]) -> dict[int, Envelope | Conflict]:
        """What the copies are, as :func:`settle`; bisects those whose lookup PostgreSQL rejects: those are unknown."""
        try:
            return await self._persist(lambda connection: settle(connection, copies))
        except RefusedError as error:
            if len(copies) == 1:
                message_id = copies[0].envelope.message_id
                _log.error("lookup of a copy rejected, message kept", message_id=message_id, reason=str(error))
                unknown.add(copies[0].position)
                return {}
        middle = len(copies) // 2
        first = await self._find(copies[:middle], unknown)
        return first | await self._find(copies[middle:], unknown)


def _apply(deliveries: Iterable[Delivery], found: Mapping[int, Envelope | Conflict]) -> list[Delivery]:
    """The deliveries with their envelopes, without conflicts."""
    kept: list[Delivery] = []
    for each in deliveries:
        result = found.get(each.position)
        if isinstance(result, Conflict):
            continue
        if result is not None:
            each.envelope = apply(result, each.envelope)
        kept.append(each)
    return kept


def _failure(delivery: Delivery, conflict: Conflict) -> Failure:
    envelope = apply(conflict, delivery.envelope)
    own = Delivery(delivery.reply, delivery.payload, delivery.number, envelope, [], delivery.position)
    return Failure(own, Reason.KEY_CONFLICT, conflict.error)
