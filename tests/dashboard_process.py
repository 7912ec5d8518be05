"""The harness of dashboard tests: a dashboard process and a client."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from conftest import free_port
from nomnom_control.environments.local.processes import ChildProcess


@dataclass(frozen=True)
class Dashboard:
    client: httpx.AsyncClient
    process: ChildProcess

    async def get(self, path: str, **parameters: Any) -> Any:
        answer = await self.client.get(path, params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def refusal(self, status: int, path: str, parameters: dict[str, Any] | None = None) -> Any:
        answer = await self.client.get(path, params=parameters)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert problem["status"] == status
        assert problem["instance"] == path
        return problem

    async def until(self, path: str, check: Callable[[Any], bool], wait: float = 15) -> Any:
        """Poll until the response passes the check."""
        deadline = time.monotonic() + wait
        while True:
            answer = await self.client.get(path)
            body = answer.json()
            if answer.status_code == 200 and check(body):
                return body
            assert time.monotonic() < deadline, f"{path}: last response {answer.status_code}: {body}"
            await asyncio.sleep(0.05)

    async def events(self, count: int, wait: float = 10) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        async with asyncio.timeout(wait), self.client.stream("GET", "/api/stream") as stream:
            assert stream.headers["content-type"] == "text/event-stream"
            async for line in stream.aiter_lines():
                if line.startswith("data: "):
                    found.append(json.loads(line.removeprefix("data: ")))
                if len(found) >= count:
                    break
        return found


@asynccontextmanager
async def running(environment: dict[str, str], folder: Path, **settings: str) -> AsyncIterator[Dashboard]:
    """Run a dashboard process on a free port."""
    port = int(settings.get("NOMNOM_DASHBOARD_PORT") or free_port())
    process = ChildProcess(
        "dashboard",
        [sys.executable, "-m", "nomnom_dashboard"],
        folder / "dashboard.log",
        {
            **environment,
            "LOG_FORMAT": "json",
            "NOMNOM_DASHBOARD_HOST": "127.0.0.1",
            "NOMNOM_DASHBOARD_PORT": str(port),
            "NOMNOM_DASHBOARD_INTERVAL_MS": "100",
            **settings,
        },
    )
    await process.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            deadline = time.monotonic() + 20
            while True:
                try:
                    await client.get("/health")
                    break
                except httpx.TransportError:
                    if process.exit_code is not None or time.monotonic() > deadline:
                        raise process.failure() from None
                    await asyncio.sleep(0.05)
            yield Dashboard(client, process)
    finally:
        code = await process.stop(10)
        assert code == 0, process.failure()
