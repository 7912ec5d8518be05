"""Three nats-servers whose leader is killed again and again lose nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.faults import FAULTS, kill_leader
from tests.chaos.parts import Plan
from tests.chaos.runner import run

pytestmark = pytest.mark.timeout(300)


async def test_killed_leaders_lose_nothing(folder: Path, seed: int) -> None:
    kinds = {"kill nats leader": kill_leader, "reset worker-nats": FAULTS["reset worker-nats"]}
    report = await run(Plan(folder, apis=1, workers=1, nodes=3), seed, faults=4, seconds=30, kinds=kinds)
    assert report.good, report.text()
    assert report.faults["kill nats leader"]
