"""``nomnom demo``: a stream of example records."""

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
from nomnom_cli.options import Json, Target, open_environment, state_folder
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
    target: Target | None = None,
) -> Exit:
    """Send a stream of TPC-H records, some of them invalid.

    Records from tpchgen-cli, until Ctrl-C: orders with their line items, and rows of the other tables.

    Parameters
    ----------
    rate
        Messages per second; a message is an order with its line items, or a row of another table.
    broken
        Fraction of invalid records, 0 to 1; they become dead letters.
    seconds
        Stop after this many seconds.
    """
    from nomnom_cli.output import as_json, print_note
    from nomnom_control.sending.demo import Demo, prepare_records
    from nomnom_control.session.pipeline import Pipeline

    here = open_environment(target)
    async with await Pipeline.of(here) as pipeline:
        if pipeline.schema.name != "tpch":
            raise ControlError(f"the demo sends TPC-H records; the schema of this pipeline is {pipeline.schema.name}")
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
                _print(flow.counts)
    if flow.counts.accepted == 0:
        print_note(flow.counts.problem or "nothing was sent", "red")
        return Exit.FAILED
    return Exit.OK


def _print(counts: DemoCounts) -> None:
    from nomnom_cli.output import print_note, print_result

    refused = f", {counts.refused:,} rejected" if counts.refused else ""
    took = figures.duration(counts.seconds)
    print_result(f"{counts.accepted:,} accepted in {took}, {counts.broken:,} of them invalid{refused}")
    if counts.broken:
        print_note("group the errors:        nomnom dlq groups", "dim")
        print_note("fix one and replay it:   nomnom dlq replay SEQUENCE --edit", "dim")
        print_note("open the terminal app:   nomnom", "dim")


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
                f"{counts.broken:,} invalid",
                f"{Term.LAG} {figures.count(overview.lag)}",
                f"{Term.DEAD_LETTERS} {figures.count(overview.dead_letters)}",
            ]
            live.update(plain("   ".join([*parts, counts.problem]), "yellow" if counts.problem else ""), refresh=True)

        yield show
