"""Group commit: messages share a segment, and each still gets its own result, exactly once."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import nats
import pytest
from api_harness import (
    BATCH,
    Running,
    api_settings,
    serving,
    set_up_streams,
    stored,
    stored_ids,
    stored_messages,
    until,
)

from conftest import ORDER, Deployment, free_port
from nomnom.envelope import from_microseconds, ingest_subject
from nomnom.segments import MOST_BYTES
from nomnom.settings import ProgramSettings, Settings, SettingsError
from nomnom.streams import message_stream
from nomnom_api.errors import ApiError, StreamFullError, TooLargeError, UnconfirmedError
from nomnom_api.groups import Accepted
from nomnom_api.identities import Clock
from nomnom_api.publisher import Publisher
from nomnom_api.telemetry import Metrics
from nomnom_control.environments.local.servers import NatsServer


@pytest.fixture
async def own_nats(open_folder: Path) -> AsyncIterator[NatsServer]:
    """A nats-server that a test may kill."""
    server = NatsServer(open_folder / "nats", free_port(), free_port(), open_folder / "nats.log")
    await server.start()
    yield server
    await server.stop()


async def connected(settings: Settings, **changes: Any) -> Publisher:
    publisher = Publisher(api_settings(settings, **changes), Metrics(), Clock())
    publisher.start()

    async def ready() -> bool:
        return publisher.nats.connected

    await until(ready)
    return publisher


async def accept_all(publisher: Publisher, payloads: list[bytes]) -> list[Accepted | ApiError]:
    found = await asyncio.gather(*(publisher.accept("orders", each) for each in payloads), return_exceptions=True)
    assert all(isinstance(each, Accepted | ApiError) for each in found), found
    return found  # pyright: ignore[reportReturnType]


def orders(number: int, size: int = 0) -> list[bytes]:
    return [f"O|{key}|456|F|123.45|2024-01-01|urgent|clerk1|1|{'c' * size}".encode() for key in range(number)]


def accepted_ids(outcomes: list[Accepted | ApiError]) -> list[str]:
    return [each.message_id for each in outcomes if isinstance(each, Accepted)]


async def test_simultaneous_messages_share_a_segment_and_have_their_own_ids(deployment: Deployment) -> None:
    publisher = await connected(deployment.settings)
    payloads = orders(2500)
    outcomes = await accept_all(publisher, payloads)
    await publisher.close()
    found = await stored_messages(deployment)
    assert [each.data for each in found] == payloads, "stored once each, in the order of the calls"
    assert [each.message_id for each in found] == accepted_ids(outcomes)
    assert len(set(accepted_ids(outcomes))) == 2500
    for each, outcome in zip(found, outcomes, strict=True):
        assert isinstance(outcome, Accepted)
        assert each.envelope.received_at == from_microseconds(outcome.received_at)
    sizes = Counter(each.seq for each in found)
    assert len(sizes) <= 5
    assert max(sizes.values()) == 1000


async def test_a_message_while_nothing_is_under_way_is_stored_on_its_own(deployment: Deployment) -> None:
    async with serving(deployment.settings) as api:
        ids = [(await api.post(ORDER)).json()["message_id"] for _ in range(20)]
        assert await api.metric("group_messages_sum") == await api.metric("group_messages_count") == 20
    assert [each.subject for each in await stored(deployment)] == [ingest_subject("orders", each) for each in ids]


async def test_messages_that_cannot_be_in_a_segment_are_stored_on_their_own(deployment: Deployment) -> None:
    publisher = await connected(deployment.settings)
    payloads = orders(30)
    payloads[5] = b"O|1\x1e|separator"
    payloads[20] = b"x" * (MOST_BYTES + 1)
    outcomes = await accept_all(publisher, payloads)
    await publisher.close()
    found = await stored_messages(deployment)
    assert [each.data for each in found] == payloads
    assert [each.message_id for each in found] == accepted_ids(outcomes)
    for at in (5, 20):
        assert [each.seq for each in found].count(found[at].seq) == 1


async def test_segments_are_bounded_in_bytes(deployment: Deployment) -> None:
    publisher = await connected(deployment.settings)
    payloads = orders(100, size=20_000)
    outcomes = await accept_all(publisher, payloads)
    await publisher.close()
    assert len(accepted_ids(outcomes)) == 100
    assert max(len(each.data or b"") for each in await stored(deployment)) <= MOST_BYTES


async def test_too_large_message_does_not_affect_its_segment(deployment: Deployment) -> None:
    limited = dataclasses.replace(message_stream(deployment.streams), max_msg_size=1000)
    await deployment.jetstream.update_stream(limited)
    publisher = await connected(deployment.settings)
    for position in (0, 25, 49):
        payloads = orders(50)
        payloads[position] = b"x" * 5000
        outcomes = await accept_all(publisher, payloads)
        assert isinstance(outcomes.pop(position), TooLargeError)
        del payloads[position]
        assert [each.data for each in (await stored_messages(deployment))[-49:]] == payloads
        assert len(accepted_ids(outcomes)) == 49
    await publisher.close()


async def test_full_stream_rejects_only_what_does_not_fit(deployment: Deployment) -> None:
    small = dataclasses.replace(message_stream(deployment.streams), max_bytes=150_000)
    await deployment.jetstream.update_stream(small)
    publisher = await connected(deployment.settings, nomnom_api_max_in_flight=10_000)
    outcomes = await accept_all(publisher, orders(6000))
    await publisher.close()
    assert 10 < len(accepted_ids(outcomes)) < 6000
    assert {type(each) for each in outcomes} == {Accepted, StreamFullError}
    assert [each.message_id for each in await stored_messages(deployment)] == accepted_ids(outcomes)


async def test_messages_wait_no_longer_for_a_segment_without_an_ack(deployment: Deployment) -> None:
    publisher = await connected(deployment.settings, nomnom_api_ack_timeout=5.0)
    client = publisher.client()
    send = client.publish
    lost: list[str] = []

    async def lose_first(subject: str, *rest: Any) -> None:
        if lost:
            await send(subject, *rest)
        else:
            lost.append(subject)

    client.publish = lose_first
    first = asyncio.create_task(publisher.accept("orders", b"O|1"))
    await asyncio.sleep(0)
    async with asyncio.timeout(4):
        assert len(accepted_ids(await accept_all(publisher, orders(50)))) == 50
    with pytest.raises(UnconfirmedError):
        await first
    await publisher.close()


async def test_nats_server_writes_to_disk_before_it_acknowledges(own_nats: NatsServer) -> None:
    async def configuration() -> dict[str, Any]:
        async with httpx.AsyncClient(trust_env=False) as client:
            return (await client.get(f"{own_nats.monitor_url}/jsz", params={"config": "true"})).json()["config"]

    assert (await configuration())["sync_always"] is True
    await own_nats.stop()
    own_nats.sync_interval = "2m"
    await own_nats.start()
    assert not (await configuration()).get("sync_always")


@pytest.mark.parametrize("text", ["sometimes", "0s", "2", "-1m"])
def test_invalid_sync_interval_is_rejected(text: str) -> None:
    with pytest.raises(SettingsError, match="NOMNOM_NATS_SYNC_INTERVAL: expected always or a duration"):
        ProgramSettings.from_environment({"NOMNOM_NATS_SYNC_INTERVAL": text})


async def test_every_acknowledged_message_is_stored_when_nats_is_killed(own_nats: NatsServer) -> None:
    settings = Settings(nats_url=own_nats.url)
    await set_up_streams(settings)
    publisher = await connected(settings)
    accepted: list[str] = []
    errors: list[ApiError] = []
    stop = asyncio.Event()

    async def load() -> None:
        while not stop.is_set():
            try:
                accepted.append((await publisher.accept("orders", ORDER.encode())).message_id)
            except ApiError as error:
                errors.append(error)
                await asyncio.sleep(0.05)

    async def accepted_more(than: int) -> None:
        async def enough() -> bool:
            return len(accepted) > than

        await until(enough)

    loads = [asyncio.create_task(load()) for _ in range(100)]
    pauses = random.Random(4)
    for _ in range(3):
        await accepted_more(len(accepted) + 300)
        await asyncio.sleep(pauses.random() * 0.05)
        own_nats.process.send(signal.SIGKILL)
        await own_nats.process.wait()
        await own_nats.start()
    await accepted_more(len(accepted) + 300)
    stop.set()
    await asyncio.gather(*loads)
    await publisher.close()
    client = await nats.connect(own_nats.url)
    jetstream = client.jetstream()
    ids = await stored_ids(settings, jetstream)
    assert len(ids) == len(set(ids))
    assert set(accepted) <= set(ids)
    await client.close()
    unconfirmed = [each for each in errors if isinstance(each, UnconfirmedError)]
    assert unconfirmed, "nothing was in flight when nats-server was killed"


@pytest.mark.parametrize("key", [{}, {"idempotency_key": "nightly"}], ids=["plain", "keyed"])
async def test_lines_of_a_batch_keep_their_order(deployment: Deployment, key: dict[str, str]) -> None:
    async with serving(deployment.settings) as api:
        ids = await accepted_lines(api, 3000, key)
        assert [each.message_id for each in await stored_messages(deployment)] == ids
        assert len(await stored(deployment)) < 60


async def test_repeated_batch_is_recognized_by_its_segments(deployment: Deployment) -> None:
    async with serving(deployment.settings) as api:
        key = {"idempotency_key": "nightly"}
        lines = [ORDER] * 2500
        first = await api.post("\n".join(lines), BATCH, **key)
        again = await api.post("\n".join(lines), BATCH, **key)
        assert again.json() == first.json() | {"duplicates": 2500}
        longer = await api.post("\n".join([*lines, ORDER]), BATCH, **key)
        assert longer.status_code == 207
        [problem] = longer.json()["problems"]
        assert (problem["line"], problem["last_line"], problem["status"]) == (2001, 2501, 422)
        assert [each.message_id for each in await stored_messages(deployment)] == first.json()["ids"]


async def accepted_lines(api: Running, number: int, key: dict[str, str]) -> list[str]:
    answer = await api.post("\n".join([ORDER] * number), BATCH, **key)
    assert answer.status_code == 202, answer.text
    return answer.json()["ids"]
