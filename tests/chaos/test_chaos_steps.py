"""Operations that are killed at any step can be run again: nothing is lost, doubled, or missing in the audit log."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.chaos.expiries import kill_expiries
from tests.chaos.parts import Parts, Plan
from tests.chaos.steps import Operator, kill_deletions, kill_replays, kill_setups, kill_undos

pytestmark = pytest.mark.timeout(300)
_SAMPLE = 2
"""Kill points of each operation; ``python -m tests.chaos --steps`` tries all of them."""


@pytest.fixture(scope="module")
async def operator() -> AsyncIterator[Operator]:
    """Operations on one pipeline with an API and a worker. No test leaves dead letters."""
    folder = Path(tempfile.mkdtemp(prefix="nomnom-chaos-"))
    folder.chmod(0o755)
    async with Parts(Plan(folder, apis=1, workers=1, housekeepers=0)) as parts:
        yield Operator(parts, folder)
    shutil.rmtree(folder, ignore_errors=True)


async def test_killed_replays_lose_nothing(operator: Operator, seed: int) -> None:
    attempts = await kill_replays(operator, random.Random(seed), _SAMPLE)
    assert attempts.killed
    assert not attempts.problems, attempts.figures()


async def test_killed_careless_replays_lose_dead_letters(operator: Operator) -> None:
    attempts = await kill_replays(operator, random.Random(1), 2, "fix-carelessly", r"STREAM\.MSG\.DELETE")
    assert any("status dlq" in each for each in attempts.problems), attempts.figures()


async def test_killed_undos_restore_each_dead_letter_once(operator: Operator, seed: int) -> None:
    attempts = await kill_undos(operator, random.Random(seed), _SAMPLE)
    assert attempts.killed
    assert not attempts.problems, attempts.figures()


@pytest.mark.large
async def test_killed_deletions_are_in_the_audit_log(operator: Operator, seed: int) -> None:
    attempts = await kill_deletions(operator, random.Random(seed), _SAMPLE)
    assert attempts.killed
    assert not attempts.problems, attempts.figures()


async def test_killed_expiries_leave_one_dead_letter_each(folder: Path, seed: int) -> None:
    async with Parts(Plan(folder, apis=1, workers=1, housekeepers=0)) as parts:
        attempts = await kill_expiries(Operator(parts, folder), random.Random(seed), _SAMPLE)
    assert attempts.killed
    assert not attempts.problems, attempts.figures()


async def test_killed_setups_are_completed_by_the_next(folder: Path, seed: int) -> None:
    async with Parts(Plan(folder, apis=0, workers=0, housekeepers=0)) as parts:
        attempts = await kill_setups(Operator(parts, folder), random.Random(seed), _SAMPLE)
    assert attempts.killed
    assert not attempts.problems, attempts.figures()
