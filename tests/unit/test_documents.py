"""The documentation: links, pictures and diagrams exist, and the commands in it are valid."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import nomnom
from nomnom_cli.application import app
from nomnom_cli.program import _app_options

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("helm/*/*.md")])
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]
DIAGRAMS = sorted(path.stem for path in (ROOT / "docs" / "diagrams").glob("*.dot"))
FENCED = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")
INLINE = re.compile(r"`(nomnom [^`]+)`")
OPTION = re.compile(r"(?<![\w-])--?[a-z][a-z-]*")


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", FENCED.sub("", document.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def fenced_commands(text: str) -> Iterator[str]:
    """The calls of nomnom in code blocks: lines of shell scripts, and lines after a prompt."""
    for block in FENCED.finditer(text):
        prompt = "" if block["language"] == "sh" else "$ "
        yield from re.findall(rf"^{re.escape(prompt)}(nomnom .*)$", block["text"], re.MULTILINE)


def split(command: str) -> list[str]:
    """The arguments of a call of nomnom, up to a redirection."""
    tokens = shlex.split(command.replace("\\|", "|"), comments=True)[1:]
    return tokens[: tokens.index(">")] if ">" in tokens else tokens


def options(command: list[str]) -> set[str]:
    """The options of a command."""
    _, chain, _ = app.parse_commands(command)
    return {"--help"} | {name for each in chain[-1].assemble_argument_collection() for name in each.names}


def check(command: str) -> None:
    """Raise AssertionError if there is no such command or option."""
    tokens = split(command)
    if _app_options(tokens) is not None or tokens[0] in ("--help", "COMMAND"):
        return
    _, chain, rest = app.parse_commands(tokens)
    subcommands = [each for each in chain[-1] if not each.startswith("-")]
    assert not (subcommands and rest), f"{command!r}: unknown command, expected one of {subcommands}"
    unknown = {each.partition("=")[0] for each in rest if OPTION.match(each)} - options(tokens)
    assert not unknown, f"{command!r}: unknown options {unknown}"


@pytest.mark.parametrize("name", NAMES)
def test_links_and_pictures_exist(name: str) -> None:
    document = ROOT / name
    targets = LINK.findall(FENCED.sub("", document.read_text()))
    for target in targets:
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (document.parent / path).resolve() if path else document
        assert found.exists(), f"{name}: {target} does not exist"
        if anchor:
            assert anchor in anchors(found), f"{name}: {target}: no such heading"


@pytest.mark.parametrize("name", NAMES)
def test_commands_exist(name: str) -> None:
    text = (ROOT / name).read_text()
    for command in INLINE.findall(FENCED.sub("", text)):
        check(command)
    for command in fenced_commands(text):
        check(command)
        if _app_options(split(command)) is None:
            app.parse_args(split(command), exit_on_error=False, print_error=False)


def test_guide_names_existing_options() -> None:
    rows = re.findall(r"^\| `(nomnom [^`]+)` \| (.+) \|$", (ROOT / "docs" / "commands.md").read_text(), re.MULTILINE)
    assert len(rows) > 40
    for command, purpose in rows:
        own = INLINE.sub("", purpose)
        named = {option for code in re.findall(r"`([^`]+)`", own) for option in OPTION.findall(code)}
        unknown = named - options(split(command))
        assert not unknown, f"{command}: unknown options {unknown}"


@pytest.mark.parametrize(
    "command", ["nomnom dlq mend", "nomnom stauts", "nomnom dlq replay --al", "nomnom kind create --x"]
)
def test_an_invalid_command_is_detected(command: str) -> None:
    with pytest.raises(AssertionError, match="unknown"):
        check(command)


@pytest.mark.parametrize("name", DIAGRAMS)
def test_diagram_is_rendered_from_its_source(name: str) -> None:
    source, rendered = (ROOT / "docs" / "diagrams" / f"{name}{suffix}" for suffix in (".dot", ".svg"))
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    assert digest in rendered.read_text(), "run docs/diagrams/render"


def test_every_document_is_reachable_from_the_readme() -> None:
    reachable = {ROOT / "README.md"}
    pending = list(reachable)
    while pending:
        document = pending.pop()
        links = [target.partition("#")[0] for target in LINK.findall(document.read_text())]
        found = {(document.parent / each).resolve() for each in links if each.endswith(".md") and ":" not in each}
        pending += found - reachable
        reachable |= found
    assert set(DOCUMENTS) <= reachable


def test_the_chart_has_the_version_of_the_package() -> None:
    chart = yaml.safe_load((ROOT / "helm" / "nomnom" / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == nomnom.__version__
    assert nomnom.__version__ in (ROOT / "CHANGELOG.md").read_text()
