"""``nomnom ingest``: files of records sent to the API."""

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
from nomnom_cli.options import Flag, Json, Target, open_environment, state_folder
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
    target: Target | None = None,
) -> Exit:
    """Send files of records, one message per line.

    After an interruption, run the same command to resume. Re-sending is idempotent: the key of a chunk is
    derived from the file and the offset of the chunk.

    Parameters
    ----------
    files
        Files (.gz is decompressed), or - for standard input.
    entity
        Prepend the tag of this entity (name or tag) to each line, as TPC-H .tbl files require.
    restart
        Start from the beginning; lines that were accepted before do not create second messages.
    rejects
        Append rejected lines to this file.
    """
    from nomnom_cli.output import as_json, print_note
    from nomnom_control.sending.files import Sending

    if not files:
        raise UsageError("no files given; name files, or - for standard input")
    here = open_environment(target)
    tag = (await here.schema()).entity(entity).tag if entity else None
    ends = await here.endpoints()
    sending = Sending(ends.api, ends.api_token, state_folder(here) / "ingestion", rejects)
    refused = 0
    for name in files:
        try:
            last = await _send(sending, name, tag, restart=restart, quiet=json)
        except asyncio.CancelledError:
            resume = "it cannot be resumed" if name == "-" else "run the same command to resume"
            print_note(f"{name}: stopped; {resume}")
            raise
        if last is None:
            print_note(f"{name}: already sent completely; --restart sends it again", "dim")
            continue
        refused += last.refused
        if json:
            as_json({**asdict(last), "seconds": round(last.seconds, 3)})
        else:
            _print(last)
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


def _print(last: Ingested) -> None:
    from nomnom_cli.output import print_note, print_result

    parts = [f"{last.accepted:,} accepted"]
    if last.duplicates:
        parts.append(f"{last.duplicates:,} duplicates")
    if last.refused:
        parts.append(f"{last.refused:,} rejected")
    parts.append(f"{last.lines:,} lines" + (" in total, including earlier runs" if last.resumed else ""))
    rate = f", {figures.rate(last.accepted / last.seconds)}" if last.seconds > 0.5 else ""
    print_result(f"{last.name}: {', '.join(parts)} in {figures.duration(last.seconds)}{rate}")
    for each in last.refusals[:_SHOWN]:
        lines = f"{each.line}" if each.line == each.last_line else f"{each.line}-{each.last_line}"
        print_note(f"{last.name}:{lines}: {each.detail}", "red")
    if len(last.refusals) > _SHOWN:
        print_note(f"and {len(last.refusals) - _SHOWN:,} more; --rejects FILE saves the lines", "red")


@contextmanager
def _bar(name: str, *, quiet: bool) -> Generator[Callable[[Ingested], None], None, None]:
    """A progress bar on a terminal; otherwise a note whenever the API becomes unavailable or recovers."""
    from nomnom_cli.output import errors, interactive, print_note

    problem = ""

    def note(now: Ingested) -> None:
        nonlocal problem
        if now.problem != problem and not quiet:
            print_note(f"{name}: {now.problem}; retrying" if now.problem else f"{name}: resumed", "yellow")
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
