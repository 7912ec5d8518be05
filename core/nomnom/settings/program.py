"""The settings of the program ``nomnom`` and of the local runtime."""

from __future__ import annotations

import re
from typing import Annotated

from nomnom.settings.declaration import Declaration, about

SYNC_ALWAYS = "always"
_DURATION = re.compile(r"[1-9][0-9]*(ms|s|m|h)").fullmatch


def _check_sync_interval(text: str) -> None:
    if text != SYNC_ALWAYS and _DURATION(text) is None:
        raise ValueError(f"expected {SYNC_ALWAYS} or a duration such as 2m")


class ProgramSettings(Declaration, frozen=True, kw_only=True, rename=str.upper):
    """Where the program keeps its files, and which environment it uses."""

    nomnom_home: Annotated[
        str, about("Folder of the local environment; empty: the user's data folder, /var/lib/nomnom for root")
    ] = ""
    nomnom_env: Annotated[str, about("Environment of commands without --env; empty: that of nomnom env use")] = ""
    nomnom_clusters: Annotated[
        str, about("File with saved environments; empty: clusters.yaml in the user's configuration folder")
    ] = ""
    nomnom_tui_settings: Annotated[
        str, about("File with the app's keys and theme; empty: tui.toml in the user's configuration folder")
    ] = ""
    nomnom_nats_sync_interval: Annotated[
        str,
        about(
            "When the nats-server of the local environment writes to disk (fsync). always: before it acknowledges. A "
            "duration, such as 2m, is faster, but a power failure loses what was acknowledged within that time",
            expects="always or a duration such as 2m",
            check=_check_sync_interval,
        ),
    ] = SYNC_ALWAYS
