"""Disturbs a pipeline and accounts for every accepted message: ``python -m tests.chaos --seed N --faults M``."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import sys
import tempfile
from pathlib import Path

from tests.chaos.disks import missing_for_disks
from tests.chaos.expiries import kill_expiries
from tests.chaos.parts import Parts, Plan
from tests.chaos.power import cut_power
from tests.chaos.runner import run
from tests.chaos.steps import Attempts, Operator, kill_deletions, kill_replays, kill_setups, kill_undos


def main() -> None:
    """Run, print the report, and exit with 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    parser.add_argument("--faults", type=int, default=0, help="number of faults")
    parser.add_argument("--seconds", type=float, default=3600, help="upper limit of the time for faults")
    parser.add_argument("--nodes", type=int, default=1, help="nats-servers: 1, or 3 as a cluster")
    parser.add_argument("--sync", default="always", help="sync_interval of nats-server")
    parser.add_argument("--power-cuts", type=int, default=0, help="number of power cuts; needs root and loop devices")
    parser.add_argument(
        "--steps", action="store_true", help="kill replay, undo, deletion, expiry and setup at every step"
    )
    parser.add_argument("--keep", action="store_true", help="keep the folder with the logs")
    options = parser.parse_args()
    if not (options.faults or options.power_cuts or options.steps):
        parser.error("give --faults, --power-cuts or --steps")
    sys.stderr.write(f"seed {options.seed}\n")
    folder = Path(tempfile.mkdtemp(prefix="nomnom-chaos-"))
    folder.chmod(0o755)
    good = True
    try:
        if options.faults:
            plan = Plan(folder / "faults", nodes=options.nodes, sync=options.sync)
            report = asyncio.run(run(plan, options.seed, options.faults, options.seconds, note=_note))
            sys.stdout.write(report.text() + "\n")
            good = report.good
        if options.steps:
            for attempts in asyncio.run(_kill_operations(folder / "steps", random.Random(options.seed))):
                sys.stdout.write(json.dumps(attempts.figures(), indent=2) + "\n")
                good = good and not attempts.problems
        if options.power_cuts:
            if reason := missing_for_disks():
                parser.error(f"no power cuts on this machine: {reason}")
            report = asyncio.run(
                cut_power(folder / "power", options.seed, options.power_cuts, sync=options.sync, note=_note)
            )
            sys.stdout.write(report.text() + "\n")
            good = good and report.good
    finally:
        if options.keep or not good:
            sys.stderr.write(f"logs: {folder}\n")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    sys.exit(0 if good else 1)


async def _kill_operations(folder: Path, chance: random.Random) -> list[Attempts]:
    """Kill each operation at all of its steps."""
    async with Parts(Plan(folder, apis=1, workers=1, housekeepers=0)) as parts:
        operator = Operator(parts, folder)
        found = [await kill(operator, chance) for kill in (kill_replays, kill_undos, kill_deletions, kill_expiries)]
    async with Parts(Plan(folder / "setup", apis=0, workers=0, housekeepers=0)) as parts:
        return [*found, await kill_setups(Operator(parts, folder / "setup"), chance)]


def _note(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    main()
