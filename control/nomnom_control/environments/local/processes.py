"""A child process: started with its output in a log file, and stopped gracefully."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nomnom_control.errors import ControlError

INSTANCE = "NOMNOM_INSTANCE"
"""Set in every child's environment to the directory of its instance: a later run finds leftover processes by it."""


_INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV")
_INHERITED_PREFIXES = ("LC_", "PYTHON", "LD_", "DYLD_", "SSL_CERT_")
_ROUTINE = re.compile(r"\b(LOG|INFO|NOTICE|DEBUG\d?):  (?!.*could not)|\[(INF|DBG|TRC)\]|\"level\": ?\"(info|debug)\"")
"""Lines of PostgreSQL, nats-server and nomnom that report no problem."""
_SHOWN = 12


def inherited() -> dict[str, str]:
    """What every child gets of this process's environment: what programs and libraries need, and no settings.

    A setting in the shell would reach some children and not the setup, which runs in this process.
    """
    return {
        name: value for name, value in os.environ.items() if name in _INHERITED or name.startswith(_INHERITED_PREFIXES)
    }


class ProcessError(ControlError):
    """A child process did not start, or exited unexpectedly; the text includes the end of its log."""


@dataclass(slots=True)
class ChildProcess:
    """One program. It runs in its own session: Ctrl-C reaches only the supervisor, which stops gracefully."""

    name: str
    command: Sequence[str]
    log: Path
    variables: Mapping[str, str] = field(default_factory=dict[str, str])
    """Beside those of :func:`inherited`."""
    stop_signal: signal.Signals = signal.SIGTERM
    user: int | None = None
    """Run as this user id (requires root); None: as the current user."""
    folder: Path | None = None
    _process: asyncio.subprocess.Process | None = None
    _begin: int = 0

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
            self._begin = output.tell()
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *self.command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env={**inherited(), **self.variables},
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
        """The error of a process that ended by itself, with the problems that it logged since its start."""
        return ProcessError(f"{self.name} ended with exit code {self.exit_code}{self.problems()}")

    def problems(self) -> str:
        """What the process logged since its start, without routine lines, to be appended to an error."""
        if not self.log.exists():
            return f"; it wrote nothing to {self.log}"
        with self.log.open("rb") as log:
            # A rotated log is shorter than it was: all of it is newer.
            log.seek(self._begin if self._begin <= log.seek(0, os.SEEK_END) else 0)
            lines = log.read().decode(errors="replace").splitlines()
        chosen = [each for each in lines if not _ROUTINE.search(each)] or lines
        if not chosen:
            return f"; it wrote nothing to {self.log}"
        return "\n  ".join([f" ({self.log}):", *chosen[-_SHOWN:]])
