"""Programs that control runs: helm, kind, docker. Their lines come as they are written."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from nomnom_control.errors import ControlError

_GRACE = 10.0
_TOLD = 12
_LINE = 1024 * 1024


class ProgramError(ControlError):
    """A program that is missing, took too long, or ended with an error; the text has its last lines."""


async def run_lines(
    command: Sequence[str], *, limit: float, variables: Mapping[str, str] | None = None, folder: Path | None = None
) -> AsyncIterator[str]:
    """The lines that a program writes, its errors among them; raises ProgramError.

    Closing the iterator ends the program: it is asked to first, so that it can put away what it began.
    """
    process = await _start(command, variables, folder, asyncio.subprocess.STDOUT)
    assert process.stdout is not None
    last: deque[str] = deque(maxlen=_TOLD)
    try:
        async with asyncio.timeout(limit):
            while line := await process.stdout.readline():
                # Progress bars go back to the line's beginning: what they end with counts.
                text = line.decode(errors="replace").rstrip().rpartition("\r")[2]
                if text:
                    last.append(text)
                    yield text
            code = await process.wait()
    except TimeoutError:
        raise ProgramError(_failure(command, f"took more than {limit:g} s", last)) from None
    finally:
        await _end(process)
    if code:
        raise ProgramError(_failure(command, f"ended with code {code}", last))


async def run_text(command: Sequence[str], *, limit: float = 30.0, variables: Mapping[str, str] | None = None) -> str:
    """What a short program writes to its standard output; raises ProgramError."""
    process = await _start(command, variables, None, asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(limit):
            output, errors = await process.communicate()
    except TimeoutError:
        raise ProgramError(_failure(command, f"took more than {limit:g} s", [])) from None
    finally:
        await _end(process)
    if process.returncode:
        lines = errors.decode(errors="replace").splitlines()[-_TOLD:]
        raise ProgramError(_failure(command, f"ended with code {process.returncode}", lines))
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
            f"{command[0]} cannot be run ({reason}): install it, or name it with NOMNOM_{Path(command[0]).name.upper()}"
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
    said = "\n".join(f"  {each}" for each in lines)
    return f"{' '.join(command[:3])} {what}" + (f":\n{said}" if said else "; it wrote nothing")
