"""The text of one line: where its fields begin and end, and their escapes.

A line is ``TAG|field|…``. Within a field ``\\|`` stands for a bar and ``\\\\`` for a backslash.
"""

from __future__ import annotations

import re

_TOKEN = re.compile(r"\\.|\|", re.DOTALL)
_ESCAPE = re.compile(r"\\(.?)", re.DOTALL)


def split_line(line: str) -> list[tuple[int, int]]:
    """Start and end of each field, split at the bars that no backslash escapes. A line has at least one field."""
    bars = [token.start() for token in _TOKEN.finditer(line) if token[0] == "|"]
    return list(zip([0, *(at + 1 for at in bars)], [*bars, len(line)], strict=True))


def escape(text: str) -> str:
    """A field's text as it stands in a line."""
    return text.replace("\\", "\\\\").replace("|", "\\|")


def unescape(field: str) -> str:
    """The text of a field; a backslash that escapes nothing is kept."""
    return _ESCAPE.sub(lambda found: found[1] if found[1] in ("|", "\\") else found[0], field)


def invalid_escape(field: str) -> str | None:
    """The first backslash that is followed by neither a bar nor a backslash, with what follows it."""
    return next((found[0] for found in _ESCAPE.finditer(field) if found[1] not in ("|", "\\")), None)
