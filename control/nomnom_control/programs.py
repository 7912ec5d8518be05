"""Run external programs (helm, kind, docker) and stream their output line by line."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from nomnom_control.errors import ControlError

_GRACE = 10.0
_SHOWN = 12
_LINE = 1024 * 1024


class ProgramError(ControlError):
    """A program is missing, took too long, or failed; the text includes the last lines of its output."""


async def run_lines(
    command: Sequence[str], *, limit: float, variables: Mapping[str, str] | None = None, folder: Path | None = None
) -> AsyncIterator[str]:
    """The lines that a program writes to stdout and stderr. Raises ProgramError.

    Closing the iterator terminates the program with SIGTERM, so that it can clean up.
    """
    process = await _start(command, variables, folder, asyncio.subprocess.STDOUT)
    assert process.stdout is not None
    last: deque[str] = deque(maxlen=_SHOWN)
    try:
        async with asyncio.timeout(limit):
            while line := await process.stdout.readline():
                # A progress bar overwrites its line with carriage returns: keep its last state.
                text = line.decode(errors="replace").rstrip().rpartition("\r")[2]
                if text:
                    last.append(text)
                    yield text
            code = await process.wait()
    except TimeoutError:
        raise ProgramError(_failure(command, f"timed out after {limit:g}s", last)) from None
    finally:
        await _end(process)
    if code:
        raise ProgramError(_failure(command, f"failed with exit code {code}", last))


async def run_text(command: Sequence[str], *, limit: float = 30.0, variables: Mapping[str, str] | None = None) -> str:
    """The standard output of a short program. Raises ProgramError."""
    process = await _start(command, variables, None, asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(limit):
            output, errors = await process.communicate()
    except TimeoutError:
        raise ProgramError(_failure(command, f"timed out after {limit:g}s", [])) from None
    finally:
        await _end(process)
    if process.returncode:
        lines = errors.decode(errors="replace").splitlines()[-_SHOWN:]
        raise ProgramError(_failure(command, f"failed with exit code {process.returncode}", lines))
    return output.decode(errors="replace")


async def _start(
    command: Sequence[str], variables: Mapping[str, str] | None, folder: Path | None, errors: int
) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **(variables or {})},
            cwd=folder,
            limit=_LINE,
            start_new_session=True,
        )
    except OSError as error:
        reason = error.strerror or str(error)
        raise ProgramError(
            f"cannot run {command[0]}: {reason}; install it, or set NOMNOM_{Path(command[0]).name.upper()} to its path"
        ) from error


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(_GRACE):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _failure(command: Sequence[str], what: str, lines: Sequence[str] | deque[str]) -> str:
    output = "\n".join(f"  {each}" for each in lines)
    return f"{' '.join(command[:3])} {what}" + (f":\n{output}" if output else " (no output)")
