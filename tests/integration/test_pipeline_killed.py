"""Every process of a running pipeline is killed under load, and every message is accounted for."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import httpx
import pytest
from worker_harness import order, until

from nomnom_control.environments import Component, Endpoints, Health
from nomnom_control.environments.local.channel import call
from nomnom_control.environments.local.environment import LocalEnvironment
from nomnom_control.session.pipeline import Pipeline

CLIENTS = 6
BATCH = 40
_COUNTED = """
CREATE TABLE applied (message_id uuid NOT NULL);
CREATE FUNCTION record() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO applied VALUES (new.message_id); RETURN new; END $$;
CREATE TRIGGER recorded AFTER INSERT OR UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION record();
"""


@dataclass
class Load:
    """Clients that post orders, some of them faulty, each until it is accepted; records the accepted ones."""

    api: str
    good: dict[str, int] = field(default_factory=dict[str, int])
    """The key of the order by message id."""
    broken: set[str] = field(default_factory=set[str])
    refusals: Counter[str] = field(default_factory=Counter[str])
    stopping: bool = False
    _next: int = 0

    async def post(self, chance: random.Random) -> None:
        """Post messages and batches in turn until :attr:`stopping`; requests in progress are completed."""
        async with httpx.AsyncClient(base_url=self.api, timeout=15) as client:
            while not self.stopping:
                if chance.random() < 0.2:
                    keys = [self._key() for _ in range(BATCH)]
                    text = "\n".join(order(key) for key in keys)
                    answer = await self._until_accepted(client, "/api/ingest/batch", text, 202)
                    self.good.update(zip(answer["ids"], keys, strict=True))
                elif chance.random() < 0.1:
                    wrong = order(self._key()).replace("2024-01-01", "2024-02-30")
                    answer = await self._until_accepted(client, "/api/ingest/message", wrong, 202)
                    self.broken.add(answer["message_id"])
                else:
                    key = self._key()
                    answer = await self._until_accepted(client, "/api/ingest/message", order(key), 202)
                    self.good[answer["message_id"]] = key

    def _key(self) -> int:
        self._next += 1
        return self._next

    async def _until_accepted(
        self, client: httpx.AsyncClient, path: str, text: str, status: int
    ) -> dict[str, list[str]]:
        headers = {"content-type": "text/plain", "idempotency-key": uuid.uuid4().hex}
        async with asyncio.timeout(60):
            while True:
                try:
                    answer = await client.post(path, content=text, headers=headers)
                except httpx.HTTPError as error:
                    self.refusals[type(error).__name__] += 1
                else:
                    if answer.status_code == status:
                        return answer.json()
                    # A part of a batch may have been accepted: the key makes repeating it idempotent.
                    assert answer.status_code in (207, 429, 503), answer.text
                    self.refusals[str(answer.status_code)] += 1
                await asyncio.sleep(0.1)


@pytest.fixture
async def running(open_folder: Path) -> AsyncIterator[LocalEnvironment]:
    """A separate pipeline with one or two workers."""
    here = LocalEnvironment(open_folder / "instance", {"minimum": "1", "maximum": "2", "threshold": "200"})
    async for _ in here.start():
        pass
    yield here
    async for _ in here.destroy():
        pass


async def _pid(here: LocalEnvironment, component: str) -> int | None:
    status = await call(here.instance.socket, "status")
    if component in status["servers"]:
        return status["servers"][component]["pid"]
    return next((each["pid"] for each in status["services"] if each["component"] == component), None)


async def _kill(here: LocalEnvironment, component: str) -> None:
    """Kill a component's process and wait until its replacement is ready."""
    pid = await until(lambda: _pid(here, component), what=f"a {component}")
    os.kill(pid, signal.SIGKILL)

    async def replaced() -> bool:
        return await _pid(here, component) not in (None, pid)

    async def ready() -> bool:
        return all(_is_available(each) for each in await here.components())

    await until(replaced, 30, f"another {component}")
    await until(ready, 60, f"health after {component}")


def _is_available(component: Component) -> bool:
    return component.health in (Health.HEALTHY, Health.STOPPED) or component.ready > 0


async def test_kills_under_load_neither_lose_nor_duplicate_messages(running: LocalEnvironment) -> None:
    where = await running.endpoints()
    database = await asyncpg.connect(where.database)
    await database.execute(_COUNTED)
    await database.close()
    load = Load(where.api)
    async with asyncio.TaskGroup() as clients:
        for number in range(CLIENTS):
            clients.create_task(load.post(random.Random(number)))
        for component in ("worker", "api", "nats", "postgres", "worker", "nats"):
            await until(_more(load, len(load.good) + 100), 30, "a load")
            await _kill(running, component)
        await until(_more(load, len(load.good) + 100), 30, "a load after all")
        load.stopping = True
    assert load.refusals, "the kills had no effect on the clients"
    await _account(where, load, running)


def _more(load: Load, count: int) -> Callable[[], Awaitable[bool]]:
    async def enough() -> bool:
        return len(load.good) >= count

    return enough


async def _account(where: Endpoints, load: Load, running: LocalEnvironment) -> None:
    """Each accepted message was applied once, or is one dead letter; the stream is empty."""
    database = await asyncpg.connect(where.database)
    try:
        count = len(load.good) + len(load.broken)

        async def processed() -> bool:
            states = "SELECT count(*) FROM message_status WHERE status IN ('completed', 'dlq')"
            return await database.fetchval(states) >= count

        await until(processed, 90, f"{count} processed messages")
        rows = await database.fetch("SELECT o_orderkey, message_id FROM orders")
        assert {str(each["message_id"]): each["o_orderkey"] for each in rows} == load.good
        applied = await database.fetch(
            "SELECT message_id, count(*) FROM applied GROUP BY message_id HAVING count(*) > 1"
        )
        assert applied == []
        statuses = dict(await database.fetch("SELECT message_id::text, status FROM message_status"))
        assert {each for each, status in statuses.items() if status == "dlq"} == load.broken
        assert {each for each, status in statuses.items() if status == "completed"} == load.good.keys()
    finally:
        await database.close()
    async with await Pipeline.of(running) as pipeline:
        dead_letters = (await pipeline.dead_letters.page(limit=10_000)).dead_letters
        assert Counter(each.message_id for each in dead_letters) == Counter(load.broken)
        assert {each.reason for each in dead_letters} == {"record"}

        async def empty() -> bool:
            return (await pipeline.jetstream.consumer("MESSAGES", "workers")).lag == 0

        # Messages whose acks were lost with nats-server are redelivered after the ack wait of 30 s.
        await until(empty, 60, "an empty stream")
