"""Folders for the runs, which PostgreSQL's user can enter; kept if the test fails."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.parts import Plan


@pytest.fixture
def folder(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A new folder."""
    path = Path(tempfile.mkdtemp(prefix="nomnom-chaos-"))
    path.chmod(0o755)
    failed = request.session.testsfailed
    yield path
    if request.session.testsfailed == failed:
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def plan(folder: Path) -> Plan:
    """A pipeline with two APIs, two workers and one nats-server."""
    return Plan(folder)


@pytest.fixture
def seed() -> int:
    """The seed in NOMNOM_CHAOS_SEED, else a new one; it is printed."""
    chosen = int(os.environ.get("NOMNOM_CHAOS_SEED") or random.SystemRandom().randrange(10**9))
    print(f"NOMNOM_CHAOS_SEED={chosen}")  # noqa: T201 (pytest shows it if the test fails)
    return chosen
