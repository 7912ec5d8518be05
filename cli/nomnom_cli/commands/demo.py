"""``nomnom demo``: a flow to look at."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from nomnom.presentation import figures
from nomnom.presentation.terms import Term
from nomnom_cli.exit_codes import Exit
from nomnom_cli.options import Json, Where, open_environment, state_folder
from nomnom_control.errors import ControlError

if TYPE_CHECKING:
    from nomnom_control.sending.demo import DemoCounts
    from nomnom_control.session.overview import Overview


async def demo(
    *,
    rate: Annotated[float, Parameter(validator=Number(gt=0, lte=5000))] = 50.0,
    broken: Annotated[float, Parameter(validator=Number(gte=0, lte=1))] = 0.05,
    seconds: Annotated[float | None, Parameter(validator=Number(gt=0), show_default=False)] = None,
    json: Json = False,
    where: Where | None = None,
) -> Exit:
    """Send a flow of TPC-H records, some broken.

    Real records of tpchgen-cli, until Ctrl-C: orders with their lines, and rows of the other tables.

    Parameters
    ----------
    rate
        Messages a second: an order with its lines, or a row of another table.
    broken
        The share that cannot be written, 0 to 1: it becomes dead letters.
    seconds
        Stop after so many.
    """
    from nomnom_cli.output import as_json, say
    from nomnom_control.sending.demo import Demo, prepare_records
    from nomnom_control.session.pipeline import Pipeline

    here = open_environment(where)
    async with await Pipeline.of(here) as pipeline:
        if pipeline.schema.name != "tpch":
            raise ControlError(f"the demo's records are TPC-H's, and this pipeline takes {pipeline.schema.name}")
        records = await prepare_records(state_folder(here) / "demo")
        flow = Demo(pipeline.messages, records, rate, broken)
        try:
            with _line(quiet=json) as show:
                async for counts in flow.run(seconds):
                    show(counts, await pipeline.overview())
        finally:
            if json:
                as_json(asdict(flow.counts))
            else:
                _tell(flow.counts)
    if flow.counts.accepted == 0:
        say(flow.counts.problem or "nothing was sent", "red")
        return Exit.FAILED
    return Exit.OK


def _tell(counts: DemoCounts) -> None:
    from nomnom_cli.output import say, tell

    refused = f", {counts.refused:,} refused" if counts.refused else ""
    tell(
        f"{counts.accepted:,} accepted in {figures.duration(counts.seconds)}, {counts.broken:,} of them broken{refused}"
    )
    if counts.broken:
        say("what was wrong with them:  nomnom dlq groups", "dim")
        say("mend one and replay it:    nomnom dlq replay SEQUENCE --edit", "dim")
        say("or see it all in the app:  nomnom", "dim")


@contextmanager
def _line(*, quiet: bool) -> Generator[Callable[[DemoCounts, Overview], None], None, None]:
    from nomnom_cli.output import errors, interactive, plain

    if quiet or not interactive():
        yield lambda _counts, _overview: None
        return
    from rich.live import Live
    from rich.text import Text

    with Live(Text(""), console=errors(), auto_refresh=False, transient=True) as live:

        def show(counts: DemoCounts, overview: Overview) -> None:
            speed = counts.accepted / counts.seconds if counts.seconds else 0.0
            parts = [
                f"{counts.accepted:,} accepted ({figures.rate(speed)})",
                f"{counts.broken:,} broken",
                f"{Term.LAG} {figures.count(overview.lag)}",
                f"{Term.DEAD_LETTERS} {figures.count(overview.dead_letters)}",
            ]
            live.update(plain("   ".join([*parts, counts.problem]), "yellow" if counts.problem else ""), refresh=True)

        yield show
