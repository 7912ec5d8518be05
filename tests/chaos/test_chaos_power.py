"""Power cuts lose nothing that was acknowledged; with lazy syncing, the same cuts do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.disks import missing_for_disks
from tests.chaos.power import cut_power

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(missing_for_disks()), reason=missing_for_disks()),
]
_CONTROL_CUTS = 4


async def test_power_cuts_lose_nothing(folder: Path, seed: int) -> None:
    report = await cut_power(folder, seed, 2)
    assert report.good, report.text()
    assert report.faults.total() == 2


async def test_power_cut_with_lazy_sync_loses_messages(folder: Path, seed: int) -> None:
    report = await cut_power(folder, seed, _CONTROL_CUTS, sync="2m")
    assert report.account.lost, report.text()


@pytest.mark.large
@pytest.mark.parametrize("option", ["fsync", "synchronous_commit"])
async def test_power_cut_with_lazy_postgres_loses_messages(folder: Path, seed: int, option: str) -> None:
    report = await cut_power(folder, seed, _CONTROL_CUTS, postgres={option: "off"})
    assert report.account.lost, report.text()
