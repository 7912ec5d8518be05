"""The settings of the program ``nomnom`` and of the local runtime."""

from __future__ import annotations

from typing import Annotated

from nomnom.settings.declaration import Declaration, about


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
