"""``nomnom dlq``: dead letters listed and grouped, and the audit log."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Group, Parameter
from cyclopts.validators import Number

from nomnom.presentation import figures
from nomnom.presentation.terms import Term
from nomnom_cli.options import Flag, Json, Target, open_pipeline
from nomnom_cli.prompts import UsageError

if TYPE_CHECKING:
    from nomnom.inspection.dead_letters import DeadLetter, Filter
    from nomnom_control.session.dead_letters import Validation

_WHICH = Group("Filter", sort_key=50)
_MANY = Annotated[tuple[str, ...], Parameter(negative="", show_default=False)]


@Parameter(name="*", group=_WHICH)
@dataclass(frozen=True)
class Matching:
    """Options that select dead letters."""

    entity: Annotated[_MANY, Parameter(help="Entity, by name or tag. Repeatable.")] = ()
    reason: Annotated[_MANY, Parameter(help="Reason: record, data, unanswered or envelope. Repeatable.")] = ()
    grep: Annotated[str, Parameter(help="Error contains TEXT.", show_default=False)] = ""
    payload: Annotated[str, Parameter(help="Payload contains TEXT.", show_default=False)] = ""
    regex: Annotated[Flag, Parameter(help="--grep and --payload are regular expressions.")] = False
    id: Annotated[str, Parameter(help="Message ID prefix.", show_default=False)] = ""
    since: Annotated[str | None, Parameter(help="Failed since: 15m, 2h, 7d or a timestamp.", show_default=False)] = None
    until: Annotated[str | None, Parameter(help="Failed before: like --since.", show_default=False)] = None

    def filter(self, words: str = "") -> Filter:
        """The filter of these options and of ``words`` (``entity:orders since:2h``); raises FilterError."""
        from nomnom.inspection.dead_letters import Filter, parse_moment

        given = Filter.parse(words)
        return Filter(
            entities=given.entities + self.entity,
            reasons=Filter.parse(" ".join(f"reason:{each}" for each in self.reason)).reasons + given.reasons,
            error=" ".join(each for each in (given.error, self.grep) if each),
            payload=self.payload or given.payload,
            message_id=self.id or given.message_id,
            since=parse_moment(self.since) if self.since else given.since,
            until=parse_moment(self.until) if self.until else given.until,
            regex=self.regex or given.regex,
        )


Words = Annotated[
    str, Parameter(help="Filter expression: entity:orders reason:record since:2h, or words of the error.")
]


async def list_dead_letters(
    *wanted: Words,
    limit: Annotated[int, Parameter(name=("--limit", "-n"), validator=Number(gte=1, lte=10_000))] = 20,
    before: Annotated[int | None, Parameter(show_default=False)] = None,
    which: Matching | None = None,
    json: Json = False,
    target: Target | None = None,
) -> None:
    """List dead letters, newest first.

    Parameters
    ----------
    limit
        Maximum number of results.
    before
        Only dead letters older than this sequence.
    """
    from nomnom_cli.output import Column, as_json, print_note, show_table

    async with open_pipeline(target) as pipeline:
        page = await pipeline.dead_letters.page(
            (which or Matching()).filter(" ".join(wanted)), before=before, limit=limit
        )
    if json:
        as_json([msgspec.structs.asdict(each) for each in page.dead_letters])
        return
    columns = (
        Column("SEQUENCE", right=True),
        Column(Term.ENTITY.upper()),
        Column(Term.REASON.upper()),
        Column(Term.FAILED.upper(), right=True),
        Column(Term.ATTEMPTS.upper(), right=True),
        Column(Term.ERROR.upper(), grows=True),
    )
    rows = [
        (f"{each.sequence}", each.entity, each.reason, figures.ago(each.failed_at), str(each.attempts), each.error)
        for each in page.dead_letters
    ]
    show_table(columns, rows, "no dead letters")
    if page.older:
        print_note(f"{page.matching:,} in total; next page: --before {page.dead_letters[-1].sequence}", "dim")


async def groups(
    *wanted: Words,
    by: str = "error",
    which: Matching | None = None,
    json: Json = False,
    target: Target | None = None,
) -> None:
    """Group dead letters by what they have in common, largest group first.

    Parameters
    ----------
    by
        error (errors that differ only in values form one group), reason, entity or kind (reason and entity).
    """
    from nomnom.inspection.dead_letters import GroupBy
    from nomnom_cli.output import Column, as_json, print_note, show_table

    known = [each.value for each in GroupBy]
    if by not in known:
        raise UsageError(f"cannot group by {by!r}; available: {', '.join(known)}")
    async with open_pipeline(target) as pipeline:
        found = await pipeline.dead_letters.groups(GroupBy(by), (which or Matching()).filter(" ".join(wanted)))
    if json:
        as_json([{**asdict(each), "filter": each.filter.describe()} for each in found])
        return
    columns = (
        Column("COUNT", right=True),
        Column("NEWEST", right=True),
        Column("OLDEST", right=True),
        Column("EXAMPLE", right=True),
        Column(by.upper(), grows=True, wraps=True),
    )
    rows = [
        (f"{each.count:,}", figures.ago(each.newest), figures.ago(each.oldest), str(each.example), each.key)
        for each in found
    ]
    show_table(columns, rows, "no dead letters")
    if found:
        print_note(f"show an example: nomnom dlq show {found[0].example}", "dim")


async def show(sequence: int, /, *, json: Json = False, target: Target | None = None) -> None:
    """Show one dead letter: why it failed, and its fields with their errors.

    Parameters
    ----------
    sequence
        Its sequence (`nomnom dlq ls`).
    """
    from nomnom_cli.output import as_json

    async with open_pipeline(target) as pipeline:
        dead_letter = require(await pipeline.dead_letters.dead_letter(sequence), sequence)
        validation = pipeline.dead_letters.validate(dead_letter.payload or b"")
    if json:
        as_json({**msgspec.structs.asdict(dead_letter), "problems": [each._asdict() for each in validation.problems]})
        return
    describe(dead_letter)
    draw_validation(validation)


def require(dead_letter: DeadLetter | None, sequence: int) -> DeadLetter:
    """The dead letter; raises ControlError if there is none."""
    from nomnom_control.errors import ControlError

    if dead_letter is None:
        raise ControlError(f"no dead letter with sequence {sequence} (never existed, or removed); see `nomnom dlq ls`")
    return dead_letter


def describe(dead_letter: DeadLetter) -> None:
    """Print the properties of a dead letter without its payload."""
    from nomnom_cli.output import Cell, print_labelled, styled

    lines: dict[str, Cell] = {
        "sequence": f"{dead_letter.sequence}",
        Term.MESSAGE: dead_letter.message_id,
        Term.ENTITY: dead_letter.entity,
        Term.REASON: f"{dead_letter.reason}, after {figures.counted(dead_letter.attempts, 'attempt')}"
        + (f", replayed {dead_letter.replays} times" if dead_letter.replays else ""),
        Term.ERROR: styled(dead_letter.error, "red"),
        Term.RECEIVED: figures.when(dead_letter.received_at),
        Term.FAILED: figures.when(dead_letter.failed_at),
        Term.SIZE: figures.size(dead_letter.size),
        "": dead_letter.envelope_problem,
    }
    print_labelled(lines)


def draw_validation(validation: Validation) -> None:
    """Print a payload's fields; invalid ones with what was expected."""
    from nomnom.presentation.marks import CROSS
    from nomnom_cli.output import print_result, styled

    faulty = {row.number for row in validation.rows if row.problems or any(cell.problem for cell in row.cells)}
    for row in validation.rows:
        if faulty and row.number not in faulty:
            # In a message of many lines, only the faulty ones matter.
            print_result(f"line {row.number} is valid: {row.text}", "dim")
            continue
        print_result("")
        print_result(f"line {row.number}" + (f", {row.entity.name}" if row.entity else ""), "bold")
        width = max((len(each.field or "") for each in row.cells), default=0)
        for cell in row.cells:
            bad = cell.problem is not None
            line = styled(f"{CROSS if bad else ' '} {cell.position:>3}  {(cell.field or '?').ljust(width)}  ", "dim")
            line.append(cell.text, "red" if bad else "")
            if cell.problem is not None:
                line.append(f"  expected {cell.problem.expected}", "yellow")
            print_result(line)
        for problem in row.problems:
            print_result(f"{CROSS} expected {problem.expected}, found {problem.found}", "red")
    shown = {each for row in validation.rows for each in row.problems}
    shown |= {cell.problem for row in validation.rows for cell in row.cells if cell.problem is not None}
    for problem in validation.problems:
        if problem not in shown:
            print_result(f"{CROSS} {problem}", "red")


