"""Posts records while the cluster is changed, and follows each to its final status."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx

from nomnom_control.session.pipeline import Pipeline

STATUSES = """
SELECT status, count(*) AS messages
FROM message_status
WHERE message_id = ANY ($1::uuid[])
GROUP BY status
"""


def region(number: int) -> str:
    """A valid TPC-H record."""
    return f"R|{number}|REGION {number}|posted by a test|"


@dataclass
class Traffic:
    """The accepted messages, and the failed requests."""

    accepted: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


async def post(client: httpx.AsyncClient, text: str, traffic: Traffic, *, timeout: float = 60.0) -> None:
    """Post like a careful client: repeat the request with the same key until it is accepted."""
    headers = {"Content-Type": "text/plain", "Idempotency-Key": str(uuid.uuid4())}
    deadline = time.monotonic() + timeout
    while True:
        try:
            answer = await client.post("/api/ingest/message", content=text, headers=headers)
        except httpx.TransportError as error:
            traffic.problems.append(repr(error))
        else:
            if answer.status_code == 202:
                traffic.accepted.append(answer.json()["message_id"])
                return
            traffic.problems.append(f"{answer.status_code} {answer.text[:200]}")
            # Traefik removes a route without ready pods; requests then reach the dashboard's route.
            assert answer.status_code >= 500 or answer.status_code == 404, answer.text
        assert time.monotonic() < deadline, traffic.problems[-3:]
        await asyncio.sleep(0.2)


@asynccontextmanager
async def flowing(client: httpx.AsyncClient, *, rate: float = 40.0) -> AsyncIterator[Traffic]:
    """Post ``rate`` records a second while the block runs."""
    traffic = Traffic()
    ending = asyncio.Event()

    async def one_after_another(first: int) -> None:
        number = first
        while not ending.is_set():
            await post(client, region(number), traffic)
            number += 4
            await asyncio.sleep(4 / rate)

    tasks = [asyncio.ensure_future(one_after_another(each)) for each in range(4)]
    try:
        yield traffic
    finally:
        ending.set()
        await asyncio.gather(*tasks)


async def completed(pipeline: Pipeline, traffic: Traffic, *, timeout: float = 120.0) -> None:
    """Wait until every accepted record is completed exactly once; fails with the statuses of the others."""
    wanted = len(set(traffic.accepted))
    assert wanted == len(traffic.accepted)
    deadline = time.monotonic() + timeout
    while True:
        async with pipeline.database.connection() as connection:
            rows = await connection.fetch(STATUSES, traffic.accepted)
        found = {row["status"]: row["messages"] for row in rows}
        if found.get("completed") == wanted:
            return
        assert time.monotonic() < deadline, f"{wanted} were accepted; statuses: {found}"
        await asyncio.sleep(0.5)
