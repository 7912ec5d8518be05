"""The components' log files as one stream: existing lines, then new ones, across restarts and rotations."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from nomnom_control.environments import LogLine
from nomnom_control.environments.local.rotation import earlier_logs
from nomnom_control.environments.log_lines import parse_line

_POLL = 0.2
_LINE = 400


async def follow_logs(paths: Mapping[str, Path], *, follow: bool, tail: int | None) -> AsyncIterator[LogLine]:
    """The last ``tail`` lines of all files by time (None: all), then, with ``follow``, each new line."""
    positions: dict[str, int] = {}
    earlier: deque[LogLine] = deque()
    for name, path in paths.items():
        text, positions[name] = await asyncio.to_thread(_read_end, path, tail)
        earlier.extend(parse_line(name, line) for line in text)
    ordered = sorted(earlier, key=lambda each: each.at.timestamp() if each.at else 0.0)
    for each in ordered if tail is None else ordered[len(ordered) - min(tail, len(ordered)) :]:
        yield each
    while follow:
        for name, path in paths.items():
            lines, positions[name] = await asyncio.to_thread(_read, path, positions[name])
            for line in lines:
                yield parse_line(name, line)
        await asyncio.sleep(_POLL)


def _read_end(path: Path, tail: int | None) -> tuple[list[str], int]:
    """At least the last ``tail`` lines (None: all, rotated files included), and the offset of their end."""
    if tail is None:
        older = [line for each in earlier_logs(path) for line in _read(each, 0)[0]]
        lines, end = _read(path, 0)
        return older + lines, end
    if not path.exists():
        return [], 0
    size, length = path.stat().st_size, max(1, tail) * _LINE
    while True:
        start = max(0, size - length)
        lines, end = _read(path, start)
        if start == 0:
            return lines, end
        if len(lines) > tail:
            return lines[1:], end  # the first one may be incomplete
        length *= 4


def _read(path: Path, start: int) -> tuple[list[str], int]:
    """Complete lines from ``start`` on, and the offset of their end; from 0 if the file has become shorter."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(start if start <= size else 0)
            data = file.read()
            end = file.tell()
    except FileNotFoundError:
        return [], 0
    whole = data[: data.rfind(b"\n") + 1]
    return whole.decode(errors="replace").splitlines(), end - (len(data) - len(whole))
