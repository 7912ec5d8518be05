"""A clock of its own for a process: libfaketime, preloaded, reads its offset from a file.

Time that only goes forward (CLOCK_MONOTONIC) is real, as after a jump of a machine's clock.
"""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path


def _library() -> Path | None:
    spec = find_spec("libfaketime")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "vendor" / "libfaketime" / "src" / "libfaketime.so.1"


@cache
def missing_for_clocks() -> str:
    """What prevents clocks of one's own on this machine; empty if nothing does."""
    library = _library()
    if library is None or not library.exists():
        return "libfaketime is not installed"
    program = [sys.executable, "-c", "import time; print(time.time())"]
    variables = {"LD_PRELOAD": str(library), "FAKETIME": "@2000-01-01 00:00:00", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    done = subprocess.run(program, env=variables, check=False, capture_output=True, text=True, timeout=20)
    works = done.returncode == 0 and float(done.stdout) < 1e9
    return "" if works else f"libfaketime has no effect here: {done.stderr.strip()}"


class Clock:
    """The clock of a process that is started with :attr:`variables`."""

    def __init__(self, file: Path, hours: float) -> None:
        self._file = file
        self.move(hours)

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that give a process this clock."""
        return {
            "LD_PRELOAD": str(_library()),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def move(self, hours: float) -> None:
        """Set the offset to the real time, in hours."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{hours:+g}h\n")
        new.replace(self._file)
