"""Where saved environments are kept. A module of its own: reading them loads libraries that few commands need."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def configuration_path() -> Path:
    """``NOMNOM_CLUSTERS``, else ``clusters.yaml`` in the user's configuration folder."""
    given = os.environ.get("NOMNOM_CLUSTERS")
    return Path(given) if given else platformdirs.user_config_path("nomnom") / "clusters.yaml"
