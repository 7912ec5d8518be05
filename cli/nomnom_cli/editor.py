"""Editing text in the user's editor."""

from __future__ import annotations

import asyncio
import os
import shlex
import tempfile
from pathlib import Path

from nomnom_control.errors import ControlError


class EditorError(ControlError):
    """The editor cannot be run, or it failed."""


async def edit_text(content: bytes, name: str) -> bytes:
    """Open ``content`` in $VISUAL or $EDITOR (default: vi) and return what was saved; raises EditorError.

    A final newline that the editor added is removed.
    """
    command = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
    with tempfile.TemporaryDirectory(prefix="nomnom-") as folder:
        path = Path(folder) / name
        await asyncio.to_thread(path.write_bytes, content)
        try:
            process = await asyncio.create_subprocess_exec(*command, str(path))
            code = await process.wait()
        except OSError as error:
            raise EditorError(f"{command[0]} cannot be started ({error.strerror}); set EDITOR") from error
        if code != 0:
            raise EditorError(f"{command[0]} exited with code {code}; nothing was changed")
        edited = await asyncio.to_thread(path.read_bytes)
    return edited if content.endswith(b"\n") else edited.removesuffix(b"\n")
