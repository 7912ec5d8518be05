"""Dead letters on real servers, driven by keys: list, filter, edit, dry run, replay, undo, delete."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Static, TextArea

from conftest import LINE, ORDER, Deployment
from nomnom.envelope import Reason, dead_headers, dead_subject, new_message_id, read_envelope
from nomnom.envelope import headers as envelope_headers
from nomnom.grammar import Grammar
from nomnom.inspection.dead_letters.filters import error_shape
from nomnom.schema import load_schema
from nomnom_control.session.dead_letters import validate
from nomnom_tui.app.application import NomnomApp
from nomnom_tui.app.operations import OperationState
from nomnom_tui.screens.audit import AuditView
from nomnom_tui.screens.dead_letter import DeadLetterView
from nomnom_tui.screens.dead_letter_editor import DeadLetterEditorView
from nomnom_tui.screens.dead_letter_groups import DeadLetterGroupsView
from nomnom_tui.screens.dead_letters import DeadLettersView
from nomnom_tui.screens.dry_run import DryRunView
from nomnom_tui.text.error_line import error_line, failed_field
from nomnom_tui.text.styles import content
from nomnom_tui.widgets.dead_letter_filter import FilterDialog
from nomnom_tui.widgets.dialogs import ConfirmDialog, FormDialog
from tui.test_shell import notifications, until
from tui.test_streams import opened, own_home, text_of

__all__ = ["own_home"]
"""A fixture of the stream tests, needed here too."""

TIMEOUT = 15.0
RECEIVED = 1_700_000_000_000_000
BAD_DATE = "line 1, field o_orderdate (5): expected a date as YYYY-MM-DD, found '2024-02-30'"
BAD_KEY = "line 1, field o_orderkey (1): expected a whole number, found 'x'"


async def publish_dead_letters(
    deployment: Deployment, payloads: Sequence[str], error: str = BAD_DATE, entity: str = "orders"
) -> None:
    """Publish dead letters like a worker does."""
    from datetime import UTC, datetime

    for payload in payloads:
        message_id = new_message_id()
        subject = dead_subject(entity, message_id)
        envelope = read_envelope(subject, envelope_headers(RECEIVED, message_id), "messages.dlq")
        headers = dead_headers(envelope, Reason.RECORD, error, 3, datetime.now(UTC))
        await deployment.jetstream.publish(subject, payload.encode(), headers=headers)


def bad_orders(count: int, first: int = 1) -> list[str]:
    """Return orders with an invalid date."""
    return [
        ORDER.replace("|123|", f"|{number}|", 1).replace("2024-01-01", "2024-02-30")
        for number in range(first, first + count)
    ]


@asynccontextmanager
async def dead_letters(
    deployment: Deployment, *, readonly: bool = False, size: tuple[int, int] = (160, 40)
) -> AsyncIterator[tuple[NomnomApp, Pilot[int], DeadLettersView]]:
    """Open the app on the dead letters screen with its first page."""
    async with opened(deployment, "5", readonly=readonly, size=size) as (app, pilot):
        view = app.screen
        assert isinstance(view, DeadLettersView)
        await until(lambda: view._page, TIMEOUT)
        yield app, pilot, view


async def submit(app: NomnomApp, pilot: Pilot[int], field: str, text: str) -> None:
    """Fill a form field and submit the form."""
    await until(lambda: isinstance(app.screen, FormDialog), TIMEOUT)
    await pilot.pause()
    app.screen.query_one(f"#field-{field}", Input).value = text
    await pilot.pause()
    await pilot.press("enter")


async def pending(deployment: Deployment) -> list[str]:
    """Return the payloads in the message stream."""
    info = await deployment.jetstream.stream_info("MESSAGES")
    found = [
        await deployment.jetstream.get_msg("MESSAGES", sequence)
        for sequence in range(max(1, info.state.first_seq), info.state.last_seq + 1)
    ]
    return [(each.data or b"").decode() for each in found]


@pytest.mark.parametrize(
    ("payload", "field", "line"),
    [
        (bad_orders(1)[0], "o_orderdate", "o_orderdate  '2024-02-30'  expected a date as YYYY-MM-DD"),
        (ORDER.replace("|456|", "||"), "o_custkey", "o_custkey  nothing  expected a whole number"),
        (f"{bad_orders(1)[0]}\nX|1", "o_orderdate", "expected a date as YYYY-MM-DD  +1"),
        (f"{ORDER}\n{LINE.replace('|1|', '|; line 9|', 1)}", "l_linenumber", "line 2 l_linenumber  '; line 9'  exp"),
        ("O|1|2", None, "expected 9 fields after O, found 2"),
        ("X|1", None, "tag  'X'  expected one of the tags "),
        ("", None, "expected a record, found nothing"),
    ],
)
def test_error_line_starts_with_the_field(payload: str, field: str | None, line: str) -> None:
    """The error line has to parse the errors as the grammar formats them."""
    error = "; ".join(str(each) for each in validate(payload, Grammar(load_schema("tpch"))).problems)
    assert line in str(content(error_line(error)))
    assert failed_field(error) == field
    shape = str(content(error_line(error_shape(error))))
    assert "expected" in shape
    assert "…" not in shape, "the value found is not part of the error group"


async def test_list_and_detail_show_the_failed_field(deployment: Deployment) -> None:
    await publish_dead_letters(deployment, [*bad_orders(3), f"{bad_orders(1, 50)[0]}\n{LINE}"])
    async with dead_letters(deployment) as (app, pilot, view):
        assert [each.sequence for each in view._table.rows] == [4, 3, 2, 1]
        assert "o_orderdate  '2024-02-30'  expected a date as YYYY-MM-DD" in text_of(view._table)
        await until(lambda: "2024-02-30" in text_of(view._pane), TIMEOUT)
        await pilot.press("enter")
        dead_letter = app.screen
        assert isinstance(dead_letter, DeadLetterView)
        await until(lambda: dead_letter._dead_letter, TIMEOUT)
        shown = text_of(dead_letter._pane)
        assert "o_orderdate" in shown
        assert "✕ 2024-02-30" in shown
        assert "expected a date as YYYY-MM-DD" in shown
        assert "l_shipmode" in shown
        await pilot.press("v")
        assert ORDER.split("|")[-1] in text_of(dead_letter._pane)
        await pilot.press("escape")
        assert app.screen is view


async def test_paging_reaches_every_dead_letter(deployment: Deployment) -> None:
    await publish_dead_letters(deployment, bad_orders(230))
    async with dead_letters(deployment) as (_, pilot, view):
        assert [view._table.rows[0].sequence, view._table.rows[-1].sequence] == [230, 131]
        await pilot.press("right_square_bracket")
        await until(lambda: view._table.rows[0].sequence == 130, TIMEOUT)
        await pilot.press("G", "down")
        await until(lambda: view._table.rows[-1].sequence == 1, TIMEOUT)
        await pilot.press("left_square_bracket")
        await until(lambda: view._table.rows[0].sequence >= 130, TIMEOUT)
        await pilot.press("o")
        await until(lambda: view._table.rows[0].sequence == 1, TIMEOUT)


async def test_new_and_deleted_dead_letters_are_live(deployment: Deployment) -> None:
    async with dead_letters(deployment) as (_, _pilot, view):
        assert view._table.rows == ()
        await publish_dead_letters(deployment, bad_orders(2))
        await until(lambda: len(view._table.rows) == 2, TIMEOUT)
        await deployment.jetstream.delete_msg("MESSAGESDLQ", 1)
        await until(lambda: [each.sequence for each in view._table.rows] == [2], TIMEOUT)


async def test_filter_and_groups_select_dead_letters(deployment: Deployment) -> None:
    await publish_dead_letters(deployment, bad_orders(5))
    await publish_dead_letters(deployment, ["O|x|1"], BAD_KEY)
    async with dead_letters(deployment) as (app, pilot, view):
        await pilot.press("slash")
        await submit(app, pilot, "words", "reason:nonsense")
        assert isinstance(app.screen, FormDialog), "an invalid filter is not applied"
        await submit(app, pilot, "words", "o_orderkey")
        await until(lambda: [each.sequence for each in view._table.rows] == [6], TIMEOUT)
        view.filter("")
        await until(lambda: len(view._table.rows) == 6, TIMEOUT)
        await pilot.press("b")
        groups = app.screen
        assert isinstance(groups, DeadLetterGroupsView)
        await until(lambda: [each.count for each in groups._table.rows] == [5, 1], TIMEOUT)
        await pilot.press("b")
        await until(lambda: [each.key for each in groups._table.rows] == ["record"], TIMEOUT)
        await pilot.press("b", "b")
        await until(lambda: len(groups._table.rows) == 2, TIMEOUT)
        await pilot.press("down", "enter")
        assert app.screen is view
        await until(lambda: [each.sequence for each in view._table.rows] == [6], TIMEOUT)


async def test_group_narrows_the_active_filter(deployment: Deployment) -> None:
    await publish_dead_letters(deployment, bad_orders(3))
    await publish_dead_letters(
        deployment, bad_orders(2, 50), "line 1, field o_orderdate (5): expected a date, found '2024-06-31'"
    )
    await publish_dead_letters(
        deployment, ["L|1"], "line 1, field l_shipdate (11): expected a date, found 'x'", "lineitem"
    )
    async with dead_letters(deployment) as (app, pilot, view):
        for words, groups, rows in (("entity:orders 'a date'", [3, 2], 2), ("2024-06-31", [2], 2)):
            view.filter(words)
            await pilot.press("b")
            await until(lambda: isinstance(app.screen, DeadLetterGroupsView), TIMEOUT)
            shown = app.screen
            assert isinstance(shown, DeadLetterGroupsView)
            await until(lambda: [each.count for each in shown._table.rows] == groups, TIMEOUT)  # noqa: B023
            await pilot.press("end", "enter")
            await until(lambda: app.screen is view and view._turned is None, TIMEOUT)
            assert [each.sequence for each in view._table.rows] == [5, 4][:rows]


async def test_filter_counts_matches_while_typing(deployment: Deployment) -> None:
    await publish_dead_letters(deployment, bad_orders(4))
    await publish_dead_letters(deployment, ["O|x|1"], BAD_KEY)
    async with dead_letters(deployment) as (app, pilot, _):
        await pilot.press("slash")
        await until(lambda: isinstance(app.screen, FilterDialog), TIMEOUT)
        preview = app.screen.query_one("#preview", Static)
        await until(lambda: "5 of 5 match" in str(preview.render()), TIMEOUT)
        await pilot.press(*"o_orderkey")
        await until(lambda: "1 of 5 match" in str(preview.render()), TIMEOUT)
        await pilot.press("space", *"since:soon")
        await until(lambda: "match" not in str(preview.render()), TIMEOUT)


async def test_fix_fields_of_marked_dead_letters(deployment: Deployment) -> None:
    await publish_dead_letters(deployment, bad_orders(3))
    async with dead_letters(deployment) as (app, pilot, _):
        await pilot.press("space", "space", "m")
        await submit(app, pilot, "fields", "o_orderdate")
        assert isinstance(app.screen, FormDialog), "a field without a value is not accepted"
        await submit(app, pilot, "fields", "o_orderdate=2024-02-29")
        dry_run = app.screen
        assert isinstance(dry_run, DryRunView)
        await until(lambda: [each.outcome.value for each in dry_run._found] == ["completes"] * 2, TIMEOUT)
        await pilot.press("p")
        await until(lambda: isinstance(app.screen, ConfirmDialog), TIMEOUT)
        assert "--seq 2 --seq 3 --set o_orderdate=2024-02-29" in app.screen.change.command  # type: ignore[union-attr]
        await pilot.press("y")
        await until(lambda: app.operations and app.operations[-1].state is OperationState.DONE, TIMEOUT)
        assert sorted(await pending(deployment)) == sorted(
            each.replace("2024-02-30", "2024-02-29") for each in bad_orders(2, 2)
        )


async def test_replay_is_cancelled_and_resumed(
    deployment: Deployment,
) -> None:
    await publish_dead_letters(deployment, bad_orders(30))
    async with dead_letters(deployment) as (app, pilot, view):
        await pilot.press("P")
        await submit(app, pilot, "rate", "10")
        await until(lambda: isinstance(app.screen, ConfirmDialog), TIMEOUT)
        await pilot.press("y")
        await until(lambda: app.operations and "of 30" in app.operations[-1].steps[0].text, TIMEOUT)
        operation = app.operations[-1]
        await publish_dead_letters(deployment, ["O|x|1"], BAD_KEY)
        await pilot.press("escape")
        await until(lambda: view._table.rows and view._table.rows[0].sequence == 31, TIMEOUT)
        assert operation.running, (
            "the replay finished before the new dead letter was visible, so the test proves nothing"
        )
        await pilot.press("ctrl+o", "c")
        await until(lambda: operation.state is OperationState.CANCELLED, TIMEOUT)
        replayed = len(await pending(deployment))
        assert 0 < replayed < 30
        remaining = (await deployment.jetstream.stream_info("MESSAGESDLQ")).state.messages
        assert remaining == 31 - replayed, "each message is in exactly one stream"
        view.filter("o_orderdate")
        await pilot.press("escape")
        await until(lambda: view._page and view._page.matching == remaining - 1, TIMEOUT)
        await pilot.press("P")
        await submit(app, pilot, "rate", "")
        await until(lambda: isinstance(app.screen, ConfirmDialog), TIMEOUT)
        await pilot.press("y")
        await until(lambda: app.operations[-1].state is OperationState.DONE, TIMEOUT)
        assert sorted(await pending(deployment)) == sorted(bad_orders(30))
        await pilot.press("escape")
        view.filter("")
        await until(lambda: [each.sequence for each in view._table.rows] == [31], TIMEOUT)


async def test_edit_dry_run_and_replay(deployment: Deployment) -> None:
    await publish_dead_letters(deployment, bad_orders(1))
    async with dead_letters(deployment) as (app, pilot, _):
        await pilot.press("e")
        editor = app.screen
        assert isinstance(editor, DeadLetterEditorView)
        await until(lambda: editor._dead_letter, TIMEOUT)
        assert not editor._valid
        text = editor.query_one(TextArea)
        at = text.text.index("2024-02-30")
        text.replace("2024-02-29", (0, at), (0, at + 10))
        await until(lambda: editor._valid, TIMEOUT)
        assert "o_orderdate" in text_of(editor._difference)
        assert "2024-02-29" in text_of(editor._difference)
        await pilot.press("ctrl+t")
        dry_run = app.screen
        assert isinstance(dry_run, DryRunView)
        await until(lambda: [each.outcome.value for each in dry_run._found] == ["completes"], TIMEOUT)
        await pilot.press("escape")
        await until(lambda: app.screen is editor, TIMEOUT)
        await pilot.press("ctrl+s")
        await until(lambda: isinstance(app.screen, DeadLettersView), TIMEOUT)
        assert await pending(deployment) == [bad_orders(1)[0].replace("2024-02-30", "2024-02-29")]
        assert "nomnom dlq replay --seq 1 --edit" in notifications(app)


async def test_replay_of_an_invalid_payload_asks_for_confirmation(deployment: Deployment) -> None:
    await publish_dead_letters(deployment, bad_orders(1))
    async with dead_letters(deployment) as (app, pilot, view):
        await pilot.press("e")
        await until(lambda: isinstance(app.screen, DeadLetterEditorView) and app.screen._dead_letter, TIMEOUT)
        await pilot.press("ctrl+s")
        await until(lambda: isinstance(app.screen, ConfirmDialog), TIMEOUT)
        await pilot.press("n", "escape")
        await until(lambda: app.screen is view, TIMEOUT)
        assert await pending(deployment) == []


async def test_dry_run_and_replay_of_marked_and_matching_dead_letters(deployment: Deployment) -> None:
    await publish_dead_letters(deployment, bad_orders(4))
    await publish_dead_letters(deployment, ["O|x|1"], BAD_KEY)
    async with dead_letters(deployment) as (app, pilot, view):
        await pilot.press("down", "space", "space", "d")
        dry_run = app.screen
        assert isinstance(dry_run, DryRunView)
        await until(lambda: [each.outcome.value for each in dry_run._found] == ["fails", "fails"], TIMEOUT)
        await pilot.press("t")
        await until(lambda: dry_run._in_database and len(dry_run._found) == 2, TIMEOUT)
        await pilot.press("escape", "p")
        await until(lambda: isinstance(app.screen, ConfirmDialog), TIMEOUT)
        assert "nomnom dlq replay --seq 3 --seq 4" in app.screen.change.command  # type: ignore[union-attr]
        await pilot.press("y")
        await until(lambda: app.operations and app.operations[-1].state is OperationState.DONE, TIMEOUT)
        assert app.operations[-1].steps[0].text.startswith("2 replayed")
        await pilot.press("escape")
        await until(lambda: [each.sequence for each in view._table.rows] == [5, 2, 1], TIMEOUT)
        assert view._table.marked == set()
        view.filter("o_orderdate")
        await until(lambda: len(view._table.rows) == 2, TIMEOUT)
        await pilot.press("P")
        await submit(app, pilot, "rate", "50")
        await until(lambda: isinstance(app.screen, ConfirmDialog), TIMEOUT)
        await pilot.press("y")
        await until(lambda: len(app.operations) == 2 and app.operations[-1].state is OperationState.DONE, TIMEOUT)
        assert "--rate 50" in app.operations[-1].command
        assert len(await pending(deployment)) == 4


async def test_undo_a_replay_from_the_audit_log(deployment: Deployment) -> None:
    await publish_dead_letters(deployment, bad_orders(1))
    async with dead_letters(deployment) as (app, pilot, view):
        await pilot.press("p")
        await until(lambda: view._table.rows == (), TIMEOUT)
        await pilot.press("a")
        audit = app.screen
        assert isinstance(audit, AuditView)
        await until(lambda: len(audit._table.rows) == 1, TIMEOUT)
        assert "replayed" in text_of(audit._table)
        await pilot.press("u")
        await until(lambda: isinstance(app.screen, ConfirmDialog), TIMEOUT)
        await pilot.press("y")
        await until(lambda: len(audit._table.rows) == 2, TIMEOUT)
        await pilot.press("home", "u")
        assert "only a replay can be undone" in notifications(app)
        await pilot.press("escape")
        await until(lambda: len(view._table.rows) == 1, TIMEOUT)
        assert await pending(deployment) == []


async def test_delete_asks_for_confirmation(deployment: Deployment) -> None:
    await publish_dead_letters(deployment, bad_orders(3))
    async with dead_letters(deployment) as (app, pilot, view):
        await pilot.press("x")
        await until(lambda: isinstance(app.screen, ConfirmDialog), TIMEOUT)
        await pilot.press("n")
        await pilot.press("x")
        await until(lambda: isinstance(app.screen, ConfirmDialog), TIMEOUT)
        await pilot.press("y")
        await until(lambda: [each.sequence for each in view._table.rows] == [2, 1], TIMEOUT)
        await pilot.press("X")
        await until(lambda: isinstance(app.screen, ConfirmDialog), TIMEOUT)
        await pilot.press("y")
        assert isinstance(app.screen, ConfirmDialog), "deleting several dead letters requires typing their number"
        await pilot.press("backspace", "2", "enter")
        await until(lambda: view._table.rows == (), TIMEOUT)


async def test_read_only_session_changes_nothing(deployment: Deployment) -> None:
    await publish_dead_letters(deployment, bad_orders(1))
    async with dead_letters(deployment, readonly=True) as (app, pilot, view):
        await pilot.press("p", "x", "X", "P")
        assert app.screen is view
        await pilot.press("e")
        await until(lambda: isinstance(app.screen, DeadLetterEditorView) and app.screen._dead_letter, TIMEOUT)
        await pilot.press("ctrl+s")
        await pilot.pause()
        assert isinstance(app.screen, DeadLetterEditorView)
        assert await pending(deployment) == []


@pytest.mark.parametrize("size", [(80, 24), (200, 60)], ids=["80x24", "200x60"])
async def test_screens_fit_both_sizes(deployment: Deployment, size: tuple[int, int], tmp_path: Path) -> None:
    await publish_dead_letters(deployment, bad_orders(1))
    async with dead_letters(deployment, size=size) as (app, pilot, view):
        assert view.query_one("#preview").display == (size[0] >= 140)
        for key, kind in (("enter", DeadLetterView), ("e", DeadLetterEditorView)):
            await pilot.press(key)
            await until(lambda kind=kind: isinstance(app.screen, kind), TIMEOUT)  # type: ignore[misc]
            await pilot.pause()
            widths = [each.region.right for each in app.screen.query("*") if each.display and each.region.width]
            assert max(widths) <= size[0]
