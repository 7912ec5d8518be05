"""The API on real servers: single messages, validation, authentication and errors."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import datetime

import pytest
from api_harness import BATCH, MESSAGE, STATUS, TEXT, VALIDATE, Running, exchange, read_answer, serving, stored

from conftest import LINE, ORDER, Deployment
from nomnom.envelope import idempotent_message_id, read_envelope
from nomnom.schema import Schema
from nomnom.streams import MAX_MSG_SIZE, MAX_PAYLOAD

_MIB = 1024 * 1024


@pytest.fixture
async def api(deployment: Deployment) -> AsyncIterator[Running]:
    async with serving(deployment.settings) as running:
        yield running


async def test_accepted_message_is_in_the_stream(deployment: Deployment, api: Running) -> None:
    answer = await api.post(f"{ORDER}\n{LINE}")
    assert answer.status_code == 202
    assert answer.headers["content-type"] == "application/json"
    receipt = answer.json()
    assert receipt.keys() == {"message_id", "status", "timestamp"}
    assert receipt["status"] == "accepted"
    assert uuid.UUID(receipt["message_id"]).version == 7
    [message] = await stored(deployment)
    assert message.data == f"{ORDER}\n{LINE}".encode()
    assert message.subject == f"messages.ingest.orders.{receipt['message_id']}"
    assert message.headers.keys() == {"Nomnom-Received-At"}
    envelope = read_envelope(message.subject, message.headers)
    assert envelope.received_at == datetime.fromisoformat(receipt["timestamp"])
    assert len(receipt["timestamp"]) == len("2024-01-01T00:00:00.000000Z")
    assert receipt["timestamp"].endswith("Z")


async def test_invalid_records_are_accepted(deployment: Deployment, api: Running) -> None:
    bodies = ["no record at all", "X|1|2", "O|not a number|\x00", "O.>|1", "*|1", "\n\n" + ORDER, "\N{SNOWMAN}|1"]
    for body in bodies:
        assert (await api.post(body)).status_code == 202, body
    messages = await stored(deployment)
    assert [each.data.decode() for each in messages] == bodies
    entities = [each.subject.split(".")[2] for each in messages]
    assert entities == ["unknown", "unknown", "orders", "unknown", "unknown", "orders", "unknown"]
    assert all(len(each.subject.split(".")) == 4 for each in messages)


async def test_plain_text_is_accepted(api: Running) -> None:
    for kind in (
        None,
        "text/plain",
        "text/plain; charset=utf-8",
        "text/plain;charset=UTF-8",
        'TEXT/Plain; charset="utf-8"; format=flowed',
        "text/plain; charset=us-ascii",
    ):
        answer = await api.client.post(MESSAGE, content=ORDER, headers={"content-type": kind} if kind else {})
        assert answer.status_code == 202, (kind, answer.text)


async def test_other_media_types_are_rejected(deployment: Deployment, api: Running) -> None:
    for path in (MESSAGE, BATCH, VALIDATE):
        for headers in (
            {"content-type": "application/json"},
            {"content-type": "text/plain; charset=latin-1"},
            {"content-type": "text/html"},
            {"content-type": ""},
            {"content-type": "plain"},
            {**TEXT, "content-encoding": "gzip"},
        ):
            answer = await api.client.post(path, content=ORDER, headers=headers)
            assert answer.status_code == 415, (path, headers)
            assert answer.headers["content-type"] == "application/problem+json"
            problem = answer.json()
            assert problem["type"] == "urn:nomnom:problem:unsupported_media_type"
            assert problem["status"] == 415
            assert problem["instance"] == path
    assert await stored(deployment) == []


async def test_empty_and_non_utf8_bodies_are_rejected(deployment: Deployment, api: Running) -> None:
    for path in (MESSAGE, VALIDATE):
        for body in (b"", b" \r\n\t\n", b"O|1|\xff\xfe", "O|1".encode("utf-16")):
            answer = await api.post(body, path)
            assert answer.status_code == 400, (path, body)
            problem = answer.json()
            assert problem["type"] == "urn:nomnom:problem:invalid_body"
            assert problem["title"]
            assert ("empty" if not body.strip() else "not valid UTF-8: byte") in problem["detail"]
    assert await stored(deployment) == []


async def test_idempotency_key_deduplicates_messages(deployment: Deployment, api: Running) -> None:
    first = (await api.post(ORDER, idempotency_key="order 1")).json()
    again = (await api.post(ORDER, idempotency_key="order 1")).json()
    other = (await api.post(ORDER, idempotency_key="order 2")).json()
    assert first["message_id"] == again["message_id"] == idempotent_message_id("anonymous", "order 1")
    assert "duplicate" not in first
    assert again["duplicate"] is True
    assert other["message_id"] != first["message_id"]
    assert len(await stored(deployment)) == 2
    assert await api.metric('duplicates_total{route="message"}') == 1
    assert await api.metric('accepted_total{route="message"}') == 3


async def test_invalid_idempotency_keys_are_rejected(deployment: Deployment, api: Running) -> None:
    for path in (MESSAGE, BATCH):
        for key in (b"", b"x" * 256, b"a\tb", b"\xe4", b"a\x80"):
            answer = await api.client.post(path, content=ORDER, headers=[(b"idempotency-key", key)])
            assert answer.status_code == 400, (path, key)
            assert answer.json()["type"] == "urn:nomnom:problem:invalid_idempotency_key"
    assert await stored(deployment) == []
    assert (await api.post(ORDER, idempotency_key="x" * 255)).status_code == 202


async def test_clients_cannot_inject_subjects_or_headers(deployment: Deployment, api: Running) -> None:
    hostile = {
        "Nats-Msg-Id": "mine",
        "Nomnom-Received-At": "1",
        "Nomnom-Replays": "7",
        "Nats-Expected-Stream": "OTHER",
        "Nats-Rollup": "all",
        "Idempotency-Key": "x Nats-Rollup: all > * .",
    }
    payload = "O|NATS/1.0\r\nNats-Rollup: all\r\n\r\nPUB messages.ingest.orders.x 0\r\n\r\n"
    receipt = (await api.client.post(MESSAGE, content=payload, headers={**TEXT, **hostile})).json()
    [message] = await stored(deployment)
    assert message.data.decode() == payload
    assert message.headers.keys() == {"Nomnom-Received-At", "Nats-Msg-Id"}
    assert message.headers["Nats-Msg-Id"] == receipt["message_id"]
    assert message.subject == f"messages.ingest.orders.{receipt['message_id']}"
    split = b"x\r\nNats-Rollup: all"
    answer = await exchange(
        api.port,
        b"POST %s HTTP/1.1\r\nHost: x\r\nIdempotency-Key: %s\r\nContent-Length: 3\r\n\r\nO|1"
        % (MESSAGE.encode(), split),
    )
    assert answer.startswith(b"HTTP/1.1 202")
    assert {name for each in await stored(deployment) for name in each.headers} == message.headers.keys()


async def test_message_size_limit(deployment: Deployment, api: Running) -> None:
    largest = b"O|" + b"x" * (_MIB - 2)
    assert (await api.post(largest)).status_code == 202
    rejected = await api.post(largest + b"x")
    assert rejected.status_code == 413
    assert "1,048,576" in rejected.json()["detail"]

    async def chunks(size: int) -> AsyncIterator[bytes]:
        for start in range(0, size, 100_000):
            yield b"x" * min(100_000, size - start)

    accepted = await api.client.post(MESSAGE, content=chunks(_MIB), headers=TEXT)
    assert accepted.status_code == 202
    streamed = await api.client.post(MESSAGE, content=chunks(_MIB + 1), headers=TEXT)
    assert streamed.status_code == 413
    assert [len(each.data) for each in await stored(deployment)] == [_MIB, _MIB]


async def test_declared_size_is_rejected_before_the_body_is_sent(api: Running) -> None:
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n" % MESSAGE.encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(head + b"Content-Length: 5000000\r\nExpect: 100-continue\r\n\r\n")
    async with asyncio.timeout(10):
        rejected = await read_answer(reader)
    assert rejected.startswith(b"HTTP/1.1 413")
    # A client that sends the body anyway can reuse the connection.
    for _ in range(50):
        writer.write(b"x" * 100_000)
        await writer.drain()
    writer.write(head + b"Content-Length: 3\r\n\r\nO|1")
    async with asyncio.timeout(10):
        accepted = await read_answer(reader)
    assert accepted.startswith(b"HTTP/1.1 202")
    writer.close()


async def test_endless_body_is_rejected_at_the_limit(api: Running) -> None:
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" % MESSAGE.encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(head)
    for _ in range(20):  # twice the limit, without an end
        writer.write(b"19000\r\n" + b"x" * 0x19000 + b"\r\n")
        await writer.drain()
    async with asyncio.timeout(10):
        assert (await read_answer(reader)).startswith(b"HTTP/1.1 413")
    writer.close()


async def test_responses_are_sent_in_one_write_and_pipelining_works(api: Running) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    request = f"POST {MESSAGE} HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: {len(ORDER)}\r\n"
    whole: list[bytes] = []
    for _ in range(20):
        writer.write(f"{request}\r\n{ORDER}".encode())
        whole.append(await asyncio.wait_for(reader.read(65536), 10))
    assert all(each.startswith(b"HTTP/1.1 202") and each.endswith(b"}") for each in whole)
    writer.write(f"{request}\r\n{ORDER}".encode() * 5 + f"{request}Connection: close\r\n\r\n{ORDER}".encode())
    row = await asyncio.wait_for(reader.read(-1), 10)
    assert row.count(b"HTTP/1.1 202") == row.count(b'"status":"accepted"') == 6
    writer.close()


async def test_expect_100_continue(api: Running) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    head = f"POST {MESSAGE} HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: {len(ORDER)}\r\n"
    writer.write(f"{head}Expect: 100-continue\r\n\r\n".encode())
    assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10) == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(ORDER.encode())
    assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).startswith(b"HTTP/1.1 202")
    writer.close()


async def test_messages_beyond_the_limits_of_nats_are_too_large(deployment: Deployment) -> None:
    async with serving(deployment.settings, nomnom_api_max_body=3 * MAX_PAYLOAD) as api:
        for size, limit in ((MAX_PAYLOAD, "the limit of NATS"), (MAX_MSG_SIZE + 1, "the limit of stream MESSAGES")):
            answer = await api.post(b"x" * size)
            assert answer.status_code == 413, answer.text
            assert limit in answer.json()["detail"]
        # The rejection did not close the connection.
        assert (await api.post(ORDER)).status_code == 202
        lines = b"\n".join([ORDER.encode(), b"x" * MAX_PAYLOAD, b"x" * (MAX_MSG_SIZE + 1), ORDER.encode()])
        batch = await api.post(lines, BATCH)
        assert batch.status_code == 207
        assert [(each["line"], each["status"]) for each in batch.json()["problems"]] == [(2, 413), (3, 413)]
    assert len(await stored(deployment)) == 3


async def test_read_timeout(deployment: Deployment) -> None:
    async with serving(deployment.settings, nomnom_api_read_timeout=0.3) as api:
        for path in (MESSAGE, BATCH):
            head = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 30\r\n\r\n" % path.encode()
            for begun in (b"", b"O|1|"):
                answer = await exchange(api.port, head + begun)
                assert answer.startswith(b"HTTP/1.1 408"), answer
                assert b"connection: close" in answer
        assert (await api.post(ORDER)).status_code == 202
    assert len(await stored(deployment)) == 1


async def test_token_authentication(deployment: Deployment) -> None:
    tokens = "shop:first-secret, second-secret"
    async with serving(deployment.settings, nomnom_api_tokens=tokens) as api:
        requests = [("POST", MESSAGE), ("POST", BATCH), ("POST", VALIDATE), ("GET", f"{STATUS}/{uuid.uuid4()}")]
        for method, path in requests:
            for header in (None, "Bearer wrong-secret", "Basic first-secret", "Bearer", "Bearer shop:first-secret"):
                given = {} if header is None else {"authorization": header}
                answer = await api.client.request(method, path, content=ORDER, headers=given)
                assert answer.status_code == 401, (path, header)
                assert answer.headers["www-authenticate"].startswith('Bearer realm="nomnom"')
                assert ("error=" in answer.headers["www-authenticate"]) == (header is not None)
                assert answer.json()["type"] == "urn:nomnom:problem:unauthorized"
        for path in ("/health", "/ready", "/metrics", "/openapi.json", "/docs"):
            assert (await api.client.get(path)).status_code == 200
        ids = []
        for token in ("first-secret", "second-secret"):
            for scheme in ("Bearer", "bearer"):
                answer = await api.post(ORDER, authorization=f"{scheme} {token}", idempotency_key="k")
                assert answer.status_code == 202
                ids.append(answer.json()["message_id"])
        # The same key of two callers is two messages.
        assert ids[0] == ids[1] == idempotent_message_id("shop", "k")
        assert ids[2] == ids[3] != ids[0]
        assert (await api.client.get("/openapi.json")).json()["security"] == [{"token": []}]
    assert len(await stored(deployment)) == 2


async def test_unknown_paths_and_methods(api: Running) -> None:
    for method, path, allowed in (
        ("GET", MESSAGE, "POST"),
        ("PUT", BATCH, "POST"),
        ("DELETE", "/health", "GET, HEAD"),
        ("POST", f"{STATUS}/x", "GET, HEAD"),
        ("OPTIONS", VALIDATE, "POST"),
    ):
        answer = await api.client.request(method, path)
        assert answer.status_code == 405, (method, path)
        assert answer.headers["allow"] == allowed
        assert answer.json()["status"] == 405
    for path in ("/", "/api", "/api/ingest", "/api/ingest/status", "/docs/other.js", "/a%0d%0ab", "/\u00e4"):
        answer = await api.client.get(path)
        assert answer.status_code == 404, path
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["type"] == "urn:nomnom:problem:not_found"
    for path in ("/health", "/ready", "/metrics", "/docs", "/openapi.json"):
        answer = await api.client.head(path)
        assert (answer.status_code, answer.content) == (200, b"")
    assert await api.metric('requests_total{code="404",route="other"}') == 6


async def test_unexpected_error_is_a_problem_response(api: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> str:
        raise RuntimeError("secret inner workings")

    monkeypatch.setattr(Schema, "entity_name", fail)
    answer = await api.post(ORDER)
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:nomnom:problem:internal"
    assert "secret" not in answer.text


async def test_validation_publishes_nothing(deployment: Deployment, api: Running) -> None:
    valid = (await api.post(f"{ORDER}\n{LINE}", VALIDATE)).json()
    assert valid["valid"] is True
    assert valid["entity"] == "orders"
    assert valid["subject"] == "messages.ingest.orders.{message_id}"
    assert valid["problems"] == []
    assert [each["entity"] for each in valid["records"]] == ["orders", "lineitem"]
    order, line = (each["fields"] for each in valid["records"])
    assert (order["o_orderkey"], order["o_totalprice"], order["o_orderdate"]) == (123, "123.45", "2024-01-01")
    assert line["l_orderkey"] == 123
    invalid = (await api.post("O|x|456|F|1.5|2024-13-01|u|c|1|k", VALIDATE)).json()
    assert invalid["valid"] is False
    assert invalid["records"] == []
    fields = {each["field"]: each for each in invalid["problems"]}
    assert {"o_orderkey", "o_orderdate"} <= fields.keys()
    assert fields["o_orderkey"] == {
        "line": 1,
        "field": "o_orderkey",
        "position": 1,
        "expected": fields["o_orderkey"]["expected"],
        "found": "'x'",
    }
    unknown = (await api.post("X|1", VALIDATE)).json()
    assert (unknown["valid"], unknown["entity"], unknown["problems"][0]["field"]) == (False, "unknown", "tag")
    large = await api.post("\n".join([ORDER] + [LINE] * 5000), VALIDATE)
    assert large.status_code == 200
    assert len(large.json()["records"]) == 5001
    assert await stored(deployment) == []


async def test_metrics(api: Running) -> None:
    await api.post(ORDER)
    await api.post(b"")
    await api.post(f"{ORDER}\n\n{ORDER}", BATCH)
    values = {
        'requests_total{code="202",route="/api/ingest/message"}': 1,
        'requests_total{code="400",route="/api/ingest/message"}': 1,
        'requests_total{code="202",route="/api/ingest/batch"}': 1,
        'accepted_total{route="message"}': 1,
        'accepted_total{route="batch"}': 2,
        'rejected_total{reason="invalid_body"}': 1,
        "batch_lines_total": 2,
        "publish_seconds_count": 1,
        "batch_seconds_count": 1,
        "in_flight": 0,
        "nats_up": 1,
    }
    for name, value in values.items():
        assert await api.metric(name) == value, name
