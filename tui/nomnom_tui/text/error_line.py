"""A record's first problem on one line of a table: the field and what was found before what was expected."""

from __future__ import annotations

import re

from nomnom_tui.text.styles import Line, Style

_PROBLEM = re.compile(
    r"""line\ (?P<line>\d+|\#)
        (?:,\ field\ (?P<field>\S+?)(?:\ \((?:\d+|\#)\))?)?
        :\ (?P<said>expected\ .*?)
        (?:,\ found\ (?P<found>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^';"]+))?
        (?P<others>;\ line\ .*)?""",
    re.VERBOSE | re.DOTALL,
)
"""As nomnom.grammar words its problems, and as dead_letters.filters words what many of them have in common."""


def failed_field(error: str) -> str | None:
    """The field that the error's first problem is at, if it is at one."""
    found = _PROBLEM.fullmatch(error)
    return None if found is None or found["field"] in (None, "tag") else found["field"]


def error_line(error: str) -> Line:
    """The error; an error of a record with what matters first, since a narrow table shows no more."""
    found = _PROBLEM.fullmatch(error)
    if found is None:
        return error
    parts: list[tuple[str, Style]] = []
    if found["line"] not in ("1", "#"):
        parts.append((f"line {found['line']} ", Style.MUTED))
    what = found["found"] if found["found"] not in ("…", "#") else None
    if found["field"]:
        parts.append((found["field"], Style.STRONG))
        parts += [(f"  {what}", Style.BAD)] if what else []
        parts.append((f"  {found['said']}", Style.MUTED))
    else:
        parts.append((found["said"], Style.PLAIN))
        parts += [(f", found {what}", Style.MUTED)] if what else []
    if others := (found["others"] or "").count("; line "):
        parts.append((f"  +{others}", Style.MUTED))
    return parts
