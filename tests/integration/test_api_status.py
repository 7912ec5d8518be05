"""The status of messages, and the API's OpenAPI document: on real servers, with a real worker."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from api_harness import BATCH, MESSAGE, STATUS, VALIDATE, Running, serving, until
from openapi_spec_validator import validate
from worker_harness import worker

from conftest import ORDER, Deployment
from nomnom.envelope import ingest_subject, new_message_id, read_envelope, replay_headers
from nomnom.message_status import CLAIM
from nomnom.positions import position_of
from nomnom.streams import worker_consumer

_FIELDS = {
    "message_id",
    "status",
    "entity",
    "received_at",
    "processed_at",
    "retry_count",
    "error",
    "superseded",
    "note",
}
_BAD = "O|x|456|F|123.45|2024-01-01|urgent|clerk1|1|comment"


async def until_status(api: Running, message_id: str, expected: str) -> dict[str, Any]:
    """Wait for a status; returns the state."""

    async def reached() -> dict[str, Any] | None:
        state = await api.state(message_id)
        return state if state["status"] == expected else None

    return await until(reached, what=expected)


async def test_status_from_accepted_to_completed(deployment: Deployment) -> None:
    async with serving(deployment.settings) as api:
        receipt = (await api.post(ORDER)).json()
        state = await api.state(receipt["message_id"])
        assert state.keys() == _FIELDS
        assert (state["message_id"], state["status"], state["entity"]) == (receipt["message_id"], "accepted", "orders")
        received = datetime.fromisoformat(receipt["timestamp"])
        assert datetime.fromisoformat(state["received_at"]) == received
        assert (state["processed_at"], state["retry_count"], state["error"]) == (None, 0, None)
        # A consumer has received it and not acknowledged it yet.
        subscription = await deployment.jetstream.pull_subscribe_bind(
            deployment.streams.consumer, deployment.streams.stream
        )
        [held] = await subscription.fetch(1, timeout=5)
        assert (await until_status(api, receipt["message_id"], "processing"))["entity"] == "orders"
        later = (await api.post(ORDER.replace("|123|", "|124|"))).json()["message_id"]
        assert (await api.state(later))["status"] == "accepted"
        await held.nak()
        await subscription.unsubscribe()
        async with worker(deployment.settings):
            done = await until_status(api, receipt["message_id"], "completed")
            assert datetime.fromisoformat(done["received_at"]) == received
            assert datetime.fromisoformat(done["processed_at"]) > received
            assert (done["error"], done["superseded"]) == (None, False)
            await until_status(api, later, "completed")
        upper = await api.client.get(f"{STATUS}/{receipt['message_id'].upper()}")
        assert upper.json()["message_id"] == receipt["message_id"]


async def test_status_of_a_dead_letter_and_its_replay(deployment: Deployment) -> None:
    async with serving(deployment.settings) as api:
        message_id = (await api.post(_BAD)).json()["message_id"]
        async with worker(deployment.settings, max_deliver=2):
            dead = await until_status(api, message_id, "dlq")
        assert "o_orderkey" in dead["error"]
        dead_letter = await deployment.jetstream.get_msg(deployment.streams.dead_stream, 1)
        envelope = read_envelope(str(dead_letter.subject), dead_letter.headers, "messages.dlq")
        fixed = ORDER.encode()
        subject = ingest_subject("orders", message_id)
        await deployment.jetstream.publish(subject, fixed, headers=replay_headers(envelope, fixed))
        # The row still describes the previous generation.
        again = await api.state(message_id)
        assert (again["status"], again["entity"], again["error"]) == ("accepted", "orders", None)
        assert again["received_at"] == dead["received_at"]
        async with worker(deployment.settings):
            assert (await until_status(api, message_id, "completed"))["error"] is None


async def test_status_of_retried_and_superseded_messages(deployment: Deployment) -> None:
    async with serving(deployment.settings) as api:
        # PostgreSQL rejects a valid record: a data error, which is retried.
        await deployment.database.execute("ALTER TABLE orders ADD CONSTRAINT small CHECK (o_orderkey < 1000)")
        rejected = (await api.post(ORDER.replace("|123|", "|2000|"))).json()["message_id"]
        async with worker(deployment.settings, max_deliver=3, retry_backoff=30, retry_backoff_max=60):
            failed = await until_status(api, rejected, "failed")
            assert (failed["retry_count"], "small" in failed["error"]) == (1, True)
            newer = (await api.post(ORDER)).json()["message_id"]
            await until_status(api, newer, "completed")
            older = new_message_id()
            # A replay of a message that was accepted before the newer one.
            headers = {
                "Nats-Msg-Id": older,
                "Nomnom-Received-At": "1700000000000000",
                "Nomnom-Replays": "1",
                "Nomnom-Position": str(position_of(1, 1)),
            }
            await deployment.jetstream.publish(ingest_subject("orders", older), ORDER.encode(), headers=headers)
            assert (await until_status(api, older, "completed"))["superseded"] is True


async def test_unknown_and_invalid_message_ids(deployment: Deployment) -> None:
    async with serving(deployment.settings) as api:
        unknown = await api.client.get(f"{STATUS}/{new_message_id()}")
        assert unknown.status_code == 404
        assert unknown.json()["type"] == "urn:nomnom:problem:not_found"
        for text in ("x", "123", "*", ">", "messages.ingest.>", "0" * 35, "%2e%2e", "z" * 36, "0" * 5000):
            answer = await api.client.get(f"{STATUS}/{text}")
            assert answer.status_code == 400, text
            assert answer.json()["type"] == "urn:nomnom:problem:invalid_parameter"


async def test_status_without_a_consumer_is_accepted(deployment: Deployment) -> None:
    await deployment.jetstream.delete_consumer(deployment.streams.stream, deployment.streams.consumer)
    async with serving(deployment.settings) as api:
        message_id = (await api.post(ORDER)).json()["message_id"]
        assert (await api.state(message_id))["status"] == "accepted"
    await deployment.jetstream.add_consumer(deployment.streams.stream, worker_consumer(deployment.streams))


async def test_message_completed_during_the_lookup(deployment: Deployment) -> None:
    """Poll statuses during processing: an accepted message is never reported as unknown."""
    async with serving(deployment.settings) as api:
        failures: list[int] = []

        async def follow(key: int) -> None:
            message_id = (await api.post(ORDER.replace("|123|", f"|{key}|"))).json()["message_id"]
            while True:
                answer = await api.client.get(f"{STATUS}/{message_id}")
                if answer.status_code != 200:
                    failures.append(answer.status_code)
                    return
                if answer.json()["status"] == "completed":
                    return

        async with worker(deployment.settings), asyncio.timeout(40):
            for start in range(0, 60, 6):
                await asyncio.gather(*(follow(key) for key in range(start + 1, start + 7)))
        assert failures == []


async def test_status_from_the_row_without_nats(deployment: Deployment) -> None:
    message_id, time = new_message_id(), datetime.fromisoformat("2024-01-01T00:00:00+00:00")
    await deployment.database.execute(CLAIM, [message_id], ["orders"], [time], [0], [1])
    settings = msgspec.structs.replace(deployment.settings, nats_url="nats://127.0.0.1:1")
    async with serving(settings, wait=False) as api:
        assert (await api.state(message_id))["status"] == "completed"
        unknown = await api.client.get(f"{STATUS}/{new_message_id()}")
        assert unknown.status_code == 503
        assert "NATS" in unknown.json()["detail"]


async def test_responses_match_the_openapi_document(deployment: Deployment, tmp_path: Path) -> None:
    async with serving(deployment.settings) as api:
        document = (await api.client.get("/openapi.json")).json()
        validate(document)
        assert document["openapi"] == "3.1.0"
        assert document["paths"].keys() == {
            MESSAGE,
            BATCH,
            VALIDATE,
            f"{STATUS}/{{message_id}}",
            "/health",
            "/ready",
            "/metrics",
            "/openapi.json",
            "/docs",
        }
        # Each example request gets a documented response with the documented media type.
        for path, item in document["paths"].items():
            for method, operation in item.items():
                body = operation.get("requestBody", {}).get("content", {}).get("text/plain", {"examples": {"none": {}}})
                for example in body["examples"].values():
                    answer = await api.client.request(
                        method, path.format(message_id=new_message_id()), content=example.get("value")
                    )
                    documented = operation["responses"][str(answer.status_code)]["content"]
                    assert answer.headers["content-type"].partition(";")[0] in documented, path
        program = shutil.which("st", path=str(Path(sys.executable).parent))
        assert program is not None, "schemathesis is not installed: pip install 'nomnom[dev]'"
        command = [
            program,
            "run",
            f"{api.client.base_url}/openapi.json",
            # The schema does not express that a body must not be blank, or which IDs are known.
            "--exclude-checks=positive_data_acceptance",
            "--max-examples=6",
            "--continue-on-failure",
            "--no-color",
            "--generation-database=none",
        ]
        run = await asyncio.create_subprocess_exec(
            *command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        output, _ = await asyncio.wait_for(run.communicate(), 150)
        assert run.returncode == 0, output.decode()


async def test_docs_are_self_contained(deployment: Deployment) -> None:
    async with serving(deployment.settings) as api:
        page = await api.client.get("/docs")
        assert page.headers["content-type"].startswith("text/html")
        named = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        parts = [each for each in named if not each.startswith("data:")]
        assert len(parts) == 3
        for part in parts:
            assert "//" not in part
            answer = await api.client.get(f"/{part}")
            assert answer.status_code == 200, part
            assert answer.content
        assert "default-src 'self'" in page.headers["content-security-policy"]
