"""Expiry and archival, killed at each step that they take on the wire, then run again."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import asyncpg

from nomnom.streams import dead_stream, message_stream
from tests.chaos.parts import Parts, connect_nats
from tests.chaos.steps import Attempts, Operator, choose_points, places_of, point_text

_PAST = 0.001
"""A maximum age in seconds that every message has passed."""
_MIDDLE = 6


async def kill_expiries(operator: Operator, chance: random.Random, limit: int | None = None) -> Attempts:
    """Kill expiries of messages without a worker: in the end each is one dead letter and has that status.

    Afterwards, kill the archival of the dead letters: each is in the archive, and its status is expired.
    """
    parts, attempts = operator.parts, Attempts("expiry")
    for worker in parts.workers:
        await worker.stop()
    await _set_ages(parts, messages=_PAST)
    posted = dict.fromkeys(await operator.post_valid(), "undisturbed")
    _, attempts.steps = await operator.run("expire")
    for number, delivered in choose_points(attempts.steps, chance, limit):
        ids = await operator.post_valid()
        killed, seen = await operator.run("expire", number, delivered=delivered)
        if killed:
            attempts.killed.append(point_text(seen, number, delivered))
        await operator.finish("expire")
        posted |= dict.fromkeys(ids, point_text(seen, number, delivered))
    places = await places_of(parts)
    for each, point in posted.items():
        found = (places.statuses.get(each), places.dead[each], places.pending[each])
        if found != ("dlq", 1, 0):
            attempts.problems.append(f"{point}: {each}: status {found[0]}, {found[1]} dead letters, {found[2]} pending")
    await _set_ages(parts, dead_letters=_PAST)
    await operator.run("archive", _MIDDLE, delivered=chance.random() < 0.5)
    await operator.finish("archive")
    places = await places_of(parts)
    archived = await _archived(parts)
    for each, point in posted.items():
        found = (places.statuses.get(each), places.dead[each], archived[each])
        if found != ("expired", 0, 1):
            attempts.problems.append(
                f"{point}: {each}: status {found[0]}, {found[1]} dead letters, archived {found[2]} times"
            )
    for worker in parts.workers:
        await worker.start()
    return attempts


async def _set_ages(parts: Parts, messages: float = 86_400.0, dead_letters: float = 604_800.0) -> None:
    settings = replace(parts.settings.streams, max_age=messages, dead_max_age=dead_letters)
    client = await connect_nats(parts.nats_url)
    try:
        for config in (message_stream(settings), dead_stream(settings)):
            await client.jetstream(timeout=5).update_stream(config)
    finally:
        await client.close()


async def _archived(parts: Parts) -> Counter[str]:
    database = await asyncpg.connect(parts.postgres.server.url)
    try:
        return Counter(row[0] for row in await database.fetch("SELECT message_id::text FROM nomnom_archive"))
    finally:
        await database.close()
