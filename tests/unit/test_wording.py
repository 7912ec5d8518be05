"""Every text that people read is plain technical English: phrases that readers have stumbled over do not return."""

from __future__ import annotations

import io
import re
import subprocess
import tokenize
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PHRASES = {
    r"\b(?:told|tells?)\b": "show, report, return or print",
    r"\bmend(?:s|ed|ing)?\b": "fix or repair",
    r"\bgravest\b": "most severe",
    r"\bof (?:now|before)\b": "current or previous",
    r"\bdata (?:stay|are|lie)\b": "data is (kept)",
    r"\bis no (?:cursor|file|id|kubeconfig|manifest|message|number|parameter|regular|time|valid)\b": "is not a valid …",
    r"\b[Ww]ho (?:scrolls|reads?|watches|holds|posts|asks|writes|installs)\b": "a user who …",
    r"\b(?:in front of|behind) (?:this|the) (?:sequence|cursor|message)\b": "before or after",
    r"\bgo(?:es|ing)? on\b": "continue or resume",
    r"\blook(?:ed|s|ing)? at\b": "check, scan, read or show",
    r"\btried out\b": "tested",
    r"\btroubles?\b": "error or problem",
    r"\b(?:the|each|many|this|these|its|every|newest|one|survives) letters?\b": "dead letter",
    r"\baway\b": "unavailable",
    r"\btaken back\b": "undone or rolled back",
}
"""Patterns of the phrases, and what to write instead."""

_CODE = re.compile(r"``[^`]*``|`[^`]*`|\{[^{}]*\}|https?://\S+|\w*[_./-]\w*[_./-]\w*")
"""What is not prose: code, placeholders, addresses, names with underscores, dots or dashes."""


SUFFIXES = (".md", ".ts", ".tsx", ".yaml", ".tpl", ".txt", ".gotmpl", ".toml", ".Dockerfile")
EXEMPT = ("constraints.txt", "CHANGELOG.md")


@cache
def _texts() -> list[tuple[str, int, str]]:
    """Every readable text outside the tests: file, line, text without code."""
    found: list[tuple[str, int, str]] = []
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in listed:
        if name.startswith("tests/") or name in EXEMPT:
            continue
        if name.endswith(".py"):
            for token in tokenize.generate_tokens(io.StringIO((ROOT / name).read_text()).readline):
                if token.type in (tokenize.STRING, tokenize.COMMENT):
                    lines = enumerate(token.string.splitlines(), token.start[0])
                    found += [(name, at, _CODE.sub(" ", line)) for at, line in lines]
        elif name.endswith(SUFFIXES):
            lines = enumerate((ROOT / name).read_text().splitlines(), 1)
            found += [(name, at, _CODE.sub(" ", line)) for at, line in lines]
    return found


@pytest.mark.parametrize("pattern", PHRASES)
def test_texts_avoid_phrase(pattern: str) -> None:
    phrase, found = re.compile(pattern), list[str]()
    for name, line, text in _texts():
        if phrase.search(text):
            found.append(f"{name}:{line}: {text.strip()[:140]}")
    assert not found, f"write {PHRASES[pattern]} instead:\n" + "\n".join(found[:40])


def test_the_check_reads_texts() -> None:
    """The check itself works: it reads every kind of file, and finds a phrase where there is one."""
    names = {name.rpartition(".")[2] for name, _, _ in _texts()}
    assert {"py", "md", "tsx", "yaml", "tpl"} <= names
    assert re.search(r"\b(?:told|tells?)\b", _CODE.sub(" ", "the page tells why"))
    assert not re.search(r"\b(?:told|tells?)\b", _CODE.sub(" ", "``tells``"))
