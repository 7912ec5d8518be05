"""``nomnom-worker``."""

from __future__ import annotations

import gc
import sys

import uvloop

from nomnom.errors import NomnomError
from nomnom.settings import WorkerSettings
from nomnom.telemetry import configure_logging
from nomnom_worker.service import run


def main() -> None:
    """Run one worker, configured by environment variables."""
    try:
        settings = WorkerSettings.from_environment()
        configure_logging("worker", settings)
        # Most of what a batch allocates is freed with it: looking for cycles in it costs 10 % (tests.bench worker).
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        uvloop.run(run(settings))
    except NomnomError as error:
        print(f"nomnom-worker: {error}", file=sys.stderr)  # noqa: T201 (logging may not be configured yet)
        sys.exit(1)


if __name__ == "__main__":
    main()
