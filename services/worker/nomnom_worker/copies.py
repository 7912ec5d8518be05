"""Copies: messages in the stream more than once, and what each copy is, before a batch is written.

A replay is a copy of its original. A message with an Idempotency-Key may come again after JetStream's duplicate window:
with the same content it is a repeat, which changes nothing, or a new life if the first one was removed; with another
content it is a conflict and becomes a dead letter of its own. Every other message is in the stream once, and costs
nothing here.

What a copy is, is recorded (``nomnom_sequences``) before it is acknowledged, so that every sequence of the stream is
accounted for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from operator import attrgetter

import asyncpg

from nomnom.envelope import Envelope, Reason, copy_id, digest_of, is_keyed
from nomnom.message_status import ADD_KEYS, FIND_KEYS, RENEW_KEYS, REVIVE
from nomnom.positions import RECORD
from nomnom.telemetry import logger
from nomnom_worker.deliveries import Delivery, Failure, Readings
from nomnom_worker.errors import RefusedError
from nomnom_worker.writer import Persist

_log = logger(__name__)
_POSITION = attrgetter("position")
# If it is lost with PostgreSQL, so is everything that is committed after it.
_ASYNCHRONOUS = "SET LOCAL synchronous_commit = off"


class Copies:
    """Finds out what the copies in a batch are."""

    def __init__(self, persist: Persist) -> None:
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
        found = await self._find(copies, readings.postponed)
        if not found and not readings.postponed:
            return False
        if readings.postponed:
            unknown = {each.position for each in readings.postponed}
            readings.valid[:] = [each for each in readings.valid if each.position not in unknown]
            readings.redelivered[:] = [each for each in readings.redelivered if each.position not in unknown]
            readings.failures[:] = [each for each in readings.failures if each.delivery.position not in unknown]
        readings.valid[:] = _apply(readings.valid, found)
        readings.redelivered[:] = _apply(readings.redelivered, found)
        kept = _apply((each.delivery for each in readings.failures), found)
        own = {each.position for each in kept}
        readings.failures[:] = [each for each in readings.failures if each.delivery.position in own]
        readings.failures += [each for each in found.values() if isinstance(each, Failure)]
        return True

    async def _find(self, copies: Sequence[Delivery], postponed: list[Delivery]) -> dict[int, Envelope | Failure]:
        """What the copies are, as :func:`_settle`; bisects those whose lookup PostgreSQL rejects and postpones them."""
        try:
            return await self._persist(lambda connection: _settle(connection, copies))
        except RefusedError as error:
            if len(copies) == 1:
                message_id = copies[0].message_id
                _log.error("lookup of a copy rejected, message kept", message_id=message_id, reason=str(error))
                postponed += copies
                return {}
        middle = len(copies) // 2
        first = await self._find(copies[:middle], postponed)
        return first | await self._find(copies[middle:], postponed)


def _apply(deliveries: Iterable[Delivery], found: dict[int, Envelope | Failure]) -> list[Delivery]:
    """The deliveries with their envelopes, without conflicts."""
    kept: list[Delivery] = []
    for each in deliveries:
        result = found.get(each.position)
        if isinstance(result, Failure):
            continue
        if result is not None:
            each.envelope = result
        kept.append(each)
    return kept


async def _settle(connection: asyncpg.Connection, copies: Sequence[Delivery]) -> dict[int, Envelope | Failure]:
    """What is not the first copy of its message, by position: its envelope, or why it fails."""
    keyed = [each for each in copies if not each.envelope.replays]
    record = [(each.position, each.message_id, "replay") for each in copies if each.envelope.replays]
    found: dict[int, Envelope | Failure] = {}
    async with connection.transaction():
        if not record:
            await connection.execute(_ASYNCHRONOUS)
        digests = {each.position: digest_of(each.message.data) for each in keyed}
        added = await connection.fetch(
            ADD_KEYS,
            [each.message_id for each in keyed],
            [digests[each.position] for each in keyed],
            [each.envelope.received_at for each in keyed],
            [each.position for each in keyed],
        )
        first = {row["stream_position"] for row in added}
        others = [each for each in keyed if each.position not in first]
        keys = {
            str(row["message_id"]): row
            for row in (await connection.fetch(FIND_KEYS, [each.message_id for each in others]) if others else ())
        }
        repeats: list[Delivery] = []
        for each in others:
            key = keys[each.message_id]
            if key["stream_position"] == each.position:
                continue  # a redelivery of the first copy
            if key["digest"] not in (None, digests[each.position]):
                found[each.position] = _conflict(each)
                continue
            found[each.position] = replace(
                each.envelope, received_at=key["received_at"], position=key["stream_position"]
            )
            repeats.append(each)
        if repeats:
            await connection.execute("SET LOCAL synchronous_commit = on")
            revived = await _revive(connection, repeats, found)
            record += [(each.position, each.message_id, "repeat") for each in repeats if each.position not in revived]
        if record:
            await connection.execute(RECORD, *(list(column) for column in zip(*record, strict=True)))
    return found


async def _revive(
    connection: asyncpg.Connection, repeats: Sequence[Delivery], found: dict[int, Envelope | Failure]
) -> set[int]:
    """Begin a new life of messages that were removed; returns the positions of the copies that became originals."""
    # Of several copies the first is the original.
    firsts = {each.message_id: each for each in reversed(repeats)}
    ids, positions = list(firsts), [each.position for each in firsts.values()]
    times = [each.received_at for at in positions if isinstance(each := found[at], Envelope)]
    rows = await connection.fetch(REVIVE, ids, times, positions)
    revived: set[int] = set()
    for row in rows:
        delivery = firsts[str(row["message_id"])]
        revived.add(delivery.position)
        for each in repeats:
            if each.message_id == delivery.message_id:
                envelope = found[each.position]
                assert isinstance(envelope, Envelope)
                found[each.position] = replace(envelope, position=delivery.position)
    if rows:
        renewed = [firsts[str(row["message_id"])] for row in rows]
        await connection.execute(
            RENEW_KEYS,
            [each.message_id for each in renewed],
            [digest_of(each.message.data) for each in renewed],
            [each.position for each in renewed],
        )
        await connection.execute(
            RECORD,
            [row["before"] for row in rows],
            [row["message_id"] for row in rows],
            [row["ended"] for row in rows],
        )
    return revived


def _conflict(delivery: Delivery) -> Failure:
    envelope = Envelope(
        copy_id(delivery.position), delivery.envelope.entity, delivery.envelope.received_at, position=delivery.position
    )
    error = (
        f"the Idempotency-Key of message {delivery.message_id} was used again with another content; this is the second "
        "content: replay it as a message of its own, or delete it"
    )
    return Failure(
        Delivery(delivery.message, delivery.number, envelope, [], delivery.position), Reason.KEY_CONFLICT, error
    )
