"""A record's first problem as one line: the field and the value found, then what was expected."""

from __future__ import annotations

import re

from nomnom_tui.text.styles import Line, Style

_PROBLEM = re.compile(
    r"""line\ (?P<line>\d+|\#)
        (?:,\ field\ (?P<field>\S+?)(?:\ \((?:\d+|\#)\))?)?
        :\ (?P<expected>expected\ .*?)
        (?:,\ found\ (?P<found>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^';"]+))?
        (?P<others>;\ line\ .*)?""",
    re.VERBOSE | re.DOTALL,
)
"""The format of problems in nomnom.grammar, and of the error groups in dead_letters.filters."""


def failed_field(error: str) -> str | None:
    """Return the field of the error's first problem, or None if it does not concern a field."""
    found = _PROBLEM.fullmatch(error)
    return None if found is None or found["field"] in (None, "tag") else found["field"]


def error_line(error: str) -> Line:
    """Return the error as a line; a record's error starts with the field, as a narrow table truncates the rest."""
    found = _PROBLEM.fullmatch(error)
    if found is None:
        return error
    parts: list[tuple[str, Style]] = []
    if found["line"] not in ("1", "#"):
        parts.append((f"line {found['line']} ", Style.MUTED))
    value = found["found"] if found["found"] not in ("…", "#") else None
    if found["field"]:
        parts.append((found["field"], Style.STRONG))
        parts += [(f"  {value}", Style.BAD)] if value else []
        parts.append((f"  {found['expected']}", Style.MUTED))
    else:
        parts.append((found["expected"], Style.PLAIN))
        parts += [(f", found {value}", Style.MUTED)] if value else []
    if others := (found["others"] or "").count("; line "):
        parts.append((f"  +{others}", Style.MUTED))
    return parts
