"""``nomnom account``: what became of every message."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from nomnom.presentation import figures
from nomnom.presentation.terms import Term
from nomnom_cli.exit_codes import Exit
from nomnom_cli.options import Flag, Json, Target, open_pipeline

if TYPE_CHECKING:
    from nomnom.account import Account

_SHOWN = 20
_FATES = ("completed", "dead_letters", "pending", "processing", "failed", "deleted", "purged", "expired", "retired")


async def account(
    *,
    since: Annotated[str | None, Parameter(show_default=False)] = None,
    until: Annotated[str | None, Parameter(show_default=False)] = None,
    verify: Flag = False,
    json: Json = False,
    target: Target | None = None,
) -> Exit:
    """Account for every accepted message; name those that are unexplained.

    The exit code is 0 if nothing is unexplained, 1 if something is, and 4 if that could not be determined.

    Parameters
    ----------
    since
        Only messages received since: 15m, 2h, 7d or a timestamp. Default: since the account began.
    until
        Only messages received before: like --since.
    verify
        Verify everything again, also what was verified in the last minute.
    """
    from nomnom.connections.errors import RequestError
    from nomnom.inspection.dead_letters import parse_moment
    from nomnom_cli.output import as_json, print_note
    from nomnom_control.session.account import TRUSTED

    moments = [parse_moment(each) if each else None for each in (since, until)]
    async with open_pipeline(target) as pipeline:
        try:
            found = await pipeline.account.read(*moments, trusted=0.0 if verify else TRUSTED)
        except RequestError as error:
            print_note(f"the account could not be determined: {error}", "red")
            return Exit.NOT_RUNNING
    if json:
        as_json(asdict(found))
    else:
        _show(found)
    return Exit.OK if found.explained else Exit.FAILED


def _show(found: Account) -> None:
    from nomnom.account import named
    from nomnom_cli.output import Cell, print_labelled, print_note, print_result, styled

    width = len(f"{found.accepted:,}")

    def number(value: int) -> str:
        return f"{value:,}".rjust(width)

    lines: dict[str, Cell] = {"accepted": number(found.accepted)}
    for name in _FATES:
        value = getattr(found, name)
        note = ""
        if name == "completed" and found.superseded:
            note = f"  ({found.superseded:,} superseded)"
        elif name == "dead_letters" and found.waiting_replays:
            note = f"  ({found.waiting_replays:,} being replayed)"
        if value or name in ("completed", "dead_letters", "pending"):
            lines[f"  {_LABELS.get(name, name)}"] = number(value) + note
    style = "green" if found.explained else "bold red"
    lines[f"  {Term.UNEXPLAINED}"] = styled(number(found.unexplained), style)
    print_labelled(lines)
    copies = {"replays": found.replayed, "repeats": found.repeated, "removed": found.removed}
    if any(copies.values()):
        listed = ", ".join(f"{value:,} {name}" for name, value in copies.items() if value)
        print_result(f"copies of these messages: {listed}", "dim")
    for each in named(found.losses[:_SHOWN]):
        print_result(each, "red")
    if len(found.losses) > _SHOWN:
        print_result(f"and {len(found.losses) - _SHOWN:,} more: nomnom account --json lists them", "red")
    period = f"messages received since {figures.moment(found.since or found.began_at, zone=True)}"
    until = f" and before {figures.moment(found.until, zone=True)}" if found.until else ""
    print_note(f"{period}{until}; verified {figures.ago(found.verified_at)}", "dim")


_LABELS = {"dead_letters": str(Term.DEAD_LETTERS), "retired": "past retention"}
