"""Group commit: messages share an atomic batch, and each still gets its own result, exactly once."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import nats
import pytest
from api_harness import BATCH, Running, api_settings, serving, set_up_streams, stored, stored_ids, until

from conftest import ORDER, Deployment, free_port
from nomnom.envelope import MSG_ID, headers, ingest_subject, new_message_id
from nomnom.settings import ProgramSettings, Settings, SettingsError
from nomnom.streams import message_stream
from nomnom_api.acks import Ack
from nomnom_api.errors import ApiError, StreamFullError, TooLargeError, UnconfirmedError
from nomnom_api.groups import BATCH_COMMIT, BATCH_ID, BATCH_SEQUENCE
from nomnom_api.pace import Pace
from nomnom_api.publisher import Publisher
from nomnom_api.telemetry import Metrics
from nomnom_control.environments.local.servers import NatsServer

_OLD = "NOMNOM_OLD_NATS_SERVER"
"""The path of a nats-server before 2.12, for the test with such a server."""


class _Eager(Pace):
    """Uses a batch for every three messages that wait, so that tests do not depend on the speed of the disk."""

    def _decide(self) -> None:
        self.threshold = 2.0

    def probe(self, now: float) -> bool:
        return False


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nomnom_api.groups.Pace", _Eager)


@pytest.fixture
async def own_nats(open_folder: Path) -> AsyncIterator[NatsServer]:
    """A nats-server that a test may kill."""
    server = NatsServer(open_folder / "nats", free_port(), free_port(), open_folder / "nats.log")
    await server.start()
    yield server
    await server.stop()


async def connected(settings: Settings, **changes: Any) -> Publisher:
    publisher = Publisher(api_settings(settings, **changes), Metrics())
    publisher.start()

    async def ready() -> bool:
        return publisher.nats.connected

    await until(ready)
    return publisher


async def publish(
    publisher: Publisher, message_id: str, payload: bytes = ORDER.encode(), *, keyed: bool = False
) -> Ack:
    envelope = headers(message_id, 1_700_000_000_000_000)
    return await publisher.publish(ingest_subject("orders", message_id), payload, envelope, keyed=keyed)


async def publish_all(publisher: Publisher, ids: list[str], payload: bytes = ORDER.encode()) -> list[Ack | ApiError]:
    found = await asyncio.gather(*(publish(publisher, each, payload) for each in ids), return_exceptions=True)
    assert all(isinstance(each, Ack | ApiError) for each in found), found
    return found  # pyright: ignore[reportReturnType]


def new_ids(number: int) -> list[str]:
    return [new_message_id() for _ in range(number)]


def grouped(messages: list[Any]) -> list[Any]:
    return [each for each in messages if BATCH_ID in (each.headers or {})]


async def test_simultaneous_messages_share_a_batch_and_have_their_own_sequences(deployment: Deployment) -> None:
    publisher = await connected(deployment.settings)
    ids = new_ids(2500)
    acks = await publish_all(publisher, ids)
    await publisher.close()
    messages = await stored(deployment)
    by_sequence = {each.seq: each for each in messages}
    assert [each.headers[MSG_ID] for each in messages] == ids, "stored once each, in the order of publishing"
    for message_id, ack in zip(ids, acks, strict=True):
        assert isinstance(ack, Ack)
        assert not ack.duplicate
        assert by_sequence[ack.seq].subject.endswith(message_id)
    sizes = Counter(each.headers[BATCH_ID] for each in grouped(messages))
    assert len(grouped(messages)) >= 2400
    assert max(sizes.values()) == 1000, "as many as nats-server allows"
    for each in grouped(messages):
        assert (BATCH_COMMIT in each.headers) == (int(each.headers[BATCH_SEQUENCE]) == sizes[each.headers[BATCH_ID]])


async def test_single_messages_are_never_in_a_batch(deployment: Deployment) -> None:
    async with serving(deployment.settings) as api:
        for _ in range(20):
            assert (await api.post(ORDER)).status_code == 202
        assert await api.metric("group_messages_count") == 0
    assert not grouped(await stored(deployment))


async def test_duplicates_in_a_batch_are_stored_once_and_the_others_stay_together(deployment: Deployment) -> None:
    publisher = await connected(deployment.settings)
    known, repeated = new_ids(2)
    await publish(publisher, known, keyed=True)
    plain = new_ids(50)
    calls = [publish(publisher, each) for each in plain]
    for at, message_id in ((45, repeated), (30, known), (20, repeated), (10, repeated)):
        calls.insert(at, publish(publisher, message_id, keyed=True))
    acks = await asyncio.gather(*calls)
    await publisher.close()
    messages = await stored(deployment)
    assert Counter(each.headers[MSG_ID] for each in messages) == Counter([known, repeated, *plain])
    assert [acks[at].duplicate for at in (10, 21, 32, 48)] == [False, True, True, True]
    assert sum(each.duplicate for each in acks) == 3
    assert len({acks[at].seq for at in (10, 21, 48)}) == 1
    assert acks[32].seq == messages[0].seq
    assert len(grouped(messages)) >= 45


async def test_too_large_message_does_not_affect_its_batch(deployment: Deployment) -> None:
    limited = dataclasses.replace(message_stream(deployment.streams), max_msg_size=1000)
    await deployment.jetstream.update_stream(limited)
    publisher = await connected(deployment.settings)
    for position in (0, 25, 49):
        ids = new_ids(50)
        outcomes = await asyncio.gather(
            *(publish(publisher, each, b"x" * (5000 if at == position else 100)) for at, each in enumerate(ids)),
            return_exceptions=True,
        )
        assert isinstance(outcomes.pop(position), TooLargeError)
        assert all(isinstance(each, Ack) and not each.duplicate for each in outcomes)
        del ids[position]
        stored_now = [each.headers[MSG_ID] for each in await stored(deployment)]
        assert stored_now[-49:] == ids
    await publisher.close()


async def test_full_stream_rejects_only_what_does_not_fit(deployment: Deployment) -> None:
    small = dataclasses.replace(message_stream(deployment.streams), max_bytes=20_000)
    await deployment.jetstream.update_stream(small)
    publisher = await connected(deployment.settings)
    ids = new_ids(300)
    outcomes = await publish_all(publisher, ids)
    await publisher.close()
    accepted = [each for each, outcome in zip(ids, outcomes, strict=True) if isinstance(outcome, Ack)]
    assert 10 < len(accepted) < 300
    assert {type(each) for each in outcomes} == {Ack, StreamFullError}
    assert [each.headers[MSG_ID] for each in await stored(deployment)] == accepted


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
    accepted: dict[str, int] = {}
    errors: list[ApiError] = []
    stop = asyncio.Event()

    async def load() -> None:
        while not stop.is_set():
            message_id = new_message_id()
            try:
                accepted[message_id] = (await publish(publisher, message_id)).seq
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
    assert accepted.keys() <= set(ids)
    for message_id, sequence in random.Random(4).sample(sorted(accepted.items()), 200):
        assert (await jetstream.get_msg("MESSAGES", sequence)).subject == ingest_subject("orders", message_id)
    await client.close()
    unconfirmed = [each for each in errors if isinstance(each, UnconfirmedError)]
    assert len(unconfirmed) > 3, "no batch was in flight when nats-server was killed"


async def test_stream_without_batches_takes_single_messages(
    deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = dataclasses.replace(message_stream(deployment.streams), allow_atomic=False)
    await deployment.jetstream.update_stream(plain)
    publisher = await connected(deployment.settings)
    ids = [each for _ in range(3) for each in new_ids(100)]
    for start in range(0, 300, 100):
        outcomes = await publish_all(publisher, ids[start : start + 100])
        assert all(isinstance(each, Ack) and not each.duplicate for each in outcomes)
    await publisher.close()
    messages = await stored(deployment)
    assert [each.headers[MSG_ID] for each in messages] == ids
    assert not grouped(messages)
    assert capsys.readouterr().out.count("atomic batches are not available") == 1
    await set_up_streams(deployment.settings)
    assert (await deployment.jetstream.stream_info("MESSAGES")).config.allow_atomic is True


@pytest.mark.skipif(_OLD not in os.environ, reason=f"{_OLD} does not name a nats-server before 2.12")
async def test_old_server_takes_single_messages(open_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server = NatsServer(open_folder / "old", free_port(), free_port(), open_folder / "old.log")
    server.process.command = [os.environ[_OLD], *server.process.command[1:]]
    await server.start()
    try:
        settings = Settings(nats_url=server.url)
        client = await nats.connect(server.url)
        await set_up_streams(settings)
        publisher = await connected(settings)
        ids = new_ids(300)
        outcomes = await publish_all(publisher, ids)
        assert all(isinstance(each, Ack) and not each.duplicate for each in outcomes)
        await publisher.close()
        assert sorted(await stored_ids(settings, client.jetstream())) == sorted(ids)
        await client.close()
    finally:
        await server.stop()
    assert capsys.readouterr().out.count("atomic batches are not available") == 1


@pytest.mark.parametrize("key", [{}, {"idempotency_key": "nightly"}], ids=["plain", "keyed"])
async def test_lines_of_a_batch_keep_their_order(deployment: Deployment, key: dict[str, str]) -> None:
    async with serving(deployment.settings) as api:
        ids = await accepted_lines(api, 3000, key)
        messages = await stored(deployment)
        assert [each.headers[MSG_ID] for each in messages] == ids
        assert len(grouped(messages)) >= 2900
        assert await api.metric("group_messages_sum") == len(grouped(messages))


async def test_repeated_lines_do_not_change_the_order_of_new_ones(deployment: Deployment) -> None:
    async with serving(deployment.settings) as api:
        key = {"idempotency_key": "nightly"}
        first = await accepted_lines(api, 300, key)
        again = await api.post("\n".join([ORDER] * 700), BATCH, **key)
        assert again.json()["duplicates"] == 300
        assert again.json()["ids"][:300] == first
        assert [each.headers[MSG_ID] for each in await stored(deployment)] == again.json()["ids"]


async def accepted_lines(api: Running, number: int, key: dict[str, str]) -> list[str]:
    answer = await api.post("\n".join([ORDER] * number), BATCH, **key)
    assert answer.status_code == 202, answer.text
    return answer.json()["ids"]
