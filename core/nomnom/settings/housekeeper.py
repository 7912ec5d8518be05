"""The settings of the housekeeper."""

from __future__ import annotations

from typing import Annotated

import msgspec

from nomnom.settings.common import Settings
from nomnom.settings.declaration import Port, Seconds, about

_Days = Annotated[float, msgspec.Meta(ge=1, le=36_500)]


class HousekeeperSettings(Settings, frozen=True, kw_only=True, rename=str.upper):
    """Retention of tables, and intervals. The maximum ages of messages and dead letters are settings of the setup."""

    housekeeper_interval: Annotated[Seconds, about("Time between two searches for what is too old", "s")] = 10.0
    housekeeper_batch: Annotated[
        int, msgspec.Meta(ge=1, le=1000), about("Maximum messages or dead letters moved at once", "messages")
    ] = 200
    housekeeper_status_days: Annotated[
        _Days, about("Retention of message statuses; those of unfinished messages are kept longer", "days")
    ] = 30
    housekeeper_archive_days: Annotated[_Days, about("Retention of archived dead letters", "days")] = 90
    housekeeper_audit_days: Annotated[_Days, about("Retention of the audit log", "days")] = 365
    housekeeper_query_seconds: Annotated[Seconds, about("Timeout of a SQL statement", "s")] = 60.0
    housekeeper_grace: Annotated[Seconds, about("Grace period for the task in progress after SIGTERM", "s")] = 10.0
    housekeeper_health_host: Annotated[str, about("Listen address of /health, /ready and /metrics")] = "0.0.0.0"  # noqa: S104 (probes and scrapers are outside the container)
    housekeeper_health_port: Annotated[Port, about("Listen port of /health, /ready and /metrics; 0: any free port")] = (
        8082
    )
