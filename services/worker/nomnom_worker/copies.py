"""Finds out what the copies in a batch are, before it is written (:mod:`nomnom.copies`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import attrgetter

from nomnom.copies import Conflict, settle
from nomnom.envelope import Envelope, Reason, is_keyed
from nomnom_worker.deliveries import Delivery, Failure, Readings
from nomnom_worker.writer import Persist

_POSITION = attrgetter("position")


class Copies:
    """Finds out what the copies in a batch are."""

    def __init__(self, persist: Persist[dict[int, Envelope | Conflict]]) -> None:
        self._persist = persist

    async def settle(self, readings: Readings) -> bool:
        """Give repeats the identity of their first copies, and turn conflicts into failures. Returns whether there were
        any. Raises AbandonedError.
        """
        failed = [each.delivery for each in readings.failures if each.reason is not Reason.ENVELOPE]
        copies = [
            each
            for group in (readings.valid, failed, readings.redelivered)
            for each in group
            if each.envelope.replays or is_keyed(each.message_id)
        ]
        if not copies:
            return False
        copies.sort(key=_POSITION)
        found = await self._persist(lambda connection: settle(connection, copies))
        if not found:
            return False
        readings.valid[:] = _apply(readings.valid, found)
        readings.redelivered[:] = _apply(readings.redelivered, found)
        kept = _apply((each.delivery for each in readings.failures), found)
        own = {each.position for each in kept}
        readings.failures[:] = [each for each in readings.failures if each.delivery.position in own]
        conflicts = {
            each.position: _failure(each, result)
            for each in copies
            if isinstance(result := found.get(each.position), Conflict)
        }
        readings.failures += conflicts.values()
        return True


def _apply(deliveries: Iterable[Delivery], found: Mapping[int, Envelope | Conflict]) -> list[Delivery]:
    """The deliveries with their envelopes, without conflicts."""
    kept: list[Delivery] = []
    for each in deliveries:
        result = found.get(each.position)
        if isinstance(result, Conflict):
            continue
        if result is not None:
            each.envelope = result
        kept.append(each)
    return kept


def _failure(delivery: Delivery, conflict: Conflict) -> Failure:
    own = Delivery(delivery.message, delivery.number, conflict.envelope, [], delivery.position)
    return Failure(own, Reason.KEY_CONFLICT, conflict.error)
