"""Post messages through a running API and follow them, with a running worker."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from conftest import ORDER, Deployment, free_port
from nomnom.envelope import Status, new_message_id
from nomnom_control.environments.local.processes import ChildProcess
from nomnom_control.session.connections import ApiRefused, ApiUnavailable
from nomnom_control.session.messages import UnknownMessage
from nomnom_control.session.pipeline import Pipeline
from operator_session import open_session

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("nomnom_api") is None or importlib.util.find_spec("nomnom_api.__main__") is None,
    reason="the API is not installed",
)


@pytest.fixture
async def session(deployment: Deployment, tmp_path: Path) -> AsyncIterator[Pipeline]:
    """A session with a running API and worker."""
    port, health = free_port(), free_port()
    settings = {
        **deployment.environment,
        "NOMNOM_API_HOST": "127.0.0.1",
        "NOMNOM_API_PORT": str(port),
        "NOMNOM_API_TOKENS": "tests:a-token-of-the-tests-0123456789",
        "WORKER_HEALTH_HOST": "127.0.0.1",
        "WORKER_HEALTH_PORT": str(health),
        "RETRY_BACKOFF": "0.05",
    }
    programs = [
        ChildProcess(name, [sys.executable, "-m", name], tmp_path / f"{name}.log", settings)
        for name in ("nomnom_api", "nomnom_worker")
    ]
    for program in programs:
        await program.start()
    try:
        url = f"http://127.0.0.1:{port}"
        async with open_session(deployment, tmp_path, api=url, api_token="a-token-of-the-tests-0123456789") as pipeline:
            async with asyncio.timeout(30):
                while True:
                    try:
                        await pipeline.api.send("GET", "/ready")
                    except (ApiUnavailable, ApiRefused):
                        await asyncio.sleep(0.05)
                    else:
                        break
            yield pipeline
    finally:
        for program in programs:
            await program.stop(20)


async def test_follow_message_to_its_final_status(session: Pipeline) -> None:
    good = await session.messages.post(ORDER)
    bad = await session.messages.post("O|1|broken")
    assert (good.status, good.duplicate) == (Status.ACCEPTED, False)
    for posted, end in ((good, Status.COMPLETED), (bad, Status.DLQ)):
        states = [each async for each in session.messages.follow(posted.message_id, timeout=30)]
        assert states[-1].status is end
        assert states[-1].final
        assert len({(each.status, each.retry_count) for each in states}) == len(states)
    last = await session.messages.state(bad.message_id)
    assert last.error is not None
    assert "9 fields after O" in last.error
    row = await session.statuses.find(good.message_id)
    assert row is not None
    assert row.status is Status.COMPLETED


async def test_same_key_is_the_same_message(session: Pipeline) -> None:
    first = await session.messages.post(ORDER, idempotency_key="order 123")
    again = await session.messages.post(ORDER, idempotency_key="order 123")
    assert first.message_id == again.message_id


async def test_errors_of_the_api_are_reported(session: Pipeline) -> None:
    with pytest.raises(ApiRefused, match="responded 400") as caught:
        await session.messages.post(" \n")
    assert caught.value.status == 400
    with pytest.raises(UnknownMessage, match="unknown message"):
        await session.messages.state(new_message_id())
