"""What nomnom has written to its own files is there after a power cut; without syncing, it is not."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tests.chaos.disks import Disk, missing_for_disks
from tests.chaos.writing import READERS, WRITERS

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(bool(missing_for_disks()), reason=missing_for_disks()),
]
_WRITES = 50


async def _write_until_cut(disk: Disk, kind: str, *options: str) -> int:
    """Cut the power while a program writes; returns the number of the last write that it reported before."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.chaos.writing", kind, str(disk.folder), *options,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    written = 0
    try:
        async with asyncio.timeout(30):
            while written < _WRITES:
                line = await process.stdout.readline()
                assert line, "the program ended"
                written = int(line)
        disk.cut_power()
    finally:
        process.kill()
        await process.communicate()
    await disk.restore_power()
    return written


@pytest.mark.parametrize("kind", WRITERS)
async def test_files_survive_a_power_cut(folder: Path, kind: str) -> None:
    async with Disk(folder / "disk.img", folder / "disk", megabytes=64) as disk:
        written = await _write_until_cut(disk, kind)
        assert READERS[kind](disk.folder) >= written


@pytest.mark.parametrize("kind", WRITERS)
async def test_files_written_without_sync_do_not(folder: Path, kind: str) -> None:
    async with Disk(folder / "disk.img", folder / "disk", megabytes=64) as disk:
        written = await _write_until_cut(disk, kind, "carelessly")
        assert READERS[kind](disk.folder) < written
