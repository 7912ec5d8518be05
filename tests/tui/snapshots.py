"""Snapshots of screens: SVG files for the documentation (docs/screens); tests compare text, position and style.

pytest-textual-snapshot is not used: it compares whole SVG files, which change with Textual's template, and it requires
an old pytest.
"""

from __future__ import annotations

import difflib
import html
import os
import re
from pathlib import Path

from nomnom_tui.app.application import NomnomApp

FOLDER = Path(__file__).parents[2] / "docs" / "screens"
WRITE = "NOMNOM_WRITE_SNAPSHOTS"

_TEXT = re.compile(r'<text class="(?P<style>[^"]*)" x="(?P<x>[\d.]+)" y="(?P<y>[\d.]+)"[^>]*>(?P<text>[^<]*)</text>')
_STYLE = re.compile(r"\.(?P<name>[\w-]+)\s*\{\s*(?P<rule>fill:[^}]*)\}")
_FONT_FACE = re.compile(r"@font-face\s*\{[^}]*\}")
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_IDENTITY = re.compile(r"terminal-\d+")


def snapshot(app: NomnomApp) -> str:
    """Return the screen as SVG, without parts that differ between runs and without URLs of fonts."""
    svg = _COMMENT.sub("", _FONT_FACE.sub("", app.export_screenshot(title="nomnom")))
    return re.sub(r"\n\s*\n+", "\n", _IDENTITY.sub("terminal", svg)) + "\n"


def texts(svg: str) -> list[tuple[float, float, str, str]]:
    """Return every text of a snapshot: its position, content and style."""
    styles = {found["name"]: " ".join(found["rule"].split()) for found in _STYLE.finditer(svg)}
    return sorted(
        (
            float(found["y"]),
            float(found["x"]),
            html.unescape(found["text"]).replace("\xa0", " "),
            styles.get(found["style"].split()[-1], ""),
        )
        for found in _TEXT.finditer(svg)
    )


def lines(svg: str) -> list[str]:
    """Return the text of a snapshot as lines, for readable failure messages."""
    rows: dict[float, str] = {}
    for y, x, text, _ in texts(svg):
        rows[y] = rows.get(y, "").ljust(round(x / 12.2)) + text
    return [rows[y].rstrip() for y in sorted(rows)]


def compare(app: NomnomApp, name: str) -> None:
    """Compare the screen with its stored snapshot; with NOMNOM_WRITE_SNAPSHOTS=1 store it instead."""
    current, path = snapshot(app), FOLDER / f"{name}.svg"
    if os.environ.get(WRITE) or not path.exists():
        assert os.environ.get(WRITE), f"{path} does not exist: check the screen, then store it with {WRITE}=1"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(current, encoding="utf-8")
        return
    stored = path.read_text(encoding="utf-8")
    assert texts(current), "the snapshot contains no text"
    for what, before, after in (
        ("text", lines(stored), lines(current)),
        ("style", [str(each) for each in texts(stored)], [str(each) for each in texts(current)]),
    ):
        changes = "\n".join(difflib.unified_diff(before, after, "stored", "current", lineterm="", n=1))
        assert not changes, f"the {what} of {name} differs; if this is intended, run with {WRITE}=1\n{changes}"
