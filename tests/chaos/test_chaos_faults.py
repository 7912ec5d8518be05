"""A few faults of every kind lose nothing; the same runs without a protection do."""

from __future__ import annotations

import pytest

from tests.chaos.controls import EARLY_ACKS
from tests.chaos.faults import FAULTS
from tests.chaos.parts import Plan
from tests.chaos.runner import run

pytestmark = pytest.mark.timeout(300)


async def test_faults_lose_and_double_nothing(plan: Plan, seed: int) -> None:
    report = await run(plan, seed, faults=16, seconds=30)
    assert report.good, report.text()
    assert report.faults.total() >= 5
    assert report.accepted >= 100


async def test_early_acks_lose_messages(plan: Plan, seed: int) -> None:
    plan.prelude = EARLY_ACKS
    kinds = {name: FAULTS[name] for name in ("kill worker", "kill postgres")}
    report = await run(plan, seed, faults=4, seconds=15, kinds=kinds)
    assert report.account.lost, report.text()
    assert report.account.unexplained, report.text()


async def test_errors_taken_for_acceptance_lose_records(plan: Plan, seed: int) -> None:
    kinds = {name: FAULTS[name] for name in ("cut api-nats", "kill nats")}
    report = await run(plan, seed, faults=3, seconds=10, kinds=kinds, trust_errors=True)
    assert report.account.lost, report.text()
