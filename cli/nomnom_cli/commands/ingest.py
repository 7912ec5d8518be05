"""``nomnom ingest``: files of records to the api."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from nomnom.presentation import figures
from nomnom.presentation.terminal import printable
from nomnom_cli.exit_codes import Exit
from nomnom_cli.options import Flag, Json, Where, open_environment, state_folder
from nomnom_cli.prompts import UsageError

if TYPE_CHECKING:
    from nomnom_control.sending.files import Ingested, Sending

_SHOWN = 20


async def ingest(
    *files: Annotated[str, Parameter(allow_leading_hyphen=True)],
    entity: Annotated[str | None, Parameter(show_default=False)] = None,
    restart: Flag = False,
    rejects: Annotated[Path | None, Parameter(show_default=False)] = None,
    json: Json = False,
    where: Where | None = None,
) -> Exit:
    """Send files of records, a message a line.

    The same command goes on where it stopped, whatever stopped it. A line is one message however
    often it is sent: chunks carry keys made of the file and their place in it.

    Parameters
    ----------
    files
        Files (.gz is unpacked), or - for standard input.
    entity
        Put this entity's tag before each line, as TPC-H's .tbl files need it: a name or a tag.
    restart
        From the beginning again; a line that was taken before stays the same message.
    rejects
        Append the lines that the api refuses to this file.
    """
    from nomnom_cli.output import as_json, say
    from nomnom_control.sending.files import Sending

    if not files:
        raise UsageError("name the files, or - for standard input")
    here = open_environment(where)
    tag = (await here.schema()).entity(entity).tag if entity else None
    ends = await here.endpoints()
    sending = Sending(ends.api, ends.api_token, state_folder(here) / "ingestion", rejects)
    refused = 0
    for name in files:
        try:
            last = await _send(sending, name, tag, restart=restart, quiet=json)
        except asyncio.CancelledError:
            say(f"{name}: stopped; " + ("it cannot go on" if name == "-" else "the same command goes on from there"))
            raise
        if last is None:
            say(f"{name}: all of it has been sent already; --restart sends it again", "dim")
            continue
        refused += last.refused
        if json:
            as_json({**asdict(last), "seconds": round(last.seconds, 3)})
        else:
            _tell(last)
    return Exit.PARTLY if refused else Exit.OK


async def _send(sending: Sending, name: str, tag: str | None, *, restart: bool, quiet: bool) -> Ingested | None:
    steps = (
        sending.send_stream(sys.stdin.buffer, tag) if name == "-" else sending.send(Path(name), tag, restart=restart)
    )
    last: Ingested | None = None
    with _bar(name, quiet=quiet) as show:
        async for last in steps:
            show(last)
    return last


def _tell(last: Ingested) -> None:
    from nomnom_cli.output import say, tell

    parts = [f"{last.accepted:,} accepted"]
    if last.duplicates:
        parts.append(f"{last.duplicates:,} of them there before")
    if last.refused:
        parts.append(f"{last.refused:,} refused")
    parts.append(f"{last.lines:,} lines" + (" with those of earlier runs" if last.resumed else ""))
    rate = f", {figures.rate(last.accepted / last.seconds)}" if last.seconds > 0.5 else ""
    tell(f"{last.name}: {', '.join(parts)} in {figures.duration(last.seconds)}{rate}")
    for each in last.refusals[:_SHOWN]:
        lines = f"{each.line}" if each.line == each.last_line else f"{each.line}-{each.last_line}"
        say(f"{last.name}:{lines}: {each.detail}", "red")
    if len(last.refusals) > _SHOWN:
        say(f"and {len(last.refusals) - _SHOWN:,} more; --rejects FILE keeps the lines", "red")


@contextmanager
def _bar(name: str, *, quiet: bool) -> Generator[Callable[[Ingested], None], None, None]:
    """A bar where a person watches; elsewhere a line when the api begins or ends to be in trouble."""
    from nomnom_cli.output import errors, interactive, say

    problem = ""

    def note(now: Ingested) -> None:
        nonlocal problem
        if now.problem != problem and not quiet:
            say(f"{name}: {now.problem}; trying again" if now.problem else f"{name}: going on", "yellow")
        problem = now.problem

    if quiet or not interactive():
        yield note
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        DownloadColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[problem]}", style="yellow", markup=False),
    )
    with Progress(*columns, console=errors(), expand=True, transient=True) as bar:
        task = bar.add_task(name, total=None, rate="", problem="")

        def show(now: Ingested) -> None:
            rate = f"{figures.rate(now.accepted / now.seconds)}" if now.seconds > 0 else ""
            bar.update(task, completed=now.offset, total=now.size, rate=rate, problem=printable(now.problem))

        yield show
