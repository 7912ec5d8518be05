"""``nomnom-housekeeper``."""

from __future__ import annotations

import sys

import uvloop

from nomnom.errors import NomnomError
from nomnom.settings import HousekeeperSettings
from nomnom.telemetry import configure_logging
from nomnom_housekeeper.service import run


def main() -> None:
    """Run the housekeeper, configured by environment variables."""
    try:
        settings = HousekeeperSettings.from_environment()
        configure_logging("housekeeper", settings)
        uvloop.run(run(settings))
    except NomnomError as error:
        print(f"nomnom-housekeeper: {error}", file=sys.stderr)  # noqa: T201 (logging may not be configured yet)
        sys.exit(1)


if __name__ == "__main__":
    main()
