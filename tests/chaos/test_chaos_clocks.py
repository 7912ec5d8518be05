"""Clocks that differ by hours, or jump, do not change which write is the last."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.account import Account, settle, take_account
from tests.chaos.clocks import Clock, missing_for_clocks
from tests.chaos.controls import NO_POSITIONS
from tests.chaos.load import Load
from tests.chaos.parts import Parts, Plan

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(bool(missing_for_clocks()), reason=missing_for_clocks()),
]


async def test_clocks_do_not_order_writes(folder: Path, seed: int) -> None:
    account = await _write_with_other_clocks(Plan(folder), seed)
    assert account.good, account.figures()


async def test_order_by_received_at_depends_on_the_clocks(folder: Path, seed: int) -> None:
    """A control: workers that know no positions decide by the time of acceptance."""
    account = await _write_with_other_clocks(Plan(folder, prelude=NO_POSITIONS), seed)
    assert any(each.startswith("row ") for each in account.wrong), account.figures()


async def _write_with_other_clocks(plan: Plan, seed: int) -> Account:
    """Write through two APIs whose clocks are hours apart, and jump."""
    clock = Clock(plan.folder / "clock", 2)
    plan.variables["api1"] = clock.variables
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
        return await take_account(parts, load.ledger)
