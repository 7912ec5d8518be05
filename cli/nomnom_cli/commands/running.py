"""``nomnom setup``, ``up``, ``down``, ``destroy`` and ``status``."""

from __future__ import annotations

import asyncio
import shlex
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from nomnom.errors import NomnomError
from nomnom.presentation import figures
from nomnom.presentation.terminal import printable
from nomnom.presentation.terms import Term
from nomnom_cli.exit_codes import Exit
from nomnom_cli.options import Flag, Json, Target, Yes, open_environment, open_pipeline
from nomnom_cli.prompts import confirm
from nomnom_control.environments import catalog

if TYPE_CHECKING:
    from nomnom.account import Balance
    from nomnom.schema import Schema
    from nomnom_cli.output import Cell
    from nomnom_control.environments import Component, Environment, Scaling
    from nomnom_control.session.overview import Overview

_TPCH_EXAMPLE = "O|123|456|F|123.45|2024-01-01|urgent|clerk1|1|comment"
_Port = Annotated[int | None, Parameter(validator=Number(gte=1, lte=65535), show_default=False)]
_Whole = Annotated[int | None, Parameter(validator=Number(gte=0), show_default=False)]


async def setup(
    *,
    wait: Annotated[float, Parameter(validator=Number(gte=0))] = 30.0,
    expire: _Whole = None,
) -> None:
    """Create or migrate streams and tables.

    It is idempotent, and safe to run concurrently. NATS_URL, DATABASE_URL and NOMNOM_SCHEMA name the target;
    DATABASE_WORKER_URL, ..._API_URL, ..._DASHBOARD_URL, ..._OPERATOR_URL and ..._HOUSEKEEPER_URL name the roles to
    create for components.

    Parameters
    ----------
    wait
        Seconds to wait for each server.
    expire
        Confirm a lower NATS_MAX_AGE or NATS_DEAD_MAX_AGE: the number of messages and dead letters that are older.
    """
    from nomnom.settings import SetupSettings
    from nomnom.setup import roles_of, set_up
    from nomnom_cli.output import print_result

    settings = SetupSettings.from_environment()
    confirmed = expire if expire is not None else settings.nomnom_setup_expire
    for line in await set_up(settings, wait, roles_of(settings), confirmed):
        print_result(line)


