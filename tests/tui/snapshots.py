"""Pictures of screens: an SVG for people (docs/screens), and what is compared: each text, its place and its colour.

Not pytest-textual-snapshot: it compares whole SVG files, which change with Textual's template, and wants an old pytest.
"""

from __future__ import annotations

import difflib
import html
import os
import re
from pathlib import Path

from nomnom_tui.app.application import NomnomApp

FOLDER = Path(__file__).parents[2] / "docs" / "screens"
WRITE = "NOMNOM_WRITE_PICTURES"

_TEXT = re.compile(r'<text class="(?P<style>[^"]*)" x="(?P<x>[\d.]+)" y="(?P<y>[\d.]+)"[^>]*>(?P<text>[^<]*)</text>')
_STYLE = re.compile(r"\.(?P<name>[\w-]+)\s*\{\s*(?P<rule>fill:[^}]*)\}")
_FONT_FACE = re.compile(r"@font-face\s*\{[^}]*\}")
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_IDENTITY = re.compile(r"terminal-\d+")


def snapshot(app: NomnomApp) -> str:
    """The screen as SVG, without what differs from run to run and without addresses of fonts elsewhere."""
    svg = _COMMENT.sub("", _FONT_FACE.sub("", app.export_screenshot(title="nomnom")))
    return re.sub(r"\n\s*\n+", "\n", _IDENTITY.sub("terminal", svg)) + "\n"


def seen(svg: str) -> list[tuple[float, float, str, str]]:
    """Every text of a picture: its place, itself, its style."""
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
    """The picture's text, for a message that people can read."""
    rows: dict[float, str] = {}
    for y, x, text, _ in seen(svg):
        rows[y] = rows.get(y, "").ljust(round(x / 12.2)) + text
    return [rows[y].rstrip() for y in sorted(rows)]


def compare(app: NomnomApp, name: str) -> None:
    """Compare the screen with its stored picture; with NOMNOM_WRITE_PICTURES=1 store it instead."""
    now, path = snapshot(app), FOLDER / f"{name}.svg"
    if os.environ.get(WRITE) or not path.exists():
        assert os.environ.get(WRITE), f"there is no {path}: look at the screen, then write it with {WRITE}=1"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(now, encoding="utf-8")
        return
    stored = path.read_text(encoding="utf-8")
    assert seen(now), "the picture has no text"
    for what, before, after in (
        ("text", lines(stored), lines(now)),
        ("style", [str(each) for each in seen(stored)], [str(each) for each in seen(now)]),
    ):
        changes = "\n".join(difflib.unified_diff(before, after, "stored", "now", lineterm="", n=1))
        assert not changes, f"the {what} of {name} is different; if that is right: {WRITE}=1\n{changes}"
