"""A child process: started with its output in a log file, and stopped gracefully."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nomnom_control.errors import ControlError

INSTANCE = "NOMNOM_INSTANCE"
"""Set in every child's environment to the directory of its instance: a later run finds leftover processes by it."""


class ProcessError(ControlError):
    """A child process did not start, or exited unexpectedly; the text includes the end of its log."""


@dataclass(slots=True)
class ChildProcess:
    """One program. It runs in its own session: Ctrl-C reaches only the supervisor, which stops gracefully."""

    name: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    stop_signal: signal.Signals = signal.SIGTERM
    user: int | None = None
    """Run as this user id (requires root); None: as the current user."""
    folder: Path | None = None
    _process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """The running process's id."""
        return self._process.pid if self._process and self._process.returncode is None else None

    @property
    def exit_code(self) -> int | None:
        """The exit code of the last process (negative: the signal); None while it runs and before it started."""
        return self._process.returncode if self._process else None

    async def start(self) -> None:
        """Start the program; its output is appended to the log. Raises ProcessError if it cannot be executed."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *self.command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env={**os.environ, **self.environment},
                    cwd=self.folder,
                    start_new_session=True,
                    user=self.user,
                    group=self.user,
                    extra_groups=None if self.user is None else [],
                )
            except OSError as error:
                raise ProcessError(f"cannot start {self.name} ({self.command[0]}): {error}") from error

    async def wait(self) -> int:
        """Wait until the process exits; returns the exit code."""
        assert self._process is not None, "not started"
        return await self._process.wait()

    def send(self, number: signal.Signals) -> None:
        """Send a signal if the process is still running."""
        if self._process and self._process.returncode is None:
            self._process.send_signal(number)

    async def stop(self, grace: float) -> int | None:
        """Send the stop signal, wait ``grace`` seconds, then kill the process; returns its exit code."""
        if self._process is None:
            return None
        self.send(self.stop_signal)
        try:
            async with asyncio.timeout(grace):
                return await self.wait()
        except TimeoutError:
            self.send(signal.SIGKILL)
            return await self.wait()

    def failure(self) -> ProcessError:
        """The error of a process that ended, with the last lines it wrote."""
        lines = self.log.read_text(errors="replace").splitlines()[-8:] if self.log.exists() else []
        tail = "\n  ".join(lines) or "(it wrote nothing)"
        return ProcessError(f"{self.name} ended with code {self.exit_code}; the end of {self.log}:\n  {tail}")