async def audit(
    *,
    message: Annotated[str | None, Parameter(show_default=False)] = None,
    run: Annotated[str | None, Parameter(show_default=False)] = None,
    action: Annotated[str | None, Parameter(show_default=False)] = None,
    actor: Annotated[str | None, Parameter(show_default=False)] = None,
    since: Annotated[str | None, Parameter(show_default=False)] = None,
    before: Annotated[int | None, Parameter(show_default=False)] = None,
    limit: Annotated[int, Parameter(name=("--limit", "-n"), validator=Number(gte=1, lte=10_000))] = 20,
    json: Json = False,
    target: Target | None = None,
) -> None:
    """Show the audit log: who did what to which message, and the result; newest first.

    Parameters
    ----------
    message
        Only this message ID.
    run
        Only this run of a replay, undo or deletion.
    action
        Only this action: replay, undo, delete, purge, expire, pause or resume.
    actor
        Only this user@host.
    since
        Only since: 15m, 2h, 7d or a timestamp.
    before
        Only entries older than this one.
    limit
        Maximum number of results.
    """
    from nomnom.envelope import parse_message_id
    from nomnom.inspection.dead_letters import parse_moment
    from nomnom_cli.output import Column, as_json, print_note, show_table
    from nomnom_control.session.audit import Action

    known = [each.value for each in Action]
    if action is not None and action not in known:
        raise UsageError(f"unknown action {action!r}; available: {', '.join(known)}")
    for given in (message, run):
        if given is not None and parse_message_id(given) is None:
            raise UsageError(f"{given!r} is not a valid ID: expected a UUID")
    async with open_pipeline(target) as pipeline:
        found = await pipeline.audit.read(
            before=before,
            limit=limit,
            message_id=message,
            run=run,
            action=Action(action) if action else None,
            actor=actor,
            since=parse_moment(since) if since else None,
        )
    if json:
        as_json([asdict(each) for each in found])
        return
    columns = (
        Column("ENTRY", right=True),
        Column("WHEN", right=True),
        Column("ACTOR"),
        Column("ACTION"),
        Column("DEAD LETTER", right=True),
        Column(Term.ENTITY.upper()),
        Column("RESULT", grows=True),
    )
    rows = [
        (
            str(each.id),
            figures.ago(each.at),
            each.actor,
            each.action.value,
            str(each.sequence or ""),
            each.entity,
            _result(each.result, each.detail),
        )
        for each in found
    ]
    show_table(columns, rows, "the audit log is empty")
    if len(found) == limit:
        print_note(f"next page: --before {found[-1].id}", "dim")


def _result(result: str, detail: Any) -> str:
    notes = [str(detail[name]) for name in ("note", "changes") if detail.get(name)]
    return "; ".join([result, *notes])
