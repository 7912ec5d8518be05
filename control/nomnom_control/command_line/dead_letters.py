"""``nomnom dlq``: dead letters seen, tried out, replayed, taken back, deleted."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from cyclopts import App, Parameter

from nomnom_control.command_line import Exit, Stop
from nomnom_control.command_line.output import confirm, console, problems, show_json, show_table
from nomnom_control.command_line.target import Directory, Json, Yes, pairs, pipeline
from nomnom_control.dead_letters import Edit, Filter, GroupBy, Selection

dlq = App(name="dlq", help="Dead letters: what could not be written, and what to do about it.")
Wanted: TypeAlias = Annotated[
    str, Parameter(help='Which letters: words of the error, entity:orders, reason:record, since:2h, … ("" is all).')
]


@dlq.command(name="ls")
async def list_letters(
    wanted: Wanted = "",
    *,
    before: int | None = None,
    limit: int = 50,
    dir: Directory = None,  # noqa: A002
    json: Json = False,
) -> None:
    """The newest letters that match."""
    async with pipeline(dir) as opened:
        page = await opened.dead_letters.page(Filter.parse(wanted), before=before, limit=limit)
    if json:
        show_json(page.letters)
        return
    rows = [
        (each.sequence, f"{each.failed_at.astimezone():%F %T}", each.entity, each.reason, each.attempts, each.error)
        for each in page.letters
    ]
    show_table(("SEQ", "FAILED", "ENTITY", "REASON", "TRIES", "ERROR"), rows, "no dead letters")
    if page.older:
        console.print(f"{page.matching:,} match; older ones: --before {page.letters[-1].sequence}", style="dim")


@dlq.command(name="groups")
async def list_groups(
    wanted: Wanted = "",
    *,
    by: GroupBy = GroupBy.REASON,
    dir: Directory = None,  # noqa: A002
    json: Json = False,
) -> None:
    """How many letters have the same reason, entity or kind of error."""
    async with pipeline(dir) as opened:
        found = await opened.dead_letters.groups(by, Filter.parse(wanted))
    if json:
        show_json([{"by": each.by, "key": each.key, "count": each.count, "example": each.example} for each in found])
        return
    show_table(("COUNT", by.upper(), "EXAMPLE"), [(f"{g.count:,}", g.key, g.example) for g in found], "no dead letters")


@dlq.command(name="show")
async def show_letter(sequence: int, *, dir: Directory = None, json: Json = False) -> None:  # noqa: A002
    """One letter: its payload and what is wrong with it."""
    async with pipeline(dir) as opened:
        letter = await opened.dead_letters.letter(sequence)
        if letter is None:
            problems.print(f"nomnom: no dead letter has sequence {sequence}: 'nomnom dlq ls' lists them")
            raise Stop(Exit.FAILED)
        found = opened.dead_letters.validate(letter.payload or b"")
    if json:
        show_json({"letter": letter, "problems": [each._asdict() for each in found.problems]})
        return
    console.print(f"{letter.message_id}  {letter.entity}  {letter.reason}  after {letter.attempts} attempts")
    console.print(letter.error, style="red", markup=False)
    console.print((letter.payload or b"").decode(errors="replace"), markup=False)
    for each in found.problems:
        console.print(f"  {each}", markup=False)


@dlq.command(name="dry-run")
async def try_out(
    wanted: Wanted = "",
    *,
    seq: list[int] | None = None,
    set: list[str] | None = None,  # noqa: A002
    deep: bool = False,
    dir: Directory = None,  # noqa: A002
    json: Json = False,
) -> None:
    """What a replay would come to; --deep lets PostgreSQL try, and rolls back."""
    edit = _edit(set)
    async with pipeline(dir) as opened:
        parts = [part async for part in opened.dead_letters.dry_run(_selection(wanted, seq), edit, deep=deep)]
    found = [each for part in parts for each in part]
    if json:
        show_json(found)
        return
    rows = [(each.sequence, each.outcome, each.detail) for each in found]
    show_table(("SEQ", "WOULD BE", "WHY"), rows, "no dead letters match")


@dlq.command
async def replay(
    wanted: Wanted = "",
    *,
    seq: list[int] | None = None,
    all: bool = False,  # noqa: A002
    set: list[str] | None = None,  # noqa: A002
    rate: float | None = None,
    dir: Directory = None,  # noqa: A002
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Send letters in again: those of --seq, those that match, or --all; --set FIELD=VALUE mends a field first."""
    _some(wanted, seq, all)
    async with pipeline(dir) as opened:
        run = await opened.dead_letters.replay(_selection(wanted, seq), _edit(set), rate=rate)
        if not run.total:
            console.print("no dead letters match")
            return
        confirm([f"{run.total:,} letters from the dead letters, by sending them in again"], yes or run.total == 1)
        done = await run.finish()
        if json:
            show_json({"run": run.run, "total": done.total, "counts": dict(done.counts), "failures": run.failures})
        else:
            counts = ", ".join(f"{count:,} {result}" for result, count in done.counts.items() if count)
            console.print(f"{counts}; take it back with: nomnom dlq undo --run {run.run}")
            for each in run.failures[:20]:
                problems.print(f"{each.sequence}: {each.detail}", markup=False)
    if run.failures:
        raise Stop(Exit.PARTLY)


@dlq.command
async def undo(*, id: str | None = None, run: str | None = None, dir: Directory = None, json: Json = False) -> None:  # noqa: A002
    """Take a replay back that no worker has taken yet: of one message (--id) or of a run (--run)."""
    async with pipeline(dir) as opened:
        found = await opened.dead_letters.undo(message_id=id, run=run)
    if json:
        show_json(found)
        return
    show_table(("MESSAGE", "RESULT", ""), [(each.message_id, each.result, each.detail) for each in found], "nothing")


@dlq.command
async def delete(
    wanted: Wanted = "",
    *,
    seq: list[int] | None = None,
    all: bool = False,  # noqa: A002
    dir: Directory = None,  # noqa: A002
    yes: Yes = False,
) -> None:
    """Delete letters for good: those of --seq, those that match, or --all."""
    _some(wanted, seq, all)
    async with pipeline(dir) as opened:
        sequences = await opened.dead_letters.matching(_selection(wanted, seq))
        confirm([f"{len(sequences):,} dead letters, for good"], yes)
        done = await opened.dead_letters.delete(sequences, expected_count=len(sequences))
    console.print(f"{done.deleted:,} deleted")


def _selection(wanted: str, sequences: list[int] | None) -> Selection:
    return sequences or Filter.parse(wanted)


def _edit(changes: list[str] | None) -> Edit | None:
    return Edit(fields=pairs(changes)) if changes else None


def _some(wanted: str, sequences: list[int] | None, everything: bool) -> None:
    if not (wanted or sequences or everything):
        problems.print("nomnom: name the letters: --seq, a filter, or --all")
        raise Stop(Exit.USAGE)
