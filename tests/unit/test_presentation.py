"""Signs, labels and formats: one definition for the command line, the app and the page."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from nomnom.envelope import Reason, Status
from nomnom.grammar import Grammar
from nomnom.presentation import figures
from nomnom.presentation.marks import CAUSES, HEALTHS, STATUSES, STEPS, SUPERSEDED, Health, Step
from nomnom.presentation.terminal import printable
from nomnom.presentation.typescript import words
from nomnom.schema import load_schema
from nomnom_cli import command_line, output
from nomnom_cli.commands import dlq
from nomnom_control.environments import Progress
from nomnom_control.errors import ControlError
from nomnom_control.session.dead_letters.editing import validate

WEB = Path(__file__).parents[2] / "services" / "dashboard" / "web" / "src"
NOW = datetime(2024, 1, 2, tzinfo=UTC)
FUNCTIONS: dict[str, Any] = {
    "count": figures.count,
    "estimate": lambda number: figures.approximate_count(number, exact=False),
    "short": figures.short_count,
    "rate": figures.rate,
    "size": figures.size,
    "duration": figures.duration,
    "age": lambda seconds: figures.ago(NOW - timedelta(seconds=seconds)),
    "clock": lambda local: figures.clock(datetime.fromisoformat(local)),
    "moment": lambda local: figures.moment(datetime.fromisoformat(local)),
}
CASES: dict[str, list[list[Any]]] = json.loads((WEB / "format.cases.json").read_text())


@pytest.mark.parametrize(("name", "value", "text"), [(name, *case) for name in CASES for case in CASES[name]])
def test_python_formats_as_the_page_does(name: str, value: Any, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "present", lambda: NOW)
    assert FUNCTIONS[name](value) == text


def test_the_page_has_these_words() -> None:
    assert (WEB / "generated" / "words.ts").read_text() == words(), (
        "run: python -m nomnom.presentation > services/dashboard/web/src/generated/words.ts"
    )


def test_every_state_has_a_sign_of_its_own() -> None:
    assert (set(STATUSES), set(HEALTHS), set(STEPS), set(CAUSES)) == (set(Status), set(Health), set(Step), set(Reason))
    for marks in ([*STATUSES.values(), SUPERSEDED], list(HEALTHS.values())):
        assert len({each.sign for each in marks}) == len({each.label for each in marks}) == len(marks)


@given(st.text())
def test_printable_text_has_no_character_that_a_terminal_obeys(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert len(shown) == len(text)
    assert printable(shown) == shown


@pytest.mark.parametrize(
    "hostile", ["\x1b]0;title\x07", "\x1b[2J", "\x9b31m", "\r", "\x7f", "\u202e", "\u2028", "\x00"]
)
def test_printable_shows_a_dot_for_each_of_them(hostile: str) -> None:
    assert printable(f"a{hostile}b|é漢") == "a" + "".join(c if c.isprintable() else "·" for c in hostile) + "b|é漢"
    assert "·" in printable(hostile)
    assert printable("a\nb\x1b", keep="\n") == "a\nb·"


HOSTILE = "\x1b]0;owned\x07\x1b]52;c;ZXZpbA==\x1b\\\x1b[2J\x9b31m\u202e[bold]x[/bold]"


def controls(output: str) -> set[str]:
    return {each for each in output if not each.isprintable()} - {"\n"}


@pytest.mark.parametrize("unfolds", [False, True])
def test_tables_and_lines_show_hostile_text_without_obeying_it(
    unfolds: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "results", lambda: Console(highlight=False, width=40))
    columns = [output.Column("A"), output.Column("B", grows=True), output.Column("C" * 40)]
    output.show_table(columns, [(HOSTILE, output.styled(HOSTILE, "red"), "c\nd")], "nothing", unfolds=unfolds)
    output.print_result(HOSTILE, "bold")
    output.print_result(output.status(Status.DLQ).append(HOSTILE))
    output.print_note(HOSTILE)
    output.print_properties([figures.Property("State", HOSTILE, HOSTILE)])
    for state in Step:
        output.show_step(Progress(HOSTILE, state, HOSTILE, 1.5))
    shown = capsys.readouterr()
    assert controls(shown.out + shown.err) == set()
    assert "[bold]x[/bold]" in shown.out


@pytest.mark.parametrize("encode", [output.as_json, output.as_json_line])
def test_json_escapes_what_a_terminal_obeys(encode: Any, capsys: pytest.CaptureFixture[str]) -> None:
    encode({"payload": HOSTILE.encode(), HOSTILE: [HOSTILE, "é漢"]})
    shown = capsys.readouterr().out
    assert controls(shown) == set()
    assert json.loads(shown) == {"payload": HOSTILE, HOSTILE: [HOSTILE, "é漢"]}
    assert "é漢" in shown


def test_a_hostile_dead_letter_is_described_without_obeying_it(capsys: pytest.CaptureFixture[str]) -> None:
    payload = f"O|{HOSTILE}|1|F|1.00|x".encode()
    texts = dict.fromkeys(("message_id", "entity", "reason", "error", "envelope_problem"), HOSTILE)
    numbers = {"sequence": 1, "attempts": 3, "replays": 1, "size": len(payload)}
    dlq.describe(SimpleNamespace(**texts, **numbers, received_at=NOW, failed_at=NOW))
    dlq.draw_validation(validate(payload, Grammar(load_schema("tpch"))))
    shown = capsys.readouterr()
    assert controls(shown.out + shown.err) == set()
    assert "owned" in shown.out


def test_an_error_is_printed_without_obeying_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> None:
        raise ControlError(HOSTILE)

    monkeypatch.setattr("nomnom_cli.application.app", fail)
    with pytest.raises(SystemExit):
        command_line.main(["status"])
    assert controls(capsys.readouterr().err) == set()
