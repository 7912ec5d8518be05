"""Power cuts: everything that a pipeline stores is on one disk, whose power is cut under load, again and again."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.chaos.account import settle, take_account
from tests.chaos.disks import Disk
from tests.chaos.load import Ledger, Load
from tests.chaos.parts import PartError, Parts, Plan
from tests.chaos.runner import Report

_LEAST = 40
_WAIT = 60.0


async def cut_power(
    folder: Path,
    seed: int,
    cuts: int,
    *,
    sync: str = "always",
    postgres: dict[str, str] | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> Report:
    """Cut the power ``cuts`` times, each time under load, and take the account after each.

    ``sync`` is nats-server's sync_interval, ``postgres`` replaces PostgreSQL's parameters. Stops at the first cut after
    which something is lost. A server that does not start any more has lost everything.
    """
    report, chance, started = Report(seed), random.Random(seed), time.monotonic()
    async with Disk(folder / "disk.img", folder / "disk") as disk:
        plan = Plan(folder, store=disk.folder, sync=sync, postgres=dict(postgres or {}), apis=1, workers=1)
        parts = Parts(plan)
        load = Load(lambda: [f"http://127.0.0.1:{each.port}" for each in parts.apis], seed)
        async with parts:
            # What setup and initdb have written is on disk: only the pipeline's own writes are at stake.
            await disk.sync()
            while report.faults.total() < cuts and report.good:
                kind = await _cut_once(parts, disk, load, chance)
                report.faults[kind] += 1
                note(f"cut {report.faults.total()} after {time.monotonic() - started:.1f} s: {kind}")
                await disk.restore_power()
                try:
                    await parts.restore()
                except PartError as error:
                    report.account.lost.append(f"everything: {error}")
                    break
                report.settled = await settle(parts)
                report.account = await take_account(parts, load.ledger)
    ledger = load.ledger
    report.posts, report.accepted, report.answers = ledger.posts, len(ledger.accepted), Counter(ledger.answers)
    report.seconds = time.monotonic() - started
    return report


async def _cut_once(parts: Parts, disk: Disk, load: Load, chance: random.Random) -> str:
    """Cut the power at a random moment under load; returns the kind of moment."""
    load.start()
    paused = chance.random() < 0.5
    kind = "power cut with pending messages" if paused else "power cut"
    moment: Ledger | None = None
    try:
        if paused:
            # Then only nats-server holds what is accepted.
            for each in parts.workers:
                each.signal_all(signal.SIGSTOP)
        if not await load.until_accepted(_LEAST + chance.randrange(3 * _LEAST), _WAIT):
            raise AssertionError(f"fewer than {_LEAST} records were accepted within {_WAIT:g} s")
        moment = load.ledger.copy()
        disk.cut_power()
    finally:
        await parts.kill_all()
        await load.abandon()
    # A 202 that arrived after the cut began may or may not have been true.
    load.ledger.forget_after(moment)
    return kind
