"""Operations killed at each step that they take on the wire, then run again: replay, undo, deletion and setup."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import sys
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from nomnom_control.environments.local.processes import ChildProcess
from tests.chaos.account import read_stream, settle
from tests.chaos.load import MESSAGE, Record
from tests.chaos.parts import Parts, connect_nats
from tests.chaos.proxy import StopPoint

LETTERS = 3
"""Dead letters of each attempt."""
_WAIT = 60.0
_ATTEMPTS = 5


@dataclass
class Attempts:
    """Kill points of an operation that were tried, and what was wrong afterwards."""

    operation: str
    steps: list[str] = field(default_factory=list[str])
    """All steps of an undisturbed run."""
    killed: list[str] = field(default_factory=list[str])
    problems: list[str] = field(default_factory=list[str])

    def figures(self) -> dict[str, Any]:
        """The result as a mapping."""
        return {
            "operation": self.operation,
            "steps": len(self.steps),
            "killed": len(self.killed),
            "problems": self.problems,
        }


class Operator:
    """Runs operations as processes, with links of their own."""

    def __init__(self, parts: Parts, folder: Path) -> None:
        self.parts, self._folder = parts, folder
        self._posted = 0
        self.database = ""
        """The name of another database; empty: the pipeline's."""

    async def post_invalid(self) -> set[str]:
        """Post records that become dead letters, and wait until they are; returns their message IDs."""
        found: set[str] = set()
        api = f"http://127.0.0.1:{self.parts.apis[0].port}"
        async with httpx.AsyncClient(base_url=api, timeout=10, trust_env=False) as http, asyncio.timeout(_WAIT):
            while len(found) < LETTERS:
                self._posted += 1
                record = Record(0, self._posted, self._posted, invalid=True)
                headers = {"content-type": "text/plain", "idempotency-key": uuid.uuid4().hex}
                while (answer := await http.post(MESSAGE, content=record.line, headers=headers)).status_code == 503:
                    await asyncio.sleep(0.2)
                assert answer.status_code == 202, answer.text
                found.add(answer.json()["message_id"])
        await _until_dead(self.parts, found)
        return found

    async def post_valid(self) -> set[str]:
        """Post valid records, which no worker processes; returns their message IDs."""
        api = f"http://127.0.0.1:{self.parts.apis[0].port}"
        found: set[str] = set()
        async with httpx.AsyncClient(base_url=api, timeout=10, trust_env=False) as http:
            for _ in range(LETTERS):
                self._posted += 1
                answer = await http.post(
                    MESSAGE, content=Record(0, self._posted, self._posted).line, headers={"content-type": "text/plain"}
                )
                assert answer.status_code == 202, answer.text
                found.add(answer.json()["message_id"])
        return found

    async def run(self, name: str, number: int | None = None, *, delivered: bool = False) -> tuple[bool, list[str]]:
        """Run an operation; kill it at its ``number``-th step. Returns whether it was killed, and the steps seen.

        Raises AssertionError if it fails otherwise.
        """
        nats = await self.parts.nats_link("operation")
        postgres = await self.parts.postgres_link("operation")
        if self.database:
            postgres = f"{postgres.rpartition('/')[0]}/{self.database}"
        variables = {
            "NATS_URL": nats,
            "DATABASE_URL": postgres,
            "CHAOS_SPOOL": str(self._folder / "spool"),
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        log = self._folder / f"{name}.log"
        process = ChildProcess(name, [sys.executable, "-m", "tests.chaos.operation", name], log, variables)
        process.folder = Path(__file__).parents[2]
        steps: list[str] = []
        point = None
        if number is not None:
            point = StopPoint("", number, delivered, lambda: process.send(signal.SIGKILL))
        links = [each for key, each in self.parts.links.items() if key.startswith("operation-")]
        for each in links:
            each.steps, each.stop_point = steps, point
        await process.start()
        async with asyncio.timeout(_WAIT):
            code = await process.wait()
        for each in links:
            each.steps, each.stop_point = None, None
        killed = point is not None and point.reached.is_set()
        if not killed and code != 0:
            raise AssertionError(str(process.failure()))
        return killed, steps

    async def finish(self, name: str) -> None:
        """Run an operation, again if it reports a problem. Raises AssertionError if the problem persists."""
        for attempt in range(_ATTEMPTS):
            try:
                await self.run(name)
            except AssertionError:
                if attempt == _ATTEMPTS - 1:
                    raise
                await asyncio.sleep(1)
            else:
                return


async def _until_dead(parts: Parts, ids: set[str]) -> None:
    async with asyncio.timeout(_WAIT):
        while True:
            places = await places_of(parts)
            if all(places.statuses.get(each) == "dlq" and places.dead[each] for each in ids):
                break
            await asyncio.sleep(0.1)
    assert await settle(parts)


@dataclass
class OperationPlaces:
    """Where messages are, and what the audit log says of them."""

    statuses: dict[str, str]
    applied: Counter[str]
    audited: Counter[tuple[str, str]]
    """By action and message ID."""
    pending: Counter[str]
    dead: Counter[str]


async def places_of(parts: Parts) -> OperationPlaces:
    """Read both servers."""
    database = await asyncpg.connect(parts.postgres.server.url)
    try:
        statuses = dict(await database.fetch("SELECT message_id::text, status FROM message_status"))
        applied = await database.fetch("SELECT message_id::text FROM applied")
        audited = await database.fetch("SELECT action, message_id::text FROM nomnom_audit WHERE message_id IS NOT NULL")
    finally:
        await database.close()
    client = await connect_nats(parts.nats_url)
    try:
        jetstream = client.jetstream(timeout=5)
        pending = [str(each.subject).rpartition(".")[2] async for each in read_stream(jetstream, "MESSAGES")]
        dead = [str(each.subject).rpartition(".")[2] async for each in read_stream(jetstream, "MESSAGESDLQ")]
    finally:
        await client.close()
    return OperationPlaces(
        statuses,
        Counter(each[0] for each in applied),
        Counter((each[0], each[1]) for each in audited),
        Counter(pending),
        Counter(dead),
    )


def choose_points(
    steps: list[str], chance: random.Random, limit: int | None, pattern: str = ""
) -> list[tuple[int, bool]]:
    """Kill points: the number of a step, and whether it is delivered; all of them, or a sample of ``limit``."""
    numbers = [number for number, step in enumerate(steps, 1) if re.search(pattern, step)]
    points = [(number, delivered) for number in numbers for delivered in (False, True)]
    return points if limit is None or limit >= len(points) else sorted(chance.sample(points, limit))


async def kill_replays(
    operator: Operator, chance: random.Random, limit: int | None = None, name: str = "fix", at: str = ""
) -> Attempts:
    """Kill replays that correct dead letters: in the end each is completed, was applied once, and is in the audit log.

    ``name`` is the operation, ``at`` a pattern of the steps to kill it at.
    """
    parts, attempts = operator.parts, Attempts(name)
    first = await operator.post_invalid()
    _, attempts.steps = await operator.run(name)
    posted = {frozenset(first): "undisturbed"}
    for number, delivered in choose_points(attempts.steps, chance, limit, at):
        ids = await operator.post_invalid()
        killed, seen = await operator.run(name, number, delivered=delivered)
        if killed:
            attempts.killed.append(point_text(seen, number, delivered))
        await operator.finish(name)
        posted[frozenset(ids)] = point_text(seen, number, delivered)
    if not await settle(parts):
        attempts.problems.append("messages are still pending")
    places = await places_of(parts)
    for ids, point in posted.items():
        for each in ids:
            if places.statuses.get(each) != "completed" or places.applied[each] != 1:
                state = f"status {places.statuses.get(each)}, applied {places.applied[each]} times"
                attempts.problems.append(f"{point}: {each}: {state}")
            if places.dead[each]:
                attempts.problems.append(f"{point}: {each}: still a dead letter")
            if not places.audited["replay", each]:
                attempts.problems.append(f"{point}: {each}: no audit entry")
    return attempts


async def kill_undos(operator: Operator, chance: random.Random, limit: int | None = None) -> Attempts:
    """Kill undos of replays that no worker has processed: each message is one dead letter again, and not pending."""
    parts, attempts = operator.parts, Attempts("undo")
    ids = await operator.post_invalid()
    for worker in parts.workers:
        await worker.stop()
    points: list[tuple[int, bool] | None] = [None]
    while points:
        point = points.pop(0)
        await operator.run("replay")
        if point is None:
            _, attempts.steps = await operator.run("undo")
            points = [*choose_points(attempts.steps, chance, limit)]
            text = "undisturbed"
        else:
            killed, seen = await operator.run("undo", point[0], delivered=point[1])
            text = point_text(seen, *point)
            if killed:
                attempts.killed.append(text)
            await operator.finish("undo")
        places = await places_of(parts)
        for each in ids:
            if (places.dead[each], places.pending[each]) != (1, 0):
                found = f"{places.dead[each]} dead letters, {places.pending[each]} pending"
                attempts.problems.append(f"{text}: {each}: {found}")
    for worker in parts.workers:
        await worker.start()
    await operator.finish("fix")
    assert await settle(parts)
    places = await places_of(parts)
    for each in ids:
        if (places.statuses.get(each), places.applied[each], places.dead[each]) != ("completed", 1, 0):
            attempts.problems.append(f"in the end: {each}: {places.statuses.get(each)}, {places.applied[each]} times")
        if not places.audited["undo", each]:
            attempts.problems.append(f"in the end: {each}: no audit entry of an undo")
    return attempts


async def kill_deletions(operator: Operator, chance: random.Random, limit: int | None = None) -> Attempts:
    """Kill deletions: in the end no dead letter is left, and each is in the audit log."""
    parts, attempts = operator.parts, Attempts("delete")
    first = await operator.post_invalid()
    _, attempts.steps = await operator.run("delete")
    posted = dict.fromkeys(first, "undisturbed")
    for number, delivered in choose_points(attempts.steps, chance, limit):
        ids = await operator.post_invalid()
        killed, seen = await operator.run("delete", number, delivered=delivered)
        if killed:
            attempts.killed.append(point_text(seen, number, delivered))
        await operator.finish("delete")
        posted |= dict.fromkeys(ids, point_text(seen, number, delivered))
    places = await places_of(parts)
    for each, point in posted.items():
        if places.dead[each] or places.pending[each] or places.applied[each]:
            attempts.problems.append(f"{point}: {each}: not deleted")
        if not places.audited["delete", each]:
            attempts.problems.append(f"{point}: {each}: no audit entry")
    return attempts


async def kill_setups(operator: Operator, chance: random.Random, limit: int | None = None) -> Attempts:
    """Kill setups of a new pipeline: the next setup completes it, with the result of an undisturbed one."""
    parts, attempts = operator.parts, Attempts("setup")
    operator.database = "chaos_setup"
    expected: dict[str, list[tuple[Any, ...]]] = {}
    points: list[tuple[int, bool] | None] = [None]
    while points:
        point = points.pop(0)
        await _remove_all(parts, operator.database)
        if point is None:
            _, attempts.steps = await operator.run("setup")
            points = [*choose_points(attempts.steps, chance, limit)]
            expected = await _definitions(parts, operator.database)
            continue
        killed, seen = await operator.run("setup", point[0], delivered=point[1])
        if killed:
            attempts.killed.append(point_text(seen, *point))
        await operator.finish("setup")
        found = await _definitions(parts, operator.database)
        for kind in expected:
            if found[kind] != expected[kind]:
                attempts.problems.append(f"{point_text(seen, *point)}: other {kind}")
    return attempts


def point_text(steps: list[str], number: int, delivered: bool) -> str:
    step = steps[number - 1][:80] if len(steps) >= number else "(not reached)"
    return f"step {number} {'after' if delivered else 'before'} {step}"


async def _remove_all(parts: Parts, database: str) -> None:
    admin = await asyncpg.connect(parts.postgres.server.url)
    try:
        await admin.execute(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')
        await admin.execute(f'CREATE DATABASE "{database}"')
    finally:
        await admin.close()
    client = await connect_nats(parts.nats_url)
    try:
        jetstream = client.jetstream(timeout=5)
        for each in await jetstream.streams_info():
            await jetstream.delete_stream(str(each.config.name))
    finally:
        await client.close()


async def _definitions(parts: Parts, database: str) -> dict[str, list[tuple[Any, ...]]]:
    """What setup creates, comparable: tables, indexes, migrations, streams and consumers."""
    connection = await asyncpg.connect(f"{parts.postgres.server.url.rpartition('/')[0]}/{database}")
    try:
        columns = await connection.fetch(
            "SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns "
            "WHERE table_schema = 'public' ORDER BY 1, 2"
        )
        indexes = await connection.fetch("SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1")
        migrations = await connection.fetch("SELECT name, checksum FROM nomnom_migrations ORDER BY 1")
    finally:
        await connection.close()
    client = await connect_nats(parts.nats_url)
    try:
        jetstream = client.jetstream(timeout=5)
        streams = sorted(await jetstream.streams_info(), key=lambda each: str(each.config.name))
        consumers = [each for stream in streams for each in await jetstream.consumers_info(str(stream.config.name))]
    finally:
        await client.close()
    return {
        "columns": [tuple(each) for each in columns],
        "indexes": [tuple(each) for each in indexes],
        "migrations": [tuple(each) for each in migrations],
        "streams": [(str(each.config),) for each in streams],
        "consumers": [(str(each.config),) for each in consumers],
    }
