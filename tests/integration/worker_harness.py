"""The harness of the worker's tests: published messages, and workers in this process or in their own."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sys
import textwrap
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import msgspec

from conftest import Deployment, free_port
from nomnom.envelope import headers, ingest_subject, new_message_id, to_microseconds
from nomnom.schema import load_schema
from nomnom.settings import Settings, WorkerSettings
from nomnom.streams import worker_consumer
from nomnom_control.environments.local.processes import ChildProcess
from nomnom_worker.service import Worker

FAST = {"retry_backoff": 0.05, "retry_backoff_max": 0.2, "poll_interval_ms": 5}
START = 1_700_000_000_000_000
KILLER = """
import os
from nomnom.grammar import Grammar
parse, read = Grammar.parse, Grammar.read
def deadly(self, message):
    if "deadly" in message:
        os._exit(7)
    return parse(self, message)
def deadly_together(self, messages):
    if any("deadly" in each for each in messages):
        os._exit(7)
    return read(self, messages)
Grammar.parse, Grammar.read = deadly, deadly_together
"""
"""A prelude of a worker that a record with the word deadly ends."""
_SCHEMA = load_schema("tpch")
_COUNTED = """
CREATE TABLE applied (message_id uuid NOT NULL);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO applied VALUES (new.message_id); PERFORM pg_sleep(%s); RETURN new; END $$;
CREATE TRIGGER noted AFTER INSERT OR UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION note();
"""


def order(key: int, comment: str = "comment") -> str:
    """An order."""
    return f"O|{key}|456|F|123.45|2024-01-01|urgent|clerk1|1|{comment}"


async def publish(
    deployment: Deployment,
    payload: str | bytes,
    message_id: str | None = None,
    received_at: int = START,
    extra: dict[str, str] | None = None,
) -> str:
    """Publish one message as the API does; ``received_at`` in microseconds."""
    message_id = message_id or new_message_id()
    data = payload.encode() if isinstance(payload, str) else payload
    subject = ingest_subject(_SCHEMA.entity_name(data.decode(errors="replace")), message_id)
    await deployment.jetstream.publish(subject, data, headers={**headers(received_at, message_id), **(extra or {})})
    return message_id


async def publish_again(deployment: Deployment, payload: str, message_id: str, received_at: int = START) -> None:
    """Publish a message a second time, past the duplicate window."""
    await publish(deployment, payload, message_id, received_at, {"Nats-Msg-Id": uuid.uuid4().hex})


async def publish_orders(deployment: Deployment, keys: Iterable[int]) -> dict[int, str]:
    """Publish one order per key, pipelined; returns the message IDs."""
    ids = {key: new_message_id() for key in keys}
    acks = [
        await deployment.jetstream.publish_async(
            ingest_subject("orders", message_id), order(key).encode(), headers=headers(START, message_id)
        )
        for key, message_id in ids.items()
    ]
    await asyncio.gather(*acks)
    return ids


async def until(condition: Callable[[], Awaitable[Any]], wait: float = 20.0, what: str = "") -> Any:
    """Poll until the condition is true, and return its value."""
    found: Any = None
    try:
        async with asyncio.timeout(wait):
            while not (found := await condition()):  # noqa: ASYNC110 (the condition is outside this process)
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not within {wait} s: {what or condition} (last: {found!r})") from None
    return found


async def status(deployment: Deployment, message_id: str) -> asyncpg.Record | None:
    """The status row of a message."""
    return await deployment.database.fetchrow("SELECT * FROM message_status WHERE message_id = $1", message_id)


async def until_status(deployment: Deployment, message_id: str, expected: str, wait: float = 20.0) -> asyncpg.Record:
    """Wait for a status; returns the row."""

    async def reached() -> asyncpg.Record | None:
        row = await status(deployment, message_id)
        return row if row is not None and row["status"] == expected else None

    return await until(reached, wait, f"{message_id} {expected}")


async def until_drained(deployment: Deployment, wait: float = 30.0) -> None:
    """Wait until the stream is empty: all messages have been acknowledged."""

    async def empty() -> bool:
        info = await deployment.jetstream.stream_info(deployment.streams.stream)
        return info.state.messages == 0

    await until(empty, wait, "an empty stream")


async def set_ack_wait(deployment: Deployment, seconds: float) -> None:
    """Change the ack wait of the consumer."""
    settings = dataclasses.replace(deployment.streams, ack_wait=seconds)
    await deployment.jetstream.add_consumer(settings.stream, worker_consumer(settings))


async def count_writes(database: asyncpg.Connection, pause: float = 0.0) -> None:
    """Record the message ID of every write to orders in the table ``applied``; each takes ``pause`` seconds longer."""
    await database.execute(_COUNTED % pause)


async def check_all_applied_once(deployment: Deployment, ids: dict[int, str]) -> None:
    """Check that every message is completed and was applied exactly once, and that the stream is empty."""
    await until_drained(deployment)
    rows = await deployment.database.fetch("SELECT o_orderkey, message_id FROM orders")
    assert {row["o_orderkey"]: str(row["message_id"]) for row in rows} == ids
    statuses = await deployment.database.fetch("SELECT message_id, status, retry_count FROM message_status")
    assert {str(row["message_id"]) for row in statuses} == set(ids.values())
    assert {(row["status"], row["retry_count"]) for row in statuses} == {("completed", 0)}
    if await deployment.database.fetchval("SELECT to_regclass('applied')") is not None:
        applied = await deployment.database.fetch("SELECT message_id FROM applied")
        assert sorted(str(row["message_id"]) for row in applied) == sorted(ids.values())


async def dead_letters(deployment: Deployment) -> list[Any]:
    """All dead letters, by sequence."""
    stream = deployment.streams.dead_stream
    last = (await deployment.jetstream.stream_info(stream)).state.last_seq
    return [await deployment.jetstream.get_msg(stream, at) for at in range(1, last + 1)]


def worker_settings(settings: Settings, **changes: Any) -> WorkerSettings:
    """The settings of a worker on a deployment, with a free health port on loopback and short waits."""
    return WorkerSettings(
        **{
            **msgspec.structs.asdict(settings),
            **FAST,
            "worker_health_host": "127.0.0.1",
            "worker_health_port": free_port(),
            **changes,
        }
    )


@dataclasses.dataclass
class Running:
    """A running worker, in this process or another, and its health port."""

    port: int
    stop: Callable[[], None]
    process: ChildProcess | None = None

    async def get(self, path: str) -> httpx.Response:
        """Send a request to the health port."""
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=5) as client:
            return await client.get(path)

    async def metric(self, name: str) -> float:
        """The value of a metric, by its name with labels."""
        for line in (await self.get("/metrics")).text.splitlines():
            if line.startswith(f"nomnom_worker_{name} "):
                return float(line.split()[-1])
        return 0.0

    async def ready(self) -> bool:
        """Whether /ready reports readiness."""
        try:
            return (await self.get("/ready")).status_code == 200
        except httpx.TransportError:
            return False


@asynccontextmanager
async def worker(settings: Settings, **changes: Any) -> AsyncIterator[Running]:
    """Run a worker in this process."""
    chosen = worker_settings(settings, **changes)
    service = Worker(chosen)
    task = asyncio.create_task(service.run())
    running = Running(chosen.worker_health_port, service.stop)
    try:
        yield running
    finally:
        service.stop()
        async with asyncio.timeout(30):
            await task


@asynccontextmanager
async def worker_process(settings: Settings, log: Path, prelude: str = "", **changes: Any) -> AsyncIterator[Running]:
    """Run a worker in its own process; ``prelude`` is Python code executed before it starts."""
    chosen = worker_settings(settings, **changes)
    names = {each.name: each.encode_name for each in msgspec.structs.fields(WorkerSettings)}
    environment = {names[name]: str(value) for name, value in msgspec.structs.asdict(chosen).items()}
    code = textwrap.dedent(prelude) + "\nfrom nomnom_worker.__main__ import main\nmain()\n"
    process = ChildProcess(
        "worker",
        [sys.executable, "-c", code],
        log,
        {**environment, "LOG_FORMAT": "json", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    await process.start()
    try:
        yield Running(chosen.worker_health_port, lambda: process.send(process.stop_signal), process)
    finally:
        await process.stop(30)


def microseconds(time: datetime) -> int:
    """A time in the format of the headers."""
    return to_microseconds(time)