async def up(
    *,
    schema: Annotated[str | None, Parameter(show_default=False)] = None,
    port: Annotated[_Port, Parameter(name=("--port", "--api-port"))] = None,
    dashboard_port: _Port = None,
    page_port: _Port = None,
    nats_port: _Port = None,
    monitor_port: _Port = None,
    postgres_port: _Port = None,
    minimum: Annotated[_Whole, Parameter(name="--min")] = None,
    maximum: Annotated[_Whole, Parameter(name="--max")] = None,
    threshold: _Whole = None,
    cooldown: Annotated[float | None, Parameter(validator=Number(gte=0), show_default=False)] = None,
    detach: Annotated[Flag, Parameter(name=("--detach", "-d"))] = False,
    check: Flag = False,
    yes: Yes = False,
    target: Target | None = None,
) -> Exit:
    """Run the whole pipeline on this machine.

    It runs until Ctrl-C or `nomnom down`. Options are saved for later runs; data is kept between runs.

    Parameters
    ----------
    schema
        tpch, ecommerce or a schema file.
    port
        API port. Default: 8080 if free, otherwise any free port (likewise for the other ports).
    dashboard_port
        Dashboard API port. Default: 3000.
    page_port
        Dashboard page port. Default: 5173.
    nats_port
        nats-server port. Default: 4222.
    monitor_port
        nats-server monitoring port. Default: 8222.
    postgres_port
        PostgreSQL port. Default: 5432.
    minimum
        Minimum workers; 0 allows scale to zero.
    maximum
        Maximum workers.
    threshold
        Target lag (pending messages) per worker.
    cooldown
        Seconds without lag before scaling to zero.
    detach
        Run in the background; return when ready.
    check
        Post one example record and follow it until it is completed.
    """
    from nomnom_cli.output import print_note, show_progress, show_step

    ports = {
        "api": port, "dashboard": dashboard_port, "page": page_port,
        "nats": nats_port, "nats_monitor": monitor_port, "postgres": postgres_port,
    }  # fmt: skip
    policy = {"minimum": minimum, "maximum": maximum, "threshold": threshold, "cooldown": cooldown}
    here = open_environment(target)
    if here.kind != catalog.LOCAL:
        confirm(f"Start on {here.location}?", here.plan("start"), yes=yes)
        await show_progress(here.start())
        print_note(f"the pipeline is up on {here.location}; run `nomnom status` or open the app", "dim")
        await here.close()
        return Exit.OK
    if detach:
        given = {"schema": schema, **ports, **policy}
        chosen = {name: str(value) for name, value in given.items() if value is not None}
        await show_progress(here.with_options(chosen).start())
        return Exit.OK if await _welcome(target, check=check) else Exit.FAILED
    from nomnom.settings import Settings
    from nomnom.telemetry import configure_logging
    from nomnom_control.environments.local.instance import Instance
    from nomnom_control.environments.local.supervisor import Supervisor

    configure_logging("supervisor", Settings(log_level="error"))
    supervisor = Supervisor(
        Instance((target or Target()).dir),
        schema,
        {name: value for name, value in ports.items() if value is not None},
        {name: value for name, value in policy.items() if value is not None},
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, supervisor.interrupt)

    async def ready() -> None:
        await _welcome(target, check=check)
        print_note("next, in another terminal: nomnom demo, nomnom status, or nomnom for the app", "dim")
        print_note("Press Ctrl-C to stop (twice to stop at once); data is kept.", "dim")
        await _live(open_environment(target))

    await supervisor.run(show_step, ready)
    return Exit.OK


async def _welcome(target: Target | None, *, check: bool) -> bool:
    """Print the endpoints; with ``check``, whether an example record was completed."""
    from nomnom.envelope import Status
    from nomnom_cli.output import print_note, print_result, status

    here = open_environment(target)
    ends, schema = await here.endpoints(), await here.schema()
    example = _example(schema)
    print_result("")
    print_result(f"nomnom is up    {ends.api}/docs", "bold")
    print_result(f"dashboard       {ends.dashboard}")
    print_result(f"data and logs   {here.location}")
    print_result("")
    print_result(f"  curl -H 'Content-Type: text/plain' -d {shlex.quote(example)} {ends.api}/api/ingest/message")
    print_result("")
    if not check:
        return True
    async with open_pipeline(target) as pipeline:
        posted = await pipeline.messages.post(example)
        async for state in pipeline.messages.follow(posted.message_id, timeout=60):
            print_result(status(state.status).append(f"  example record {posted.message_id}", ""))
            if state.status is Status.COMPLETED:
                return True
    print_note(f"the example record was not completed; run `nomnom message {posted.message_id}` to see why", "red")
    return False


def _example(schema: Schema) -> str:
    from nomnom_control.sending.examples import example_message

    if schema.name == "tpch":
        return _TPCH_EXAMPLE
    first = next(each for each in schema if each.parent is None)
    return example_message(schema, first).partition("\n")[0]


async def _live(here: Environment) -> None:
    """One line of figures that is updated in place, if standard error is a terminal."""
    from rich.live import Live
    from rich.text import Text

    from nomnom_cli.output import errors, interactive

    def line(text: str, style: str) -> Text:
        return Text(printable(text), style, no_wrap=True, overflow="ellipsis")

    if not interactive():
        return
    with Live(Text(""), console=errors(), auto_refresh=False, transient=True) as live:
        while True:
            try:
                now = await here.scaling()
            except NomnomError as error:
                live.update(line(str(error), "yellow"), refresh=True)
            else:
                live.update(line(_figures(now), "dim"), refresh=True)
            await asyncio.sleep(1)


