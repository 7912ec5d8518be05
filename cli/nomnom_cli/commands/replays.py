"""``nomnom dlq dry-run``, ``replay``, ``undo`` and ``delete``: what changes dead letters."""

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
from nomnom_cli.options import Flag, Json, Where, Yes, open_pipeline
from nomnom_cli.prompts import UsageError, confirm

if TYPE_CHECKING:
    from nomnom_control.session.dead_letters import Edit, Replay, ReplayProgress
    from nomnom_control.session.pipeline import Pipeline

_Chosen: TypeAlias = Annotated[
    str,
    Parameter(
        help="Sequences (nomnom dlq ls), or a filter as words: entity:orders reason:record since:2h, or words "
        "of the error."
    ),
]
_Sequences: TypeAlias = Annotated[
    tuple[int, ...],
    Parameter(name="--seq", negative="", help="This letter, by its sequence; again for another.", show_default=False),
]
_All: TypeAlias = Annotated[Flag, Parameter(name="--all", help="Every letter.")]
_Set: TypeAlias = Annotated[
    tuple[str, ...],
    Parameter(
        name="--set", negative="", show_default=False, help="FIELD=VALUE: mend this field first; again for another."
    ),
]
_SHOWN = 20


async def dry_run(
    *wanted: _Chosen,
    seq: _Sequences = (),
    changes: _Set = (),
    deep: Flag = False,
    which: Matching | None = None,
    json: Json = False,
    where: Where | None = None,
) -> None:
    """What a replay would come to; nothing is changed.

    Parameters
    ----------
    deep
        Let PostgreSQL try each letter's rows too, in a transaction that is rolled back.
    """
    from nomnom_cli.output import Column, as_json, say, show_table
    from nomnom_control.session.dead_letters import forecast

    async with open_pipeline(where) as pipeline:
        selection = await _select(pipeline, wanted, seq, which, everything=not (wanted or seq))
        found = [
            each async for part in pipeline.dead_letters.dry_run(selection, _edit(changes), deep=deep) for each in part
        ]
    if json:
        as_json([asdict(each) for each in found])
        return
    columns = (Column("LETTER", right=True), Column("ENTITY"), Column("OUTCOME"), Column("WHY", grows=True))
    rows = [(str(each.sequence), each.entity, each.outcome.value, each.detail) for each in found]
    show_table(columns, rows, "no dead letters match")
    if len(found) > 1:
        counted = forecast(found).outcomes
        say(", ".join(f"{number:,} {outcome.value}" for outcome, number in counted.items()))


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
    where: Where | None = None,
) -> Exit:
    """Send dead letters to the workers again. Ctrl-C stops between letters; the same command goes on.

    Parameters
    ----------
    edit
        Open the one letter in $EDITOR, show what changed and whether it follows the schema, then ask.
    rate
        Letters a second at most.
    """
    async with open_pipeline(where) as pipeline:
        selection = await _select(pipeline, wanted, seq, which, everything=everything)
        change = await _edited(pipeline, selection, changes, yes=yes) if edit else _edit(changes)
        if not selection:
            from nomnom_cli.output import say

            say("no dead letters match", "dim")
            return Exit.OK
        run = await pipeline.dead_letters.replay(selection, change, rate=rate)
        if len(selection) > 1:
            confirm(
                f"Replay {len(selection):,} dead letters?",
                [f"{len(selection):,} dead letters, which go back into the stream (nomnom dlq undo takes back)"],
                yes=yes,
            )
        return await _run(run, json=json)


