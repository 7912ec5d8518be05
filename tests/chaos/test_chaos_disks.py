"""Full disks: what was accepted is kept, nothing more is accepted, and the pipeline works again when there is room."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from nomnom_control.session.audit.spool import Spool
from tests.chaos.account import settle, take_account
from tests.chaos.disks import SmallDisk, missing_for_disks
from tests.chaos.load import Load
from tests.chaos.parts import Parts, Plan

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(missing_for_disks()), reason=missing_for_disks()),
]
_RECOVERY = 60.0
_FULL = "no space left on device"


async def _fill_under_load(parts: Parts, disk: SmallDisk, seed: int, server: str) -> Load:
    """Fill the disk of a server under load and free it again; restart the server, as its supervisor would."""
    load = Load(lambda: [f"http://127.0.0.1:{each.port}" for each in parts.apis], seed, clients=4)
    load.pause, part = 0.01, parts.part(server)
    load.start()
    try:
        assert await load.until_accepted(50, _RECOVERY)
        disk.fill()
        # Whether or not more is accepted now, the account has to be right.
        async with asyncio.timeout(_RECOVERY):
            while _FULL not in part.process.log.read_text().lower():
                load.check()
                await asyncio.sleep(0.1)
        await asyncio.sleep(2)
        disk.empty()
        await part.kill()
        await parts.restore()
        assert await load.until_accepted(20, _RECOVERY), "nothing is accepted after there is room again"
    finally:
        await load.stop()
    assert await settle(parts)
    return load


async def test_full_disk_of_nats_loses_nothing(folder: Path, seed: int) -> None:
    async with SmallDisk(folder / "small", 32) as disk:
        plan = Plan(folder, apis=1, workers=1, nats_store=disk.folder)
        async with Parts(plan) as parts:
            load = await _fill_under_load(parts, disk, seed, "nats")
            account = await take_account(parts, load.ledger)
    assert account.good, account.figures()


async def test_spool_on_full_disk_keeps_whole_lines(folder: Path) -> None:
    lines = [bytes([each]) * 3000 for each in b"abc"]
    async with SmallDisk(folder / "small", 1) as disk:
        spool = Spool(disk.folder / "audit", "session")
        spool.write(lines[:1])
        disk.fill()
        with pytest.raises(OSError, match="No space left"):
            spool.write([lines[1], lines[1]])
        disk.empty()
        spool.write(lines[2:])
        assert spool.read() == [lines[0], lines[2]]
        spool.close()


async def test_full_disk_of_postgres_loses_nothing(folder: Path, seed: int) -> None:
    async with SmallDisk(folder / "small", 400) as disk:
        plan = Plan(folder, apis=1, workers=1, postgres_store=disk.folder)
        async with Parts(plan) as parts:
            load = await _fill_under_load(parts, disk, seed, "postgres")
            account = await take_account(parts, load.ledger)
    assert account.good, account.figures()
