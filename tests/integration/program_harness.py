"""Runs ``nomnom`` as a user does, on its own directory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from nomnom_control.environments.local.processes import INSTANCE


class Program:
    """``nomnom`` on the directory of a local instance."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "NOMNOM_HOME": str(folder), "COLUMNS": "200"}

    def __call__(self, *arguments: str, code: int | None = 0, given: str | None = None) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "nomnom_cli.program", *arguments],
            check=False, capture_output=True, text=True, env=self.environment, timeout=120, input=given,
        )  # fmt: skip
        assert code is None or done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done.stdout if "--json" in arguments else done.stdout + done.stderr

    def read(self, *arguments: str, code: int = 0, given: str | None = None) -> Any:
        return json.loads(self(*arguments, "--json", code=code, given=given))

    def processes(self) -> list[psutil.Process]:
        found: list[psutil.Process] = []
        for each in psutil.process_iter():
            try:
                if each.environ().get(INSTANCE) == str(self.folder):
                    found.append(each)
            except psutil.Error:
                continue
        return found


def until(check: Callable[[], bool], seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, f"timed out after {seconds:g}s"
        time.sleep(0.2)


@contextmanager
def started(name: str, *options: str, variables: Mapping[str, str] | None = None) -> Iterator[Program]:
    """A running instance, destroyed at the end."""
    folder = Path(tempfile.mkdtemp(prefix=f"nomnom-{name}-"))
    folder.chmod(0o755)
    program = Program(folder / "instance")
    program.environment |= variables or {}
    program("up", "--detach", *options)
    yield program
    program("destroy", "--yes")
    shutil.rmtree(folder)
