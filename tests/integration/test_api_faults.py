"""The API while servers are unavailable, full, slow or killed, and during its shutdown."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import msgspec
import nats
import pytest
from api_harness import (
    BATCH,
    MESSAGE,
    STATUS,
    Running,
    api_process,
    read_answer,
    serving,
    set_up_streams,
    stored_ids,
    until,
)

from conftest import ORDER, Deployment, free_port
from nomnom.envelope import new_message_id
from nomnom.settings import Settings
from nomnom.streams import message_stream
from nomnom_control.environments.local.servers import NatsServer

_NOWHERE = "postgresql://someone:very-secret@127.0.0.1:1/nomnom"


@pytest.fixture
async def own_nats(open_folder: Path) -> AsyncIterator[NatsServer]:
    """A nats-server that a test may kill."""
    server = NatsServer(open_folder / "nats", free_port(), free_port(), open_folder / "nats.log")
    yield server
    server.process.send(signal.SIGCONT)
    await server.stop()


async def create_streams(server: NatsServer) -> Settings:
    """Create the streams on a server; returns settings to use them."""
    settings = Settings(nats_url=server.url, database_url=_NOWHERE)
    await set_up_streams(settings)
    return settings


async def rejected(api: Running, code: str, **headers: str) -> httpx.Response:
    """Post a message that must be rejected with status 503 and this code."""
    answer = await api.post(ORDER, **headers)
    assert answer.status_code == 503, answer.text
    assert answer.json()["type"] == f"urn:nomnom:problem:{code}"
    assert answer.headers["retry-after"].isdigit()
    return answer


async def test_full_stream_loses_no_accepted_message(deployment: Deployment) -> None:
    small = dataclasses.replace(message_stream(deployment.streams), max_bytes=20_000)
    await deployment.jetstream.update_stream(small)
    async with serving(deployment.settings) as api:
        answers = await asyncio.gather(*(api.post(ORDER) for _ in range(800)))
        accepted = [each.json()["message_id"] for each in answers if each.status_code == 202]
        assert 0 < len(accepted) < 800
        assert {each.status_code for each in answers} == {202, 503}
        refused = len(answers) - len(accepted)
        # A segment is refused when a single message still fits.
        while (answer := await api.post(ORDER)).status_code == 202:
            accepted.append(answer.json()["message_id"])
        assert answer.json()["type"] == "urn:nomnom:problem:stream_full"
        assert sorted(await stored_ids(deployment.settings, deployment.jetstream)) == sorted(accepted)
        await deployment.jetstream.update_stream(message_stream(deployment.streams))
        assert (await api.post(ORDER)).status_code == 202
        assert await api.metric('rejected_total{reason="stream_full"}') == refused + 1


async def test_missing_stream(deployment: Deployment) -> None:
    await deployment.jetstream.delete_stream(deployment.streams.stream)
    try:
        async with serving(deployment.settings, wait=False) as api:

            async def connected() -> bool:
                return await api.metric("nats_up") == 1

            await until(connected)
            assert "nomnom setup" in (await rejected(api, "unavailable")).json()["detail"]
            ready = await api.client.get("/ready")
            assert ready.status_code == 503
            assert ready.json()["status"] == "unavailable"
            assert "nomnom setup" in ready.json()["jetstream"]["detail"]
            unknown = await api.client.get(f"{STATUS}/{new_message_id()}")
            assert unknown.status_code == 503
    finally:
        await deployment.jetstream.add_stream(message_stream(deployment.streams))


async def test_nats_unavailable_at_start_and_later(own_nats: NatsServer) -> None:
    settings = Settings(nats_url=own_nats.url.replace("//", "//user:hidden@"), database_url=_NOWHERE)
    async with serving(settings, wait=False, nomnom_api_ack_timeout=120) as api:
        answer = await rejected(api, "unavailable")
        assert "hidden" not in answer.text
        ready = await api.client.get("/ready")
        assert ready.status_code == 503
        assert ready.json()["status"] == "unavailable"
        assert "secret" not in ready.text
        assert (await api.client.get("/health")).json() == {"status": "alive"}
        await own_nats.start()
        await create_streams(own_nats)
        await until(api.ready)
        assert (await api.client.get("/ready")).json()["status"] == "degraded"
        kept = (await api.post(ORDER)).json()["message_id"]
        await own_nats.stop()
        # Immediately: the ack timeout is longer than the client waits.
        await rejected(api, "unavailable")
        batch = await api.post("\n".join([ORDER] * 10), BATCH)
        assert batch.status_code == 503
        await own_nats.start()

        async def accepted() -> bool:
            return (await api.post(ORDER)).status_code == 202

        await until(accepted)
        client = await nats.connect(own_nats.url)
        assert kept in await stored_ids(settings, client.jetstream())
        await client.close()


async def test_unresponsive_nats(own_nats: NatsServer) -> None:
    await own_nats.start()
    settings = await create_streams(own_nats)
    limits = {"nomnom_api_ack_timeout": 5, "nomnom_api_max_in_flight": 5}
    async with serving(settings, **limits) as api:
        own_nats.process.send(signal.SIGSTOP)

        async def post(number: int) -> list[httpx.Response]:
            return await asyncio.gather(*(api.post(ORDER) for _ in range(number)))

        async def full() -> bool:
            return await api.metric("in_flight") == 5

        first = asyncio.create_task(post(5))
        await until(full)
        # The five still await their acks, however long posting more takes.
        answers = await post(3)
        assert not first.done()
        answers += await first
        codes = [each.json()["type"].rpartition(":")[2] for each in answers]
        assert {each.status_code for each in answers} == {503}
        assert codes == ["busy"] * 3 + ["unconfirmed"] * 5
        batch = await api.post("\n".join([ORDER] * 3), BATCH)
        assert batch.status_code == 503
        assert batch.json()["type"] == "urn:nomnom:problem:unconfirmed"
        # What the key was used for is not known: nothing is stored.
        await rejected(api, "unavailable", idempotency_key="0")
        assert (await api.client.get("/ready")).status_code == 503
        own_nats.process.send(signal.SIGCONT)

        async def accepted() -> bool:
            return (await api.post(ORDER, idempotency_key="0")).status_code == 202

        await until(accepted)
        again = await asyncio.gather(*(api.post(ORDER, idempotency_key=str(key)) for key in range(5)))
        assert {each.status_code for each in again} == {202}
        client = await nats.connect(own_nats.url)
        ids = await stored_ids(settings, client.jetstream())
        await client.close()
        assert {each.json()["message_id"] for each in again} <= set(ids)
        assert len(ids) == len(set(ids))
        assert await api.metric("in_flight") == 0


async def test_accepted_messages_survive_a_kill_of_nats(own_nats: NatsServer) -> None:
    await own_nats.start()
    settings = await create_streams(own_nats)
    accepted: set[str] = set()
    rejections: set[tuple[int, str]] = set()
    stop = asyncio.Event()

    async def load(api: Running) -> None:
        while not stop.is_set():
            answer = await api.post(ORDER)
            if answer.status_code == 202:
                accepted.add(answer.json()["message_id"])
            else:
                rejections.add((answer.status_code, answer.json()["type"]))
                await asyncio.sleep(0.05)

    async def load_batches(api: Running) -> None:
        while not stop.is_set():
            answer = await api.post("\n".join([ORDER] * 2000), BATCH)
            if answer.status_code == 202:
                accepted.update(answer.json()["ids"])
            elif answer.status_code == 207:
                accepted.update(each["id"] for each in answer.json()["accepted"])
                rejections.update((each["status"], each["code"]) for each in answer.json()["problems"])
            else:
                rejections.add((answer.status_code, answer.json()["type"]))
                await asyncio.sleep(0.05)

    async def accepted_more(than: int) -> None:
        async def enough() -> bool:
            return len(accepted) > than

        await until(enough)

    async with serving(settings) as api:
        loads = [asyncio.create_task(each) for each in (*(load(api) for _ in range(16)), load_batches(api))]
        await accepted_more(500)
        for _ in range(2):
            own_nats.process.send(signal.SIGKILL)
            await own_nats.process.wait()
            await own_nats.start()
            await accepted_more(len(accepted) + 500)
        stop.set()
        await asyncio.gather(*loads)
        client = await nats.connect(own_nats.url)
        ids = await stored_ids(settings, client.jetstream())
        await client.close()
    assert rejections, "the outage was not noticed"
    assert {status for status, _ in rejections} == {503}
    assert accepted <= set(ids)
    assert len(ids) == len(set(ids))


async def test_messages_are_accepted_without_postgresql(deployment: Deployment) -> None:
    settings = msgspec.structs.replace(deployment.settings, database_url=_NOWHERE)
    async with serving(settings) as api:
        ready = await api.client.get("/ready")
        assert ready.status_code == 200
        assert ready.json()["status"] == "degraded"
        assert ready.json()["jetstream"]["ok"] is True
        assert ready.json()["database"]["ok"] is False
        assert "secret" not in ready.text
        message_id = (await api.post(ORDER)).json()["message_id"]
        state = await api.state(message_id)
        assert (state["status"], state["entity"]) == ("accepted", "orders")
        # An unknown status must not be reported as not found.
        unknown = await api.client.get(f"{STATUS}/{new_message_id()}")
        assert unknown.status_code == 503
        assert unknown.headers["retry-after"].isdigit()
        assert "PostgreSQL" in unknown.json()["detail"]
        assert "secret" not in unknown.text


async def test_sigterm_completes_requests_in_flight(deployment: Deployment, open_folder: Path) -> None:
    log = open_folder / "api.log"
    settings = {"nomnom_api_tokens": "shop:token-one,token-two", "nomnom_api_drain": 1.0}
    async with api_process(deployment.settings, log, **settings) as api:
        assert api.process is not None
        text = f"{ORDER}\n{ORDER}\n"
        head = b"POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer token-one\r\nContent-Length: %d\r\n\r\n"
        connections = []
        for path in (MESSAGE, BATCH):
            reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
            writer.write(head % (path.encode(), len(text)) + text[:5].encode())
            await writer.drain()
            connections.append((reader, writer))
        assert (await api.client.get("/health")).status_code == 200
        api.process.send(signal.SIGTERM)

        async def stopping() -> bool:
            answer = await api.client.get("/ready")
            return answer.status_code == 503 and answer.json()["status"] == "stopping"

        await until(stopping)
        accepted = await api.post(ORDER, authorization="Bearer token-two")
        assert accepted.status_code == 202
        answers = []
        for reader, writer in connections:
            writer.write(text[5:].encode())
            async with asyncio.timeout(10):
                answers.append(await read_answer(reader))
            writer.close()
        message, batch = (json.loads(each.partition(b"\r\n\r\n")[2]) for each in answers)
        assert answers[0].startswith(b"HTTP/1.1 202")
        async with asyncio.timeout(20):
            assert await api.process.wait() == 0
        # The response says what was accepted: nothing, because the body was not read further.
        assert batch["type"] == "urn:nomnom:problem:stopping"
    ids = await stored_ids(deployment.settings, deployment.jetstream)
    assert sorted(ids) == sorted([message["message_id"], accepted.json()["message_id"]])
    written = log.read_text()
    assert [json.loads(line)["component"] for line in written.splitlines()]
    assert "token-one" not in written
    assert "token-two" not in written
    assert "Traceback" not in written


async def test_kill_of_the_api_loses_no_accepted_message(deployment: Deployment, open_folder: Path) -> None:
    accepted: set[str] = set()
    async with api_process(deployment.settings, open_folder / "api.log") as api:
        assert api.process is not None

        async def load() -> None:
            while True:
                try:
                    answer = await api.post(ORDER)
                except httpx.TransportError:
                    return
                assert answer.status_code == 202, answer.text
                accepted.add(answer.json()["message_id"])

        loads = [asyncio.create_task(load()) for _ in range(16)]

        async def enough() -> bool:
            return len(accepted) > 300

        await until(enough)
        api.process.send(signal.SIGKILL)
        await api.process.wait()
        await asyncio.gather(*loads)
    assert accepted <= set(await stored_ids(deployment.settings, deployment.jetstream))


async def test_occupied_port_is_named_in_the_error(deployment: Deployment, open_folder: Path) -> None:
    async with serving(deployment.settings) as api:
        log = open_folder / "second.log"
        async with api_process(deployment.settings, log, wait=False, nomnom_api_host="127.0.0.1") as second:
            assert second.process is not None
            variables = {**second.process.variables, "NOMNOM_API_PORT": str(api.port)}
            await second.process.stop(10)
            second.process.variables = variables
            await second.process.start()
            async with asyncio.timeout(20):
                assert await second.process.wait() == 1
        assert f"NOMNOM_API_PORT: cannot listen on 127.0.0.1:{api.port}" in log.read_text()
        assert "Traceback" not in log.read_text()
