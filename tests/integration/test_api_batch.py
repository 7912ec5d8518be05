"""Batches of the API on real servers."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
from collections.abc import AsyncIterator

import pytest
from api_harness import (
    BATCH,
    TEXT,
    Running,
    exchange,
    read_answer,
    serving,
    stored,
    stored_ids,
    stored_messages,
    until,
)

from conftest import ORDER, Deployment
from nomnom.envelope import idempotent_message_id
from nomnom.segments import keyed_segment_id, message_ids
from nomnom.streams import message_stream


@pytest.fixture
async def api(deployment: Deployment) -> AsyncIterator[Running]:
    async with serving(deployment.settings, nomnom_api_batch_window=50) as running:
        yield running


def orders(count: int, first: int = 1) -> list[str]:
    return [f"O|{key}|456|F|123.45|2024-01-01|urgent|clerk1|1|comment" for key in range(first, first + count)]


async def pieces(text: bytes, sizes: list[int]) -> AsyncIterator[bytes]:
    """A body in pieces of these sizes, repeated."""
    start = 0
    for size in itertools.cycle(sizes):
        if start >= len(text):
            return
        yield text[start : start + size]
        start += size
        await asyncio.sleep(0)


async def test_each_non_blank_line_is_a_message(deployment: Deployment, api: Running) -> None:
    lines = [*orders(200), "unknown", "  indented|x  ", "\N{SNOWMAN}|\\||"]
    body = "\n".join([lines[0], "", "   ", "\r", lines[1] + "\r", *lines[2:]])
    answer = await api.post(body, BATCH)
    assert answer.status_code == 202, answer.text
    result = answer.json()
    assert result.keys() == {"count", "ids"}
    assert result["count"] == len(result["ids"]) == len(lines)
    messages = await stored_messages(deployment)
    assert [each.data.decode() for each in messages] == lines
    assert [each.message_id for each in messages] == result["ids"]
    assert [each.envelope.entity for each in messages] == ["orders"] * 200 + ["unknown"] * 3
    # Of two lines with the same key, the later one must win.
    order = [(each.envelope.position, each.message_id) for each in messages]
    assert order == sorted(set(order))
    assert len(await stored(deployment)) <= 2, "a segment for what was received at once, and for the rest"
    ended = await api.post("\n".join(orders(2)) + "\r\n", BATCH)
    assert ended.json()["count"] == 2


async def test_body_may_arrive_in_any_pieces(deployment: Deployment, api: Running) -> None:
    lines = [f"{each}\N{SNOWMAN}" for each in orders(60)]
    text = "\r\n".join(lines).encode()
    for sizes in ([1], [7, 1, 2], [64, 3], [100_000]):
        answer = await api.client.post(f"{BATCH}?ids=none", content=pieces(text, sizes), headers=TEXT)
        assert answer.status_code == 202, answer.text
        assert answer.json()["count"] == 60
    messages = await stored_messages(deployment)
    assert [each.data.decode() for each in messages] == lines * 4
    assert answer.json() == {
        "count": 60,
        "first_id": messages[-60].message_id,
        "last_id": messages[-1].message_id,
    }


async def test_empty_batch_and_invalid_parameter(deployment: Deployment, api: Running) -> None:
    for body in (b"", b"\n", b"\r\n  \n\t"):
        answer = await api.post(body, BATCH)
        assert answer.status_code == 400
        assert answer.json()["type"] == "urn:nomnom:problem:invalid_body"
    for query in ("ids=some", "ids=", "ids=all&ids=none"):
        answer = await api.post(ORDER, f"{BATCH}?{query}")
        assert answer.status_code == 400, query
        assert answer.json()["type"] == "urn:nomnom:problem:invalid_parameter"
    assert await stored(deployment) == []


async def test_idempotency_key_deduplicates_lines(deployment: Deployment, api: Running) -> None:
    body = "\n\n".join(orders(3))
    first = (await api.post(body, BATCH, idempotency_key="load 1")).json()
    again = (await api.post(body, BATCH, idempotency_key="load 1")).json()
    segment_id = keyed_segment_id(idempotent_message_id("anonymous", "load 1\n1"))
    assert first["ids"] == again["ids"] == message_ids(segment_id, 3)
    assert "duplicates" not in first
    assert again["duplicates"] == 3
    other = (await api.post(body, BATCH, idempotency_key="load 2")).json()
    assert not set(other["ids"]) & set(first["ids"])
    assert len(await stored_messages(deployment)) == 6


async def test_invalid_lines_do_not_affect_others(deployment: Deployment) -> None:
    async with serving(deployment.settings, nomnom_api_max_body=100) as api:
        good = orders(4)
        long, bad = b"x" * 101, b"O|\xff"
        exact = b"y" * 100
        lines = [good[0].encode(), bad, long, long, b"", good[1].encode(), exact + b"\r", long * 50, good[2].encode()]
        text = b"\n".join([*lines, bad, good[3].encode(), long])
        for sizes in ([100_000], [30]):
            answer = await api.client.post(BATCH, content=pieces(text, sizes), headers=TEXT)
            assert answer.status_code == 207, answer.text
            result = answer.json()
            assert result.keys() == {"count", "problems", "accepted"}
            assert result["count"] == 5
            reported = [(each["line"], each["last_line"], each["status"], each["code"]) for each in result["problems"]]
            assert reported == [
                (2, 2, 400, "invalid_body"),
                (3, 4, 413, "too_large"),
                (8, 8, 413, "too_large"),
                (10, 10, 400, "invalid_body"),
                (12, 12, 413, "too_large"),
            ]
            assert all(each["detail"] for each in result["problems"])
            accepted = {each["line"]: each["id"] for each in result["accepted"]}
            assert list(accepted) == [1, 6, 7, 9, 11]
            messages = (await stored_messages(deployment))[-5:]
            assert [each.message_id for each in messages] == list(accepted.values())
            assert [each.data for each in messages] == [
                *(each.encode() for each in good[:2]),
                exact,
                *(each.encode() for each in good[2:]),
            ]
        summary = await api.client.post(f"{BATCH}?ids=none", content=text, headers=TEXT)
        assert summary.status_code == 207
        assert summary.json().keys() == {"count", "problems"}


async def test_error_shared_by_all_lines_is_the_response(deployment: Deployment, api: Running) -> None:
    answer = await api.post(b"\xff\n\xfe\n\xff\xff", BATCH)
    assert answer.status_code == 400
    assert answer.json()["type"] == "urn:nomnom:problem:invalid_body"
    await deployment.jetstream.delete_stream(deployment.streams.stream)
    try:
        answer = await api.post("\n".join(orders(120)), BATCH)
        assert answer.status_code == 503
        assert answer.headers["retry-after"].isdigit()
        assert answer.json()["type"] == "urn:nomnom:problem:unavailable"
        assert "nomnom setup" in answer.json()["detail"]
    finally:
        await deployment.jetstream.add_stream(message_stream(deployment.streams))
    too_many = await api.post(b"\xff\n" * 10_001, BATCH)
    assert too_many.status_code == 207
    reported = [(each["line"], each["last_line"], each["code"]) for each in too_many.json()["problems"]]
    assert reported == [(1, 10_001, "invalid_body"), (10_002, None, "too_many_problems")]
    assert too_many.json()["accepted"] == []


async def test_batch_size_limit(deployment: Deployment) -> None:
    async with serving(deployment.settings, nomnom_api_batch_max_body=20_000) as api:
        text = "\n".join(orders(1000)).encode()
        rejected = await api.post(text, BATCH)
        assert rejected.status_code == 413
        assert await stored(deployment) == []
        streamed = await api.client.post(BATCH, content=pieces(text, [1000]), headers=TEXT)
        assert streamed.status_code == 207
        result = streamed.json()
        [problem] = result["problems"]
        assert (problem["last_line"], problem["status"], problem["code"]) == (None, 413, "too_large")
        assert problem["line"] == result["count"] + 1
        messages = await stored_messages(deployment)
        assert [each.data.decode() for each in messages] == orders(1000)[: result["count"]]
        rest = await api.post("\n".join(orders(1000)[result["count"] :][:50]), BATCH)
        assert rest.status_code == 202


async def test_full_stream_ends_the_batch(deployment: Deployment, api: Running) -> None:
    small = dataclasses.replace(message_stream(deployment.streams), max_bytes=60_000)
    await deployment.jetstream.update_stream(small)
    lines = orders(4000)
    answer = await api.post("\n".join(lines), BATCH)
    assert answer.status_code == 207
    assert answer.headers["retry-after"].isdigit()
    result = answer.json()
    assert {each["code"] for each in result["problems"]} == {"stream_full"}
    assert result["problems"][-1]["last_line"] is None
    accepted = {each["line"]: each["id"] for each in result["accepted"]}
    assert len(accepted) == result["count"] > 0
    messages = await stored_messages(deployment)
    assert {each.message_id for each in messages} == set(accepted.values())
    assert [each.data.decode() for each in messages] == [lines[line - 1] for line in accepted]
    # Each line is either accepted or part of a problem, so the rest can be posted again.
    failed = [
        line for each in result["problems"] for line in range(each["line"], (each["last_line"] or len(lines)) + 1)
    ]
    assert sorted([*accepted, *failed]) == list(range(1, len(lines) + 1))
    await deployment.jetstream.purge_stream(deployment.streams.stream)
    await deployment.jetstream.update_stream(message_stream(deployment.streams))
    again = await api.post("\n".join(lines[line - 1] for line in failed), BATCH)
    assert again.status_code == 202


async def test_client_disconnects_during_a_batch(deployment: Deployment, api: Running) -> None:
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n" % BATCH.encode()
    _, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(head + "\n".join(orders(20)).encode())
    await writer.drain()

    async def some_arrived() -> bool:
        return len(await stored_messages(deployment)) >= 19

    await until(some_arrived)
    writer.close()

    async def counted() -> bool:
        return await api.metric("batches_abandoned_total") == 1

    await until(counted)
    # The truncated line must not be accepted.
    assert [each.data.decode() for each in await stored_messages(deployment)] == orders(19)
    assert await api.metric('accepted_total{route="batch"}') == 19
    assert await api.metric('requests_total{code="499",route="/api/ingest/batch"}') == 1


async def test_long_responses_are_complete(deployment: Deployment, api: Running) -> None:
    lines = orders(5000)
    result = (await api.post("\n".join(lines), BATCH)).json()
    assert result["count"] == len(set(result["ids"])) == 5000
    assert sorted(await stored_ids(deployment.settings, deployment.jetstream)) == sorted(result["ids"])
    lines[10] = lines[4000] = "x" * 2_000_000
    partial = (await api.post("\n".join(lines), BATCH)).json()
    assert partial["count"] == len(partial["accepted"]) == 4998
    assert [each["line"] for each in partial["problems"]] == [11, 4001]
    assert {each["line"] for each in partial["accepted"]} == set(range(1, 5001)) - {11, 4001}


async def test_limit_of_concurrent_batches(deployment: Deployment) -> None:
    async with serving(deployment.settings, nomnom_api_batches=1) as api:
        head = b"POST %s?ids=none HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
        lines = "\n".join(orders(2)).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        writer.write(head % (BATCH.encode(), len(lines)) + lines[:-10])

        async def first_is_read() -> bool:
            return len(await stored(deployment)) == 1

        await until(first_is_read)
        second = await exchange(api.port, head % (BATCH.encode(), len(lines)) + lines)
        assert second.startswith(b"HTTP/1.1 503")
        assert b"retry-after: 1" in second
        assert json.loads(second.partition(b"\r\n\r\n")[2])["type"] == "urn:nomnom:problem:busy"
        # Single messages are still accepted.
        assert (await api.post(ORDER)).status_code == 202
        writer.write(lines[-10:])
        async with asyncio.timeout(10):
            assert (await read_answer(reader)).startswith(b"HTTP/1.1 202")
        writer.close()
        assert (await api.post(lines, BATCH)).status_code == 202
