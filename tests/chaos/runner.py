"""A run: load, seeded faults, and an account at the end."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.account import Account, settle, take_account
from tests.chaos.faults import CLUSTER_FAULTS, FAULTS, Fault
from tests.chaos.load import Load
from tests.chaos.parts import Parts, Plan

_RECOVERY = 60.0
_PROGRESS = 5
_OVERLAP = 2
"""Number of faults at the same time."""


@dataclass
class Report:
    """The result of a run."""

    seed: int
    faults: Counter[str] = field(default_factory=Counter[str])
    posts: int = 0
    accepted: int = 0
    answers: Mapping[str, int] = field(default_factory=dict[str, int])
    stalls: list[str] = field(default_factory=list[str])
    """Faults after which nothing was accepted for a minute."""
    settled: bool = True
    """Whether all messages were processed in the end."""
    account: Account = field(default_factory=Account)
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Whether every promise was kept."""
        return self.account.good and self.settled and not self.stalls

    def text(self) -> str:
        """The report as JSON."""
        return json.dumps(self.figures(), indent=2)

    def figures(self) -> dict[str, Any]:
        """The report as a mapping."""
        return {
            "seed": self.seed,
            "good": self.good,
            "faults": {"total": self.faults.total(), **dict(sorted(self.faults.items()))},
            "posts": self.posts,
            "accepted": self.accepted,
            "answers": dict(self.answers),
            "stalls": self.stalls,
            "settled": self.settled,
            "account": self.account.figures(),
            "seconds": round(self.seconds, 1),
        }


async def run(
    plan: Plan,
    seed: int,
    faults: int,
    seconds: float,
    *,
    kinds: Mapping[str, Fault] | None = None,
    trust_errors: bool = False,
    note: Callable[[str], None] = lambda _: None,
) -> Report:
    """Run ``faults`` faults under load, none begun after ``seconds``, then restore everything and take the account.

    ``kinds`` are the faults to draw from. ``note`` gets a line per fault.
    """
    report, started = Report(seed), time.monotonic()
    chosen = kinds or (CLUSTER_FAULTS if plan.nodes > 1 else FAULTS)
    async with Parts(plan) as parts:
        load = Load(lambda: [f"http://127.0.0.1:{each.port}" for each in parts.apis], seed, trust_errors=trust_errors)
        load.start()
        try:
            await load.until_accepted(_PROGRESS, _RECOVERY)
            disturber = _Disturber(report, chosen, faults, time.monotonic() + seconds, note)
            async with asyncio.TaskGroup() as disturbers:
                for number in range(_OVERLAP):
                    own = random.Random(f"{seed} faults {number}")
                    disturbers.create_task(disturber.disturb(parts, load, own))
        finally:
            await parts.restore()
            await load.stop()
        report.settled = await settle(parts)
        report.account = await take_account(parts, load.ledger)
    ledger = load.ledger
    report.posts, report.accepted, report.answers = ledger.posts, len(ledger.accepted), ledger.answers
    report.seconds = time.monotonic() - started
    return report


@dataclass
class _Disturber:
    report: Report
    kinds: Mapping[str, Fault]
    limit: int
    deadline: float
    note: Callable[[str], None]
    _begun: int = 0

    async def disturb(self, parts: Parts, load: Load, chance: random.Random) -> None:
        """One fault after another; each kind once before any is repeated."""
        names: list[str] = []
        while self._begun < self.limit and time.monotonic() < self.deadline:
            self._begun += 1
            names = names or chance.sample(sorted(self.kinds), len(self.kinds))
            name = names.pop()
            self.note(f"{self._begun}: {name}")
            await self.kinds[name](parts, chance)
            self.report.faults[name] += 1
            if not await load.until_accepted(_PROGRESS, _RECOVERY):
                self.report.stalls.append(name)
                self.note(f"nothing was accepted within {_RECOVERY:g} s after: {name}")
