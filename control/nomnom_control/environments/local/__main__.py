"""The supervisor as a process: ``python -m nomnom_control.environments.local --dir DIR``. It prints progress as JSON
lines.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path

import msgspec

from nomnom.errors import NomnomError
from nomnom.settings import Settings
from nomnom.telemetry import configure_logging
from nomnom_control.environments import Progress
from nomnom_control.environments.local.environment import ERROR
from nomnom_control.environments.local.instance import PORTS, Instance
from nomnom_control.environments.local.supervisor import Supervisor


async def _run(supervisor: Supervisor) -> None:
    def report(each: Progress) -> None:
        sys.stdout.buffer.write(msgspec.json.encode(each) + b"\n")
        sys.stdout.flush()

    async def ready() -> None:
        sys.stdout.buffer.write(b"ready\n")
        sys.stdout.flush()
        # The parent process stops reading now: later output goes to the log only.
        log = os.open(supervisor.instance.log("supervisor"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, supervisor.interrupt)
    await supervisor.run(report, ready)


def main() -> None:
    """Run one local instance until SIGTERM, SIGINT, or 'nomnom down'."""
    parser = argparse.ArgumentParser(prog="python -m nomnom_control.environments.local", description=__doc__)
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--schema")
    parser.add_argument("--port", action="append", default=[], metavar="NAME=PORT", help=", ".join(PORTS))
    parser.add_argument("--policy", action="append", default=[], metavar="FIELD=NUMBER", help="of the scaling policy")
    given = parser.parse_args()
    ports = {name: int(value) for name, _, value in (each.partition("=") for each in given.port)}
    policy = {name: float(value) for name, _, value in (each.partition("=") for each in given.policy)}
    configure_logging("supervisor", Settings(log_format="json"))
    try:
        asyncio.run(_run(Supervisor(Instance(given.dir), given.schema, ports, policy)))
    except NomnomError as error:
        sys.stdout.buffer.write(ERROR + msgspec.json.encode(str(error)) + b"\n")
        raise SystemExit(1) from error


main()