def _figures(now: Scaling) -> str:
    paused = "PAUSED, " if now.paused else ""
    return f"{Term.STREAM_LAG} {figures.count(now.lag)}   workers {now.ready} of {now.desired}   {paused}{now.decision}"


async def down(*, yes: Yes = False, target: Target | None = None) -> None:
    """Stop the pipeline gracefully; data is kept."""
    from nomnom_cli.output import show_progress

    here = open_environment(target)
    if here.kind != catalog.LOCAL:
        confirm(f"Stop on {here.location}?", here.plan("stop"), yes=yes)
    await show_progress(here.stop())


async def destroy(*, yes: Yes = False, target: Target | None = None) -> None:
    """Stop the pipeline and remove its data."""
    from nomnom_cli.output import show_progress

    here = open_environment(target)
    confirm(f"Destroy {here.name}?", here.losses(), yes=yes)
    await show_progress(here.destroy())


async def status(*, json: Json = False, target: Target | None = None) -> Exit:
    """Show components, lag, dead letters and scaling.

    The exit code is 4 if the pipeline is not running.
    """
    from nomnom_cli.output import as_json, print_note

    here = open_environment(target)
    components = await here.components()
    running = any(each.desired for each in components)
    scaling = await here.scaling() if running else None
    overview = None
    problem = ""
    if running:
        try:
            async with open_pipeline(target) as pipeline:
                overview = await pipeline.overview()
        except NomnomError as error:
            problem = str(error)
    if json:
        as_json(
            {
                "environment": here.location,
                "components": components,
                "scaling": scaling,
                "lag": overview and overview.lag,
                "dead_letters": overview and overview.dead_letters,
                "dead_letters_expiring": overview and overview.retention and overview.retention.expiring,
                "unexplained": overview and overview.balance and overview.balance.unexplained,
            }
        )
        return Exit.OK if running else Exit.NOT_RUNNING
    if not running:
        print_note(f"no pipeline is running in {here.location}{_kept(here)}; start it with `nomnom up`")
        return Exit.NOT_RUNNING
    _show_status(components, scaling, overview)
    if problem:
        print_note(problem, "red")
    return Exit.OK


def _kept(here: Environment) -> str:
    if here.kind != catalog.LOCAL:
        return ""
    from nomnom_control.environments.local.instance import Instance

    return " (data is kept)" if Instance(Path(here.location)).load().ports else ""


def _balance(balance: Balance) -> Cell:
    from nomnom_cli.output import styled

    if balance.unexplained:
        return styled(f"{balance.unexplained:,}, since {figures.when(balance.since)}: run nomnom account", "red")
    return f"0 (verified {figures.ago(balance.verified_at)})" if balance.verified_at else "not verified yet"


def _show_status(components: Sequence[Component], scaling: Scaling | None, overview: Overview | None) -> None:
    from nomnom_cli.output import Column, health, print_labelled, print_result, show_table

    columns = (Column("COMPONENT"), Column("HEALTH"), Column("READY", right=True), Column("VERSION"))
    rows: list[tuple[Cell, ...]] = [
        (each.name, health(each.health), f"{each.ready}/{each.desired}", each.version, each.detail)
        for each in components
    ]
    show_table((*columns, Column("", grows=True)), rows, "no components")
    print_result("")
    shown: dict[str, Cell] = {}
    if overview is not None:
        shown |= {Term.LAG: figures.count(overview.lag), Term.DEAD_LETTERS: figures.count(overview.dead_letters)}
        if overview.retention is not None and overview.retention.warning:
            shown["expiring"] = overview.retention.warning
        if overview.balance is not None:
            shown[Term.UNEXPLAINED] = _balance(overview.balance)
    if scaling is not None:
        shown["scaling"] = ("PAUSED, " if scaling.paused else "") + scaling.decision
    print_labelled(shown)