async def _run(run: Replay, *, json: bool) -> Exit:
    from nomnom_cli.output import as_json, say, tell
    from nomnom_control.session.dead_letters import Result

    try:
        await _watch(run, quiet=json)
    except asyncio.CancelledError:
        say(f"stopped after {run.progress.done:,} of {run.total:,}; the same command goes on")
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
            tell(counts or "nothing was replayed")
            for each in run.failures[:_SHOWN]:
                say(f"letter {each.sequence}: {each.detail}", "red")
            if len(run.failures) > _SHOWN:
                say(f"{len(run.failures) - _SHOWN:,} further letters failed", "red")
            if done.counts.get(Result.REPLAYED):
                say(f"take it back: nomnom dlq undo --run {run.run}", "dim")
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
    where: Where | None = None,
) -> Exit:
    """Take back a replay that no worker has taken yet: of one message, or of a whole run.

    Parameters
    ----------
    message
        The message's id.
    run
        The run that nomnom dlq replay told, or nomnom dlq audit.
    """
    from nomnom.envelope import parse_message_id
    from nomnom_cli.output import Column, as_json, show_table
    from nomnom_control.session.dead_letters import UndoResult

    if (message is None) == (run is None):
        raise UsageError("name what to take back: --message or --run")
    if parse_message_id(message or run or "") is None:
        raise UsageError(f"{message or run!r} is no id: expected a UUID")
    async with open_pipeline(where) as pipeline:
        found = await pipeline.dead_letters.undo(message_id=message, run=run)
    if json:
        as_json([asdict(each) for each in found])
    else:
        columns = (Column("MESSAGE"), Column("RESULT"), Column("LETTER", right=True), Column("", grows=True))
        rows = [(each.message_id, each.result.value, str(each.dead_letter or ""), each.detail) for each in found]
        show_table(columns, rows, "nothing to take back")
    undone = sum(each.result is UndoResult.UNDONE for each in found)
    return Exit.OK if undone == len(found) else Exit.PARTLY if undone else Exit.FAILED


async def delete(
    *wanted: _Chosen,
    seq: _Sequences = (),
    everything: _All = False,
    which: Matching | None = None,
    yes: Yes = False,
    json: Json = False,
    where: Where | None = None,
) -> None:
    """Remove dead letters for good; the audit keeps what they were."""
    from nomnom_cli.output import as_json, say, tell

    async with open_pipeline(where) as pipeline:
        selection = await _select(pipeline, wanted, seq, which, everything=everything)
        if not selection:
            say("no dead letters match", "dim")
            return
        confirm(
            f"Delete {len(selection):,} dead letters?", [f"{len(selection):,} dead letters, never processed"], yes=yes
        )
        done = await pipeline.dead_letters.delete(selection, expected_count=len(selection))
    if json:
        as_json({"run": done.run, "deleted": done.deleted, "gone": done.gone})
    else:
        tell(f"{done.deleted:,} deleted" + (f", {done.gone:,} were gone already" if done.gone else ""))


async def _select(
    pipeline: Pipeline, wanted: Sequence[str], sequences: Sequence[int], which: Matching | None, *, everything: bool
) -> list[int]:
    """The letters that the options name, by sequence, as they are now; raises UsageProblem where they name none."""
    numbers = {int(each) for each in wanted if each.isdecimal()}
    filtered = (which or Matching()).filter(" ".join(each for each in wanted if not each.isdecimal()))
    if numbers or sequences:
        if not filtered.empty or everything:
            raise UsageError("sequences name the letters, a filter chooses them: give one of them")
        return sorted({*numbers, *sequences})
    if filtered.empty and not everything:
        raise UsageError("name the letters: their sequences, a filter, or --all")
    return await pipeline.dead_letters.matching(filtered)


def _edit(changes: Sequence[str]) -> Edit | None:
    from nomnom_control.session.dead_letters import Edit

    return Edit(fields=read_pairs(tuple(changes))) if changes else None


async def _edited(pipeline: Pipeline, selection: Sequence[int], changes: Sequence[str], *, yes: bool) -> Edit:
    """The letter's payload after a person has edited it, shown and confirmed."""
    from nomnom_cli.editor import edit_text
    from nomnom_cli.output import say, tell
    from nomnom_control.session.dead_letters import Edit

    if changes or len(selection) != 1:
        raise UsageError("--edit is for one letter, and without --set")
    dead_letter = require(await pipeline.dead_letters.dead_letter(selection[0]), selection[0])
    before = dead_letter.payload or b""
    after = await edit_text(before, f"letter-{dead_letter.sequence}.txt")
    difference = pipeline.dead_letters.diff(before, after)
    if difference.empty:
        say("nothing was changed", "dim")
    for each in difference.changes or ():
        tell(f"line {each.line}, {each.field}: {each.before!r} → {each.after!r}")
    for each in () if difference.changes is not None else difference.lines:
        tell(each, "red" if each.startswith("-") else "green" if each.startswith("+") else "dim")
    validation = pipeline.dead_letters.validate(after)
    if validation.valid:
        say("it follows the schema", "green")
    else:
        draw_validation(validation)
        say("it does not follow the schema: it will come back as a dead letter", "yellow")
    confirm(f"Replay letter {dead_letter.sequence} so?", [], yes=yes)
    return Edit(payload=after)
