"""Idempotency keys on real servers: one content each, whatever became of it, in the duplicate window and after it."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from api_harness import BATCH, MESSAGE, Running, serving
from worker_harness import dead_letters, order, status, until, until_drained, until_status, worker

from conftest import Deployment, free_port
from nomnom.envelope import idempotent_message_id, is_keyed, parse_message_id
from nomnom.inspection.dead_letters import Filter
from nomnom.segments import keyed_segment_id, message_ids
from nomnom.streams import message_stream
from nomnom_control.session.pipeline import Pipeline
from operator_session import BROKEN, open_session, stored

STATES = ["pending", "completed", "dlq", "deleted", "undone", "purged", "purged by others", "expired"]
REMOVED = {"deleted", "purged", "purged by others", "expired"}
OTHER = order(2, "other")
WINDOW = 0.1
PATHS = (MESSAGE, BATCH)


@pytest.fixture
async def session(deployment: Deployment, tmp_path: Path) -> AsyncIterator[Pipeline]:
    async with open_session(deployment, tmp_path) as pipeline:
        yield pipeline


@pytest.fixture
async def api(deployment: Deployment) -> AsyncIterator[Running]:
    async with serving(deployment.settings) as running:
        yield running


@pytest.fixture(params=["in the window", "past the window"])
async def window(deployment: Deployment, request: pytest.FixtureRequest) -> float:
    """Seconds to wait for the end of the duplicate window; 0 to stay in it."""
    if request.param == "in the window":
        return 0.0
    config = dataclasses.replace(message_stream(deployment.streams), duplicate_window=WINDOW)
    await deployment.jetstream.update_stream(config)
    return WINDOW * 3


async def reach(state: str, deployment: Deployment, session: Pipeline) -> None:
    """Bring the two pending messages into a state."""
    match state:
        case "pending":
            return
        case "purged":
            await session.jetstream.purge("MESSAGES", confirm="MESSAGES")
            return
        case "purged by others":
            await deployment.jetstream.purge_stream("MESSAGES")
            return
        case _:
            pass
    async with worker(deployment.settings, max_deliver=1):
        for path in PATHS:
            await until_status(deployment, key_of(path), "completed" if state == "completed" else "dlq")
        await until_drained(deployment)
    match state:
        case "deleted":
            await session.dead_letters.delete(Filter(), expected_count=len(PATHS))
        case "undone":
            await (await session.dead_letters.replay(Filter())).finish()
            for path in PATHS:
                await session.dead_letters.undo(message_id=key_of(path))
        case "expired":
            await deployment.jetstream.purge_stream("MESSAGESDLQ")
            await deployment.database.execute("UPDATE message_status SET status = 'expired'")
        case _:
            pass


def key_of(path: str) -> str:
    """The ID of the message, or of the line."""
    if path == MESSAGE:
        return idempotent_message_id("anonymous", "key")
    return message_ids(keyed_segment_id(idempotent_message_id("anonymous", "key\n1")), 1)[0]


def code(answer: httpx.Response) -> str:
    return answer.json()["type"].rpartition(":")[2]


async def contents(deployment: Deployment) -> list[str]:
    """The contents in both streams."""
    return [
        (each.data or b"").decode() for name in ("MESSAGES", "MESSAGESDLQ") for each in await stored(deployment, name)
    ]


@pytest.mark.parametrize("state", STATES)
async def test_key_stands_for_one_content(
    deployment: Deployment, session: Pipeline, api: Running, window: float, state: str
) -> None:
    """Of a message and of a line: other content is refused, the same is kept once."""
    text = BROKEN if state in {"dlq", "deleted", "undone", "expired"} else order(1, "first")
    for path in PATHS:
        assert (await api.post(text, path, idempotency_key="key")).status_code == 202
    await reach(state, deployment, session)
    await asyncio.sleep(window)
    before = await contents(deployment)
    for path in PATHS if state != "purged by others" else ():
        answer = await api.post(OTHER, path, idempotency_key="key")
        assert (answer.status_code, code(answer)) == (422, "key_conflict"), answer.text
    assert await contents(deployment) == before
    for path in PATHS:
        answer = await api.post(text, path, idempotency_key="key")
        assert answer.status_code == 202, answer.text
        duplicate = bool(answer.json().get("duplicate") or answer.json().get("duplicates"))
        assert duplicate is (state not in REMOVED)
    if state in REMOVED:
        assert await contents(deployment) == [text] * len(PATHS)
        async with worker(deployment.settings, max_deliver=1):
            await until_drained(deployment)
        for path in PATHS:
            row = await status(deployment, key_of(path))
            assert row is not None
            assert row["status"] == ("dlq" if text == BROKEN else "completed")
    else:
        assert await contents(deployment) == before


async def test_unknown_purge_frees_the_key(deployment: Deployment, api: Running) -> None:
    """A pending message that was removed by other means left no trace: its key has no content any more."""
    await api.post(order(1), idempotency_key="key")
    await deployment.jetstream.purge_stream("MESSAGES")
    answer = await api.post(OTHER, idempotency_key="key")
    assert (answer.status_code, "duplicate" in answer.json()) == (202, False)
    assert await contents(deployment) == [OTHER]


async def test_posts_at_once_with_different_contents(deployment: Deployment, api: Running) -> None:
    """One of them is accepted; every other is refused, or is its repeat."""
    texts = [order(key % 4) for key in range(32)]
    answers = await asyncio.gather(*(api.post(text, idempotency_key="key") for text in texts))
    assert {each.status_code for each in answers} == {202, 422}
    accepted = {text for text, each in zip(texts, answers, strict=True) if each.status_code == 202}
    assert await contents(deployment) == list(accepted)
    firsts = [each for each in answers if each.status_code == 202 and "duplicate" not in each.json()]
    assert len(firsts) == 1


async def test_without_postgresql_the_worker_decides(deployment: Deployment) -> None:
    """The API cannot know the content of a message that was processed: it accepts a second one past the window, and
    refuses it without judgement inside the window.
    """
    async with serving(deployment.settings) as api:
        await api.post(order(1), idempotency_key="key")
    async with worker(deployment.settings):
        await until_status(deployment, key_of(MESSAGE), "completed")
    url = f"postgresql://127.0.0.1:{free_port()}/none"
    async with serving(deployment.settings, database_url=url) as api:
        answer = await api.post(OTHER, idempotency_key="key")
        assert (answer.status_code, code(answer)) == (503, "unavailable"), answer.text
        config = dataclasses.replace(message_stream(deployment.streams), duplicate_window=WINDOW)
        await deployment.jetstream.update_stream(config)
        await asyncio.sleep(WINDOW * 3)
        assert (await api.post(OTHER, idempotency_key="key")).status_code == 202
        pending = await api.post(order(3), idempotency_key="key")
        assert (pending.status_code, code(pending)) == (422, "key_conflict")
    async with worker(deployment.settings):
        (conflict,) = await until(lambda: dead_letters(deployment))
    assert conflict.data == OTHER.encode()
    assert conflict.headers["Nomnom-Reason"] == "key conflict"


async def test_segments_of_a_batch_are_compared_one_by_one(deployment: Deployment, api: Running) -> None:
    first = [order(key) for key in range(1, 3201)]
    answer = await api.post("\n".join(first), BATCH, idempotency_key="load")
    assert (answer.status_code, answer.json()["count"]) == (202, 3200)
    stored_before = await contents(deployment)
    second = [*first]
    second[1006] = order(7, "changed")
    answer = await api.post("\n".join(second), BATCH, idempotency_key="load")
    assert answer.status_code == 207
    found = answer.json()
    assert (found["count"], found["duplicates"]) == (2200, 2200)
    assert [(each["line"], each["last_line"], each["status"], each["code"]) for each in found["problems"]] == [
        (1001, 2000, 422, "key_conflict")
    ]
    assert await contents(deployment) == stored_before


async def test_removed_messages_of_a_repeated_batch_begin_a_new_life(
    deployment: Deployment, session: Pipeline, api: Running, window: float
) -> None:
    """Those that were completed are not applied again."""
    lines = [BROKEN if key % 10 == 0 else order(key) for key in range(1, 41)]
    ids = (await api.post("\n".join(lines), BATCH, idempotency_key="load")).json()["ids"]
    async with worker(deployment.settings, max_deliver=1):
        for each in ids[9::10]:
            await until_status(deployment, each, "dlq")
        await until_drained(deployment)
    await session.dead_letters.delete(Filter(), expected_count=4)
    await asyncio.sleep(window)
    before = await deployment.database.fetch("SELECT * FROM orders ORDER BY o_orderkey")
    again = await api.post("\n".join(lines), BATCH, idempotency_key="load")
    assert (again.status_code, again.json()["ids"]) == (202, ids)
    async with worker(deployment.settings, max_deliver=1):
        for each in ids[9::10]:
            await until_status(deployment, each, "dlq")
        await until_drained(deployment)
    assert await deployment.database.fetch("SELECT * FROM orders ORDER BY o_orderkey") == before
    counts = await deployment.database.fetch("SELECT status, count(*) FROM message_status GROUP BY 1 ORDER BY 1")
    assert [tuple(each) for each in counts] == [("completed", 36), ("dlq", 4)]
    account = await session.account.read(trusted=0.0)
    assert (account.accepted, account.completed, account.dead_letters, account.unexplained) == (40, 36, 4, 0)


async def test_posts_without_a_key_are_not_looked_up(deployment: Deployment) -> None:
    """With neither a table of keys nor a right to read it, they are accepted as before."""
    await deployment.database.execute("ALTER TABLE nomnom_keys RENAME TO hidden")
    async with serving(deployment.settings) as api:
        answer = await api.post(order(1))
        assert answer.status_code == 202
        message_id = parse_message_id(answer.json()["message_id"])
        assert message_id is not None
        assert not is_keyed(message_id)
