"""The shared connection to NATS: what it reports, how it comes back, and that it always closes."""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from nats.aio.client import Client

from conftest import Deployment, free_port
from nomnom.connections.errors import NatsUnavailable, NotSetUp, RequestError
from nomnom.connections.nats import NatsConnection
from nomnom_control.environments.local.servers import NatsServer
from operator_session import until


@pytest.fixture
async def server(open_folder: Path) -> AsyncIterator[NatsServer]:
    started = NatsServer(open_folder / "nats", free_port(), free_port(), open_folder / "nats.log")
    await started.start()
    try:
        yield started
    finally:
        if started.process.exit_code is None:
            started.process.send(signal.SIGCONT)
            await started.stop()
        shutil.rmtree(open_folder, ignore_errors=True)


async def test_an_unavailable_server_is_reported_without_secrets() -> None:
    nats = NatsConnection(f"nats://user:secret@127.0.0.1:{free_port()}", "test")
    before = datetime.now(UTC)
    try:
        with pytest.raises(NatsUnavailable) as caught:
            await nats.request("subject")
        assert "user:***@127.0.0.1" in str(caught.value)
        assert "secret" not in str(caught.value)
        assert "check that it runs" in str(caught.value)
        assert "Connect call failed" in caught.value.reason
        assert caught.value.part == "nats"
        assert caught.value.since is not None
        assert before <= caught.value.since <= datetime.now(UTC)
        assert (nats.connected, nats.current) == (False, None)
        with pytest.raises(NatsUnavailable):
            nats.client()
    finally:
        await nats.close()


async def test_simultaneous_calls_share_one_attempt(server: NatsServer) -> None:
    prepared: list[Client] = []

    async def prepare(client: Client) -> None:
        prepared.append(client)

    nats = NatsConnection(server.url, "test", prepare=prepare)
    try:
        clients = await asyncio.gather(*(nats.connect() for _ in range(20)))
        assert set(clients) == set(prepared)
        assert len(prepared) == 1
        assert nats.problem is None
        assert await nats.round_trip() < 5
    finally:
        await nats.close()
    assert await nats.connect() is prepared[1], "closed, it opens again"
    await nats.close()
    nats.start()
    await nats.close()
    assert await nats.connect() is prepared[-1], "also if it was closed before its first attempt"
    await nats.close()


async def test_a_lost_client_is_replaced_and_watchers_know(server: NatsServer) -> None:
    nats, seen = NatsConnection(server.url, "test"), list[str | None]()
    nats.watchers.append(seen.append)
    try:
        first = await nats.connect()
        server.process.send(signal.SIGKILL)
        await until(lambda: not nats.connected)
        with pytest.raises(NatsUnavailable):
            await nats.request("subject")
        since = nats.since
        await until(lambda: seen.count(None) == 1 and len(seen) > 3)
        assert nats.since == since, "the problem began once, however many attempts fail"
        await server.start()
        await until(lambda: nats.connected)
        assert nats.current is not first
        assert (nats.problem, nats.since, seen[-1]) == (None, None, None)
    finally:
        await nats.close()


async def test_requests_fail_as_what_they_are(deployment: Deployment) -> None:
    nats = NatsConnection(deployment.settings.nats_url, "test", timeout=0.2)
    try:
        with pytest.raises(NotSetUp, match="nobody listens"):
            await nats.request("nobody.listens", missing="nobody listens")
        with pytest.raises(RequestError, match="more than NATS takes"):
            await nats.request("subject", b"x" * (3 * 1024 * 1024))
        await (await nats.connect()).subscribe("silent", cb=_ignore)
        with pytest.raises(NatsUnavailable, match=r"no response in 0\.2 s"):
            await nats.request("silent")
    finally:
        await nats.close()


async def test_closing_does_not_wait_for_a_server_that_hangs(server: NatsServer) -> None:
    nats = NatsConnection(server.url, "test")
    client = await nats.connect()
    server.process.send(signal.SIGSTOP)
    for _ in range(64):
        await client.publish("subject", b"x" * 500_000)
        await asyncio.sleep(0)
        if client.pending_data_size > 1_000_000:
            break
    began = time.monotonic()
    await nats.close()
    assert time.monotonic() - began < 4
    began = time.monotonic()
    with pytest.raises(NatsUnavailable, match="no response in time"):
        await nats.connect()
    assert time.monotonic() - began < 6
    await nats.close()


async def _ignore(_: object) -> None:
    """A subscriber that never responds."""
