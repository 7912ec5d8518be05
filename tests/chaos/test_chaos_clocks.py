"""Clocks that differ by hours, or jump, do not change which write is the last."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.account import settle, take_account
from tests.chaos.clocks import Clock, missing_for_clocks
from tests.chaos.load import Load
from tests.chaos.parts import Parts, Plan

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(bool(missing_for_clocks()), reason=missing_for_clocks()),
]


@pytest.mark.xfail(strict=True, reason="rows are ordered by received_at, which depends on the clocks of the APIs")
async def test_clocks_do_not_order_writes(folder: Path, seed: int) -> None:
    clock = Clock(folder / "clock", 2)
    plan = Plan(folder, variables={"api1": clock.variables})
    async with Parts(plan) as parts:
        load = Load(lambda: [f"http://127.0.0.1:{each.port}" for each in parts.apis], seed)
        load.start()
        try:
            for hours in (2, -2, 0):
                clock.move(hours)
                assert await load.until_accepted(200, 60)
        finally:
            await load.stop()
        assert await settle(parts)
        account = await take_account(parts, load.ledger)
    assert account.good, account.figures()
