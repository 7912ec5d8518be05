"""The harness of the API's tests: an API in this process or in its own, and access to the stream."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec
import uvicorn

from conftest import Deployment, free_port
from nomnom.connections.nats import NatsConnection
from nomnom.envelope import Envelope, open_message
from nomnom.schema import load_schema
from nomnom.segments import message_ids
from nomnom.settings import ApiSettings, Settings
from nomnom.streams import ensure_streams
from nomnom_api.application import Api
from nomnom_api.connections import Connection
from nomnom_control.environments.local.processes import ChildProcess

TEXT = {"content-type": "text/plain; charset=utf-8"}
MESSAGE, BATCH, VALIDATE, STATUS = (f"/api/ingest/{each}" for each in ("message", "batch", "validate", "status"))


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


@dataclass
class Running:
    """A running API, in this process or another."""

    port: int
    client: httpx.AsyncClient
    api: Api | None = None
    process: ChildProcess | None = None

    async def post(self, text: str | bytes, path: str = MESSAGE, **headers: str) -> httpx.Response:
        """Post a body."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.post(path, content=text, headers={**TEXT, **named})

    async def state(self, message_id: str) -> dict[str, Any]:
        """The status of a message; fails if it is unknown."""
        answer = await self.client.get(f"{STATUS}/{message_id}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def metric(self, name: str) -> float:
        """The value of a metric, by its name with labels."""
        for line in (await self.client.get("/metrics")).text.splitlines():
            if line.startswith(f"nomnom_api_{name} "):
                return float(line.split()[-1])
        return 0.0

    async def ready(self) -> bool:
        """Whether /ready reports readiness."""
        try:
            return (await self.client.get("/ready")).status_code == 200
        except httpx.TransportError:
            return False


def api_settings(settings: Settings, **changes: Any) -> ApiSettings:
    """The settings of an API on a deployment, listening on loopback."""
    return ApiSettings(**{**msgspec.structs.asdict(settings), "nomnom_api_host": "127.0.0.1", **changes})


async def set_up_streams(settings: Settings) -> None:
    """Create or update the streams."""
    connection = NatsConnection(settings.nats_url, "test")
    await ensure_streams(connection, settings.streams)
    await connection.close()


@asynccontextmanager
async def serving(settings: Settings, *, wait: bool = True, **changes: Any) -> AsyncIterator[Running]:
    """Run an API in this process, and wait until it is ready unless ``wait`` is false."""
    application = Api(api_settings(settings, **changes))
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    config = uvicorn.Config(
        application.application, lifespan="on", http=Connection, ws="none", log_config=None, access_log=False
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve([listener]))
    port = listener.getsockname()[1]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client:
        running = Running(port, client, application)
        try:
            if wait:
                await until(running.ready, what="API ready")
            yield running
        finally:
            application.stopping = server.should_exit = True
            async with asyncio.timeout(30):
                await task


@asynccontextmanager
async def api_process(settings: Settings, log: Path, *, wait: bool = True, **changes: Any) -> AsyncIterator[Running]:
    """Run an API in its own process, and wait until it is ready unless ``wait`` is false."""
    port = free_port()
    chosen = api_settings(settings, nomnom_api_port=port, **changes)
    names = {each.name: each.encode_name for each in msgspec.structs.fields(ApiSettings)}
    environment = {names[name]: str(value) for name, value in msgspec.structs.asdict(chosen).items()}
    paths = {"LOG_FORMAT": "json", "PYTHONPATH": os.pathsep.join(sys.path)}
    process = ChildProcess("api", [sys.executable, "-m", "nomnom_api"], log, {**environment, **paths})
    await process.start()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False) as client:
        running = Running(port, client, process=process)
        try:
            if wait:
                await until(running.ready, what="API ready")
            yield running
        finally:
            await process.stop(30)


async def until(condition: Callable[[], Awaitable[Any]], wait: float = 20.0, what: str = "") -> Any:
    """Poll until the condition is true, and return its value."""
    found: Any = None
    try:
        async with asyncio.timeout(wait):
            while not (found := await condition()):  # noqa: ASYNC110 (the condition is outside this process)
                await asyncio.sleep(0.03)
    except TimeoutError:
        raise AssertionError(f"not within {wait} s: {what or condition} (last: {found!r})") from None
    return found


async def stored(deployment: Deployment) -> list[Any]:
    """What the stream stores, messages and segments, by sequence."""
    stream = deployment.streams.stream
    state = (await deployment.jetstream.stream_info(stream)).state
    return [await deployment.jetstream.get_msg(stream, at) for at in range(max(state.first_seq, 1), state.last_seq + 1)]


TPCH = load_schema("tpch")


class Stored(NamedTuple):
    """A message in the stream, by itself or in a segment."""

    seq: int
    envelope: Envelope
    data: bytes

    @property
    def message_id(self) -> str:
        return self.envelope.message_id


async def stored_messages(deployment: Deployment) -> list[Stored]:
    """All messages in the stream, those of segments each."""
    found: list[Stored] = []
    for each in await stored(deployment):
        opened = open_message(each.subject, each.headers, each.data or b"", each.seq, TPCH.entity_name)
        assert opened is not None, each.subject
        found += (Stored(each.seq, envelope, payload) for envelope, payload in opened)
    return found


async def stored_ids(settings: Settings, jetstream: Any) -> list[str]:
    """The IDs of all messages in the stream, read without consuming them."""
    info = await jetstream.stream_info(settings.nats_stream, subjects_filter="messages.ingest.>")
    found: list[str] = []
    for subject, count in (info.state.subjects or {}).items():
        _, _, _, message_id, *size = subject.split(".")
        found += (message_ids(message_id, int(size[0])) if size else [message_id]) * count
    return found


async def exchange(port: int, *parts: bytes, pause: float = 0.0, wait: float = 10.0) -> bytes:
    """Send raw bytes over one connection and read one response."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)
        async with asyncio.timeout(wait):
            return await read_answer(reader)
    finally:
        writer.close()


async def read_answer(reader: asyncio.StreamReader) -> bytes:
    """Read one HTTP response with a Content-Length."""
    head = await reader.readuntil(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 100"):
        return head + await read_answer(reader)
    length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length"))
    return head + await reader.readexactly(length)
