"""``nomnom dlq dry-run``, ``replay``, ``undo`` and ``delete``."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, TypeAlias

from cyclopts import Parameter
from cyclopts.validators import Number

from nomnom.presentation import figures
from nomnom_cli.commands.dlq import Matching, draw_validation, require
from nomnom_cli.commands.rollouts import read_pairs
from nomnom_cli.exit_codes import Exit
from nomnom_cli.options import Flag, Json, Target, Yes, open_pipeline
from nomnom_cli.prompts import UsageError, confirm

if TYPE_CHECKING:
    from nomnom_control.session.dead_letters import Edit, Replay, ReplayProgress
    from nomnom_control.session.pipeline import Pipeline

_Chosen: TypeAlias = Annotated[
    str,
    Parameter(
        help="Sequences (`nomnom dlq ls`), or a filter expression: entity:orders reason:record since:2h, or words "
        "of the error."
    ),
]
_Sequences: TypeAlias = Annotated[
    tuple[int, ...],
    Parameter(name="--seq", negative="", help="Dead letter by sequence. Repeatable.", show_default=False),
]
_All: TypeAlias = Annotated[Flag, Parameter(name="--all", help="All dead letters.")]
_Set: TypeAlias = Annotated[
    tuple[str, ...],
    Parameter(name="--set", negative="", show_default=False, help="Set this field before the replay. Repeatable."),
]
_SHOWN = 20


async def dry_run(
    *wanted: _Chosen,
    seq: _Sequences = (),
    changes: _Set = (),
    deep: Flag = False,
    which: Matching | None = None,
    json: Json = False,
    target: Target | None = None,
) -> None:
    """Predict the result of a replay; nothing is changed.

    Parameters
    ----------
    deep
        Also write each dead letter's rows to PostgreSQL, in a transaction that is rolled back.
    """
    from nomnom_cli.output import Column, as_json, print_note, show_table
    from nomnom_control.session.dead_letters import forecast

    async with open_pipeline(target) as pipeline:
        selection = await _select(pipeline, wanted, seq, which, everything=not (wanted or seq))
        found = [
            each async for part in pipeline.dead_letters.dry_run(selection, _edit(changes), deep=deep) for each in part
        ]
    if json:
        as_json([asdict(each) for each in found])
        return
    columns = (Column("DEAD LETTER", right=True), Column("ENTITY"), Column("OUTCOME"), Column("REASON", grows=True))
    rows = [(str(each.sequence), each.entity, each.outcome.value, each.detail) for each in found]
    show_table(columns, rows, "no dead letters match")
    if len(found) > 1:
        counted = forecast(found).outcomes
        print_note(", ".join(f"{number:,} {outcome.value}" for outcome, number in counted.items()))


async def replay(
    *wanted: _Chosen,
    seq: _Sequences = (),
    everything: _All = False,
    changes: _Set = (),
    edit: Flag = False,
    rate: Annotated[float | None, Parameter(validator=Number(gt=0), show_default=False)] = None,
    which: Matching | None = None,
    yes: Yes = False,
    json: Json = False,
    target: Target | None = None,
) -> Exit:
    """Send dead letters to the workers again. After Ctrl-C, run the same command to resume.

    Parameters
    ----------
    edit
        Open a single dead letter in $EDITOR, show the changes, validate them, then ask for confirmation.
    rate
        Maximum dead letters per second.
    """
    async with open_pipeline(target) as pipeline:
        selection = await _select(pipeline, wanted, seq, which, everything=everything)
        change = await _edited(pipeline, selection, changes, yes=yes) if edit else _edit(changes)
        if not selection:
            from nomnom_cli.output import print_note

            print_note("no dead letters match", "dim")
            return Exit.OK
        run = await pipeline.dead_letters.replay(selection, change, rate=rate)
        if len(selection) > 1:
            confirm(
                f"Replay {len(selection):,} dead letters?",
                [f"{len(selection):,} dead letters will be published again (`nomnom dlq undo` reverts it)"],
                yes=yes,
            )
        return await _run(run, json=json)


async def _run(run: Replay, *, json: bool) -> Exit:
    from nomnom_cli.output import as_json, print_note, print_result
    from nomnom_control.session.dead_letters import Result

    try:
        await _watch(run, quiet=json)
    except asyncio.CancelledError:
        print_note(f"stopped after {run.progress.done:,} of {run.total:,}; run the same command to resume")
        raise
    finally:
        done = run.progress
        if json:
            as_json(
                {
                    "run": run.run,
                    "total": run.total,
                    "done": done.done,
                    "counts": {each.value: done.counts.get(each, 0) for each in Result},
                    "failures": [asdict(each) for each in run.failures],
                    "unaudited": len(run.unaudited),
                    "seconds": round(done.seconds, 3),
                }
            )
        else:
            counts = ", ".join(f"{number:,} {result.value}" for result, number in done.counts.items() if number)
            print_result(counts or "nothing was replayed")
            for each in run.failures[:_SHOWN]:
                print_note(f"dead letter {each.sequence}: {each.detail}", "red")
            if len(run.failures) > _SHOWN:
                print_note(f"{len(run.failures) - _SHOWN:,} more failed", "red")
            if done.counts.get(Result.REPLAYED):
                print_note(f"to revert it: nomnom dlq undo --run {run.run}", "dim")
    if not run.failures:
        return Exit.OK
    return Exit.PARTLY if len(run.failures) < run.total else Exit.FAILED


async def _watch(run: Replay, *, quiet: bool) -> None:
    from nomnom_cli.output import errors, interactive

    if quiet or not interactive() or run.total < 2:
        await run.finish()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("replay"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=errors(), expand=True, transient=True) as bar:
        task = bar.add_task("", total=run.total, rate="")

        def draw(now: ReplayProgress) -> None:
            bar.update(task, completed=now.done, rate=figures.rate(now.rate))

        async for now in run:
            draw(now)


async def undo(
    *,
    message: Annotated[str | None, Parameter(show_default=False)] = None,
    run: Annotated[str | None, Parameter(show_default=False)] = None,
    json: Json = False,
    target: Target | None = None,
) -> Exit:
    """Undo a replay that no worker has processed yet: of one message, or of a whole run.

    Parameters
    ----------
    message
        The message ID.
    run
        The run ID printed by `nomnom dlq replay` or `nomnom dlq audit`.
    """
    from nomnom.envelope import parse_message_id
    from nomnom_cli.output import Column, as_json, show_table
    from nomnom_control.session.dead_letters import UndoResult

    if (message is None) == (run is None):
        raise UsageError("specify what to undo: --message or --run")
    if parse_message_id(message or run or "") is None:
        raise UsageError(f"{message or run!r} is not a valid ID: expected a UUID")
    async with open_pipeline(target) as pipeline:
        found = await pipeline.dead_letters.undo(message_id=message, run=run)
    if json:
        as_json([asdict(each) for each in found])
    else:
        columns = (Column("MESSAGE"), Column("RESULT"), Column("DEAD LETTER", right=True), Column("", grows=True))
        rows = [(each.message_id, each.result.value, str(each.dead_letter or ""), each.detail) for each in found]
        show_table(columns, rows, "nothing to undo")
    undone = sum(each.result is UndoResult.UNDONE for each in found)
    return Exit.OK if undone == len(found) else Exit.PARTLY if undone else Exit.FAILED


async def delete(
    *wanted: _Chosen,
    seq: _Sequences = (),
    everything: _All = False,
    which: Matching | None = None,
    yes: Yes = False,
    json: Json = False,
    target: Target | None = None,
) -> None:
    """Delete dead letters permanently; the audit log keeps a record of each."""
    from nomnom_cli.output import as_json, print_note, print_result

    async with open_pipeline(target) as pipeline:
        selection = await _select(pipeline, wanted, seq, which, everything=everything)
        if not selection:
            print_note("no dead letters match", "dim")
            return
        confirm(
            f"Delete {len(selection):,} dead letters?",
            [f"{len(selection):,} dead letters (never processed) will be lost"],
            yes=yes,
        )
        done = await pipeline.dead_letters.delete(selection, expected_count=len(selection))
    if json:
        as_json({"run": done.run, "deleted": done.deleted, "gone": done.gone})
    else:
        print_result(f"{done.deleted:,} deleted" + (f", {done.gone:,} had been removed already" if done.gone else ""))


async def _select(
    pipeline: Pipeline, wanted: Sequence[str], sequences: Sequence[int], which: Matching | None, *, everything: bool
) -> list[int]:
    """The sequences of the selected dead letters; raises UsageError if nothing is selected."""
    numbers = {int(each) for each in wanted if each.isdecimal()}
    filtered = (which or Matching()).filter(" ".join(each for each in wanted if not each.isdecimal()))
    if numbers or sequences:
        if not filtered.empty or everything:
            raise UsageError("pass either sequences or a filter, not both")
        return sorted({*numbers, *sequences})
    if filtered.empty and not everything:
        raise UsageError("select dead letters: by sequence, by a filter, or with --all")
    return await pipeline.dead_letters.matching(filtered)


def _edit(changes: Sequence[str]) -> Edit | None:
    from nomnom_control.session.dead_letters import Edit

    return Edit(fields=read_pairs(tuple(changes))) if changes else None


async def _edited(pipeline: Pipeline, selection: Sequence[int], changes: Sequence[str], *, yes: bool) -> Edit:
    """The payload as edited by the user, shown and confirmed."""
    from nomnom_cli.editor import edit_text
    from nomnom_cli.output import print_note, print_result
    from nomnom_control.session.dead_letters import Edit

    if changes or len(selection) != 1:
        raise UsageError("--edit takes exactly one dead letter and excludes --set")
    dead_letter = require(await pipeline.dead_letters.dead_letter(selection[0]), selection[0])
    before = dead_letter.payload or b""
    after = await edit_text(before, f"dead-letter-{dead_letter.sequence}.txt")
    difference = pipeline.dead_letters.diff(before, after)
    if difference.empty:
        print_note("nothing was changed", "dim")
    for each in difference.changes or ():
        print_result(f"line {each.line}, {each.field}: {each.before!r} → {each.after!r}")
    for each in () if difference.changes is not None else difference.lines:
        print_result(each, "red" if each.startswith("-") else "green" if each.startswith("+") else "dim")
    validation = pipeline.dead_letters.validate(after)
    if validation.valid:
        print_note("the payload matches the schema", "green")
    else:
        draw_validation(validation)
        print_note("the payload does not match the schema: it will become a dead letter again", "yellow")
    confirm(f"Replay dead letter {dead_letter.sequence} as edited?", [], yes=yes)
    return Edit(payload=after)
