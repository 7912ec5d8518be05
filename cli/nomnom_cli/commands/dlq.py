"""``nomnom dlq``: dead letters seen and counted, and what people did to them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter
from cyclopts.validators import Number

from nomnom_cli.options import Flag, Json, Where, open_pipeline
from nomnom_cli.prompts import UsageError

if TYPE_CHECKING:
    from nomnom.inspection.dead_letters import DeadLetter, Filter
    from nomnom_control.session.dead_letters import Validation

_WHICH = Group("Which letters", sort_key=50)
_MANY = Annotated[tuple[str, ...], Parameter(negative="", show_default=False)]


@Parameter(name="*", group=_WHICH)
@dataclass(frozen=True)
class Matching:
    """Which letters, by what they are."""

    entity: Annotated[_MANY, Parameter(help="Of this entity, by name or tag; again for another.")] = ()
    reason: Annotated[_MANY, Parameter(help="record, data, unanswered or envelope; again for another.")] = ()
    grep: Annotated[str, Parameter(help="With this in the error.", show_default=False)] = ""
    payload: Annotated[str, Parameter(help="With this in the payload.", show_default=False)] = ""
    regex: Annotated[Flag, Parameter(help="--grep and --payload are regular expressions.")] = False
    id: Annotated[str, Parameter(help="Of the message whose id begins so.", show_default=False)] = ""
    since: Annotated[str | None, Parameter(help="Failed since: 15m, 2h, 7d or a time.", show_default=False)] = None
    until: Annotated[str | None, Parameter(help="Failed before.", show_default=False)] = None

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
    str, Parameter(help="A filter as words: entity:orders reason:record since:2h, or words of the error.")
]


async def list_dead_letters(
    *wanted: Words,
    limit: Annotated[int, Parameter(name=("--limit", "-n"), validator=Number(gte=1, lte=10_000))] = 20,
    before: Annotated[int | None, Parameter(show_default=False)] = None,
    which: Matching | None = None,
    json: Json = False,
    where: Where | None = None,
) -> None:
    """Dead letters, newest first.

    Parameters
    ----------
    limit
        How many.
    before
        Those older than this sequence.
    """
    from nomnom_cli.output import Column, ago, as_json, say, show_table

    async with open_pipeline(where) as pipeline:
        page = await pipeline.dead_letters.page(
            (which or Matching()).filter(" ".join(wanted)), before=before, limit=limit
        )
    if json:
        as_json([asdict(each) for each in page.dead_letters])
        return
    columns = (
        Column("SEQUENCE", right=True),
        Column("ENTITY"),
        Column("REASON"),
        Column("FAILED", right=True),
        Column("TRIES", right=True),
        Column("ERROR", grows=True),
    )
    rows = [
        (f"{each.sequence}", each.entity, each.reason, ago(each.failed_at), str(each.attempts), each.error)
        for each in page.dead_letters
    ]
    show_table(columns, rows, "no dead letters")
    if page.older:
        say(f"{page.matching:,} in all; more: --before {page.dead_letters[-1].sequence}", "dim")


async def groups(
    *wanted: Words,
    by: str = "error",
    which: Matching | None = None,
    json: Json = False,
    where: Where | None = None,
) -> None:
    """Dead letters by what they have in common, the most first.

    Parameters
    ----------
    by
        error (those that differ only in values are one), reason or entity.
    """
    from nomnom.inspection.dead_letters import GroupBy
    from nomnom_cli.output import Column, ago, as_json, say, show_table

    known = [each.value for each in GroupBy]
    if by not in known:
        raise UsageError(f"no grouping by {by!r}; there is {', '.join(known)}")
    async with open_pipeline(where) as pipeline:
        found = await pipeline.dead_letters.groups(GroupBy(by), (which or Matching()).filter(" ".join(wanted)))
    if json:
        as_json([{**asdict(each), "filter": each.filter.describe()} for each in found])
        return
    columns = (
        Column("LETTERS", right=True),
        Column("NEWEST", right=True),
        Column("OLDEST", right=True),
        Column("EXAMPLE", right=True),
        Column(by.upper(), grows=True, wraps=True),
    )
    rows = [(f"{each.count:,}", ago(each.newest), ago(each.oldest), str(each.example), each.key) for each in found]
    show_table(columns, rows, "no dead letters")
    if found:
        say(f"look at one: nomnom dlq show {found[0].example}", "dim")


async def show(sequence: int, /, *, json: Json = False, where: Where | None = None) -> None:
    """One dead letter: why it failed, its fields, and what is wrong with them.

    Parameters
    ----------
    sequence
        Its sequence (nomnom dlq ls).
    """
    from nomnom_cli.output import as_json

    async with open_pipeline(where) as pipeline:
        dead_letter = require(await pipeline.dead_letters.dead_letter(sequence), sequence)
        validation = pipeline.dead_letters.validate(dead_letter.payload or b"")
    if json:
        as_json({**asdict(dead_letter), "problems": [each._asdict() for each in validation.problems]})
        return
    _describe(dead_letter)
    draw_validation(validation)


def require(dead_letter: DeadLetter | None, sequence: int) -> DeadLetter:
    """The letter; raises ControlError where there is none."""
    from nomnom_control.errors import ControlError

    if dead_letter is None:
        raise ControlError(f"there is no dead letter {sequence} (any more): nomnom dlq ls lists them")
    return dead_letter


def _describe(dead_letter: DeadLetter) -> None:
    from nomnom_cli.output import styled, tell, when
    from nomnom_control.rendering import size

    lines = {
        "letter": f"{dead_letter.sequence}",
        "message": dead_letter.message_id,
        "entity": dead_letter.entity,
        "reason": f"{dead_letter.reason}, after {dead_letter.attempts} tries"
        + (f", replayed {dead_letter.replays} times before" if dead_letter.replays else ""),
        "error": dead_letter.error,
        "received": when(dead_letter.received_at),
        "failed": when(dead_letter.failed_at),
        "size": size(dead_letter.size),
        "": dead_letter.envelope_problem,
    }
    for label, text in lines.items():
        if text:
            line = styled(label.ljust(10), "dim")
            line.append(text, "red" if label == "error" else "")
            tell(line)


def draw_validation(validation: Validation) -> None:
    """A payload's fields, those that are wrong with what was expected."""
    from nomnom_cli.output import styled, tell

    faulty = {row.number for row in validation.rows if row.problems or any(cell.problem for cell in row.cells)}
    for row in validation.rows:
        if faulty and row.number not in faulty:
            # Of a message of many lines the faulty ones are what is looked for.
            tell(f"line {row.number} is right: {row.text}", "dim")
            continue
        tell("")
        tell(f"line {row.number}" + (f", {row.entity.name}" if row.entity else ""), "bold")
        width = max((len(each.field or "") for each in row.cells), default=0)
        for cell in row.cells:
            bad = cell.problem is not None
            line = styled(f"{'✗' if bad else ' '} {cell.position:>3}  {(cell.field or '?').ljust(width)}  ", "dim")
            line.append(cell.text, "red" if bad else "")
            if cell.problem is not None:
                line.append(f"  expected {cell.problem.expected}", "yellow")
            tell(line)
        for problem in row.problems:
            tell(f"✗ expected {problem.expected}, found {problem.found}", "red")
    shown = {each for row in validation.rows for each in row.problems}
    shown |= {cell.problem for row in validation.rows for cell in row.cells if cell.problem is not None}
    for problem in validation.problems:
        if problem not in shown:
            tell(f"✗ {problem}", "red")


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
    where: Where | None = None,
) -> None:
    """Who did what to the messages, when, with what result; newest first.

    Parameters
    ----------
    message
        Only of this message id.
    run
        Only of this replay, undo or deletion.
    action
        Only replay, undo, delete, purge, pause or resume.
    actor
        Only by this user@host.
    since
        Only since: 15m, 2h, 7d or a time.
    before
        Those older than this entry.
    limit
        How many.
    """
    from nomnom.envelope import parse_message_id
    from nomnom.inspection.dead_letters import parse_moment
    from nomnom_cli.output import Column, ago, as_json, say, show_table
    from nomnom_control.session.audit import Action

    known = [each.value for each in Action]
    if action is not None and action not in known:
        raise UsageError(f"no action {action!r}; there are {', '.join(known)}")
    for given in (message, run):
        if given is not None and parse_message_id(given) is None:
            raise UsageError(f"{given!r} is no id: expected a UUID")
    async with open_pipeline(where) as pipeline:
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
        Column("WHO"),
        Column("ACTION"),
        Column("LETTER", right=True),
        Column("ENTITY"),
        Column("RESULT", grows=True),
    )
    rows = [
        (
            str(each.id),
            ago(each.at),
            each.actor,
            each.action.value,
            str(each.sequence or ""),
            each.entity,
            _result(each.result, each.detail),
        )
        for each in found
    ]
    show_table(columns, rows, "nobody has done anything yet")
    if len(found) == limit:
        say(f"more: --before {found[-1].id}", "dim")


def _result(result: str, detail: Any) -> str:
    notes = [str(detail[name]) for name in ("note", "changes") if detail.get(name)]
    return "; ".join([result, *notes])
