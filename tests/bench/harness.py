"""The environment of one part: real servers after setup, and processes of nomnom or of a peer."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Self

import nats
from nats.aio.client import Client
from nats.js import JetStreamContext

from nomnom.envelope import headers, ingest_subject, new_message_id
from nomnom.settings import Settings
from nomnom.setup import set_up
from nomnom_control.environments.local.processes import ChildProcess
from nomnom_control.environments.local.servers import NatsServer, PostgresServer

_WINDOW = 4000


class Harness:
    """nats-server and PostgreSQL in a folder, with nomnom's streams and tables; stopped at the end of the block."""

    client: Client
    jetstream: JetStreamContext

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o755)
        self.folder = folder
        self.nats = NatsServer(folder / "nats", free_port(), free_port(), folder / "nats.log")
        self.postgres = PostgresServer(folder / "postgres", free_port(), folder / "postgres.log")

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables of nomnom's processes."""
        return {"NATS_URL": self.nats.url, "DATABASE_URL": self.postgres.url, "LOG_FORMAT": "json"}

    async def __aenter__(self) -> Self:
        await asyncio.gather(self.nats.start(), self.postgres.start())
        await set_up(Settings(nats_url=self.nats.url, database_url=self.postgres.url))
        self.client = await nats.connect(self.nats.url, pending_size=64 * 1024 * 1024)
        self.jetstream = self.client.jetstream(timeout=30, publish_async_max_pending=_WINDOW)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()
        await asyncio.gather(self.nats.stop(), self.postgres.stop())

    @asynccontextmanager
    async def running(
        self, name: str, *arguments: str, wait_for: int | None = None, **environment: str
    ) -> AsyncIterator[ChildProcess]:
        """Run a Python process; the block starts when it listens on the port ``wait_for``."""
        log = self.folder / f"{name}.log"
        process = ChildProcess(name, [sys.executable, *arguments], log, {**self.environment, **environment})
        await process.start()
        try:
            if wait_for is not None:
                await _listening(process, wait_for)
            yield process
        finally:
            await process.stop(20)

    async def fill(self, payloads: list[bytes]) -> None:
        """Publish these payloads like the API."""
        for start in range(0, len(payloads), _WINDOW):
            acks = []
            for payload in payloads[start : start + _WINDOW]:
                message_id = new_message_id()
                acks.append(
                    await self.jetstream.publish_async(
                        ingest_subject("orders", message_id),
                        payload,
                        headers=headers(1_700_000_000_000_000),
                    )
                )
            await asyncio.gather(*acks)

    async def empty(self) -> None:
        """Remove all messages."""
        await self.jetstream.purge_stream("MESSAGES")


def orders(count: int, first: int = 1) -> Iterator[str]:
    """Distinct orders as in TPC-H."""
    day = date(1992, 1, 1)
    for key in range(first, first + count):
        ordered = day + timedelta(days=key % 2400)
        comment = "carefully final deposits sleep furiously"
        clerk = f"Clerk#{key % 1000:09}"
        yield f"O|{key}|{key % 150_000}|O|{key % 500_000}.{key % 100:02}|{ordered}|3-MEDIUM|{clerk}|0|{comment}"


def free_port() -> int:
    """A free TCP port on the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def run(*command: str) -> str:
    """Run a program to completion; returns its output."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(
            f"{' '.join(command)} failed with exit code {process.returncode}: {output.decode(errors='replace')}"
        )
    return output.decode()


def tool(name: str, how: str) -> str:
    """The path of a program; if it is not installed, exit with instructions."""
    found = shutil.which(name) or shutil.which(name, path=os.fspath(Path.home() / "go" / "bin"))
    if found is None:
        raise SystemExit(f"{name} is not installed: {how}")
    return found


async def wrk(url: str, body: Path, seconds: float, connections: int = 64) -> float:
    """Requests/s of wrk posting ``body`` (a Lua script) to ``url``; exits on any response other than 2xx."""
    program = tool("wrk", "apt-get install wrk")
    arguments = ["-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout=30s", "-s", str(body), url]
    output = await run(program, *arguments)
    if "Non-2xx" in output or "Socket errors" in output:
        raise RuntimeError(output)
    match = re.search(r"Requests/sec:\s+([0-9.]+)", output)
    assert match is not None, output
    return float(match[1])


async def _listening(process: ChildProcess, port: int) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                if process.exit_code is not None:
                    raise process.failure() from None
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return
