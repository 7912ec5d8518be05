"""The shape of the imports: no circles, and nothing heavy before it is needed."""

from __future__ import annotations

import subprocess
import sys
from graphlib import CycleError, TopologicalSorter

import grimp
import pytest

SERVICES = ("nomnom_api", "nomnom_worker", "nomnom_dashboard", "nomnom_housekeeper")
PACKAGES = ("nomnom", *SERVICES, "nomnom_control", "nomnom_cli", "nomnom_tui")


def test_no_module_imports_itself_through_others() -> None:
    graph = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(imports) > 200
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail(f"circular import: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("nomnom_cli.application", {"asyncpg", "nats", "aiohttp", "kubernetes", "rich", "textual"}),
        ("nomnom_tui.app.terminal", {"asyncpg", "nats", "aiohttp", "kubernetes", "plotext", "cyclopts"}),
        ("nomnom_control.environments.catalog", {"asyncpg", "nats", "aiohttp", "kubernetes", "yaml"}),
        ("nomnom", {"asyncpg", "nats", "blacksheep"}),
    ],
)
def test_starting_imports_no_heavy_library(module: str, unwanted: set[str]) -> None:
    """Help, completion and the first paint wait for every library that is imported at the top."""
    program = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert not unwanted & set(loaded.stdout.split())
