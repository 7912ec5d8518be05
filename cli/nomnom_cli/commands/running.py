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

from nomnom_cli.exit_codes import Exit
from nomnom_cli.options import LOCAL, Flag, Json, Where, Yes, open_environment, open_pipeline
from nomnom_cli.prompts import confirm

if TYPE_CHECKING:
    from nomnom.schema import Schema
    from nomnom_control.environments import Component, Environment, Scaling
    from nomnom_control.session.overview import Overview

_TPCH_EXAMPLE = "O|123|456|F|123.45|2024-01-01|urgent|clerk1|1|comment"
_Port = Annotated[int | None, Parameter(validator=Number(gte=1, lte=65535), show_default=False)]
_Whole = Annotated[int | None, Parameter(validator=Number(gte=0), show_default=False)]


async def setup(*, wait: Annotated[float, Parameter(validator=Number(gte=0))] = 30.0) -> None:
    """Make or migrate streams and tables.

    It is safe to repeat, and at once with others. NATS_URL, DATABASE_URL and NOMNOM_SCHEMA say where;
    DATABASE_WORKER_URL, ..._API_URL, ..._DASHBOARD_URL and ..._OPERATOR_URL, with which roles the components log in.

    Parameters
    ----------
    wait
        Seconds to wait for the servers.
    """
    from nomnom.settings import SetupSettings
    from nomnom.setup import roles_of, set_up
    from nomnom_cli.output import tell

    settings = SetupSettings.from_environment()
    for line in await set_up(settings, wait, roles_of(settings)):
        tell(line)


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
    where: Where | None = None,
) -> Exit:
    """Run the whole pipeline on this machine.

    It runs until Ctrl-C or nomnom down. What is chosen here holds for later runs too; data stay between runs.

    Parameters
    ----------
    schema
        tpch, ecommerce or a schema file.
    port
        The api's port; each port is the usual one where it is free, or any.
    dashboard_port
        The dashboard's API.
    page_port
        The dashboard's page.
    nats_port
        nats-server.
    monitor_port
        nats-server's monitoring.
    postgres_port
        PostgreSQL.
    minimum
        Fewest workers; 0 lets them end when nothing waits.
    maximum
        Most workers.
    threshold
        The lag that one worker is for.
    cooldown
        Seconds without lag before the last worker ends.
    detach
        Come back once it runs.
    check
        Post one example record and follow it until it is completed.
    """
    from nomnom_cli.output import say, show_progress, show_step

    ports = {
        "api": port, "dashboard": dashboard_port, "page": page_port,
        "nats": nats_port, "nats_monitor": monitor_port, "postgres": postgres_port,
    }  # fmt: skip
    policy = {"minimum": minimum, "maximum": maximum, "threshold": threshold, "cooldown": cooldown}
    here = open_environment(where)
    if here.kind != LOCAL:
        confirm(f"Start on {here.location}?", here.plan("start"), yes=yes)
        await show_progress(here.start())
        say(f"it is up on {here.location}: nomnom status and the app look at it", "dim")
        await here.close()
        return Exit.OK
    if detach:
        given = {"schema": schema, **ports, **policy}
        chosen = {name: str(value) for name, value in given.items() if value is not None}
        await show_progress(here.with_options(chosen).start())
        return Exit.OK if await _welcome(where, check=check) else Exit.FAILED
    from nomnom.settings import Settings
    from nomnom.telemetry import configure_logging
    from nomnom_control.environments.local.instance import Instance
    from nomnom_control.environments.local.supervisor import Supervisor

    configure_logging("supervisor", Settings(log_level="error"))
    supervisor = Supervisor(
        Instance((where or Where()).dir),
        schema,
        {name: value for name, value in ports.items() if value is not None},
        {name: value for name, value in policy.items() if value is not None},
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, supervisor.interrupt)

    async def ready() -> None:
        await _welcome(where, check=check)
        say("next, in another terminal: nomnom demo, nomnom status, nomnom (the app)", "dim")
        say("Ctrl-C stops it (a second one at once); the data stay.", "dim")
        await _live(open_environment(where))

    await supervisor.run(show_step, ready)
    return Exit.OK


async def _welcome(where: Where | None, *, check: bool) -> bool:
    """Say where what is; with ``check``, whether a record arrived."""
    from nomnom.envelope import Status
    from nomnom_cli.output import say, status, tell

    here = open_environment(where)
    ends, schema = await here.endpoints(), await here.schema()
    example = _example(schema)
    tell("")
    tell(f"nomnom is up    {ends.api}/docs", "bold")
    tell(f"dashboard       {ends.dashboard}")
    tell(f"data and logs   {here.location}")
    tell("")
    tell(f"  curl -H 'Content-Type: text/plain' -d {shlex.quote(example)} {ends.api}/api/ingest/message")
    tell("")
    if not check:
        return True
    async with open_pipeline(where) as pipeline:
        posted = await pipeline.messages.post(example)
        async for state in pipeline.messages.follow(posted.message_id, timeout=60):
            tell(status(state.status.value).append(f"  example record {posted.message_id}", ""))
            if state.status is Status.COMPLETED:
                return True
    say(f"the example record was not completed: nomnom message {posted.message_id} tells why", "red")
    return False


def _example(schema: Schema) -> str:
    from nomnom_control.sending.examples import example_message

    if schema.name == "tpch":
        return _TPCH_EXAMPLE
    first = next(each for each in schema if each.parent is None)
    return example_message(schema, first).partition("\n")[0]


async def _live(here: Environment) -> None:
    """One line of figures that changes in place, where a person watches."""
    from rich.live import Live
    from rich.text import Text

    from nomnom_cli.output import errors, interactive
    from nomnom_control.errors import ControlError

    def line(text: str, style: str) -> Text:
        return Text(text, style, no_wrap=True, overflow="ellipsis")

    if not interactive():
        return
    with Live(Text(""), console=errors(), auto_refresh=False, transient=True) as live:
        while True:
            try:
                now = await here.scaling()
            except ControlError as error:
                live.update(line(str(error), "yellow"), refresh=True)
            else:
                live.update(line(_figures(now), "dim"), refresh=True)
            await asyncio.sleep(1)


def _figures(now: Scaling) -> str:
    from nomnom_control.rendering import count

    paused = "PAUSED, " if now.paused else ""
    return f"lag {count(now.lag)}   workers {now.ready} of {now.desired}   {paused}{now.decision}"


async def down(*, yes: Yes = False, where: Where | None = None) -> None:
    """Stop the pipeline in order; its data stay."""
    from nomnom_cli.output import show_progress

    here = open_environment(where)
    if here.kind != LOCAL:
        confirm(f"Stop on {here.location}?", here.plan("stop"), yes=yes)
    await show_progress(here.stop())


async def destroy(*, yes: Yes = False, where: Where | None = None) -> None:
    """Stop the pipeline and remove its data."""
    from nomnom_cli.output import show_progress

    here = open_environment(where)
    confirm("Remove it?", here.losses(), yes=yes)
    await show_progress(here.destroy())


async def status(*, json: Json = False, where: Where | None = None) -> Exit:
    """Components, backlog, dead letters, scaling.

    The exit code is 4 where nothing runs.
    """
    from nomnom_cli.output import as_json, say
    from nomnom_control.errors import ControlError

    here = open_environment(where)
    components = await here.components()
    running = any(each.desired for each in components)
    scaling = await here.scaling() if running else None
    overview = None
    problem = ""
    if running:
        try:
            async with open_pipeline(where) as pipeline:
                overview = await pipeline.overview()
        except ControlError as error:
            problem = str(error)
    if json:
        as_json(
            {
                "environment": here.location,
                "components": components,
                "scaling": scaling,
                "lag": overview and overview.lag,
                "dead_letters": overview and overview.dead_letters,
            }
        )
        return Exit.OK if running else Exit.NOT_RUNNING
    if not running:
        say(f"nothing runs in {here.location}{_kept(here)}: nomnom up starts it")
        return Exit.NOT_RUNNING
    _show_status(components, scaling, overview)
    if problem:
        say(problem, "red")
    return Exit.OK


def _kept(here: Environment) -> str:
    if here.kind != LOCAL:
        return ""
    from nomnom_control.environments.local.instance import Instance

    return "; its data are there" if Instance(Path(here.location)).load().ports else ""


def _show_status(components: Sequence[Component], scaling: Scaling | None, overview: Overview | None) -> None:
    from nomnom_cli.output import Cell, Column, health, show_table, styled, tell
    from nomnom_control.rendering import count

    columns = (Column("COMPONENT"), Column("HEALTH"), Column("READY", right=True), Column("VERSION"))
    rows: list[tuple[Cell, ...]] = [
        (each.name, health(each.health), f"{each.ready}/{each.desired}", each.version, each.detail)
        for each in components
    ]
    show_table((*columns, Column("", grows=True)), rows, "no components")
    tell("")
    figures: dict[str, str] = {}
    if overview is not None:
        figures |= {"lag": count(overview.lag), "dead letters": count(overview.dead_letters)}
    if scaling is not None:
        figures["scaling"] = ("PAUSED, " if scaling.paused else "") + scaling.decision
    for label, text in figures.items():
        tell(styled(label.ljust(14), "dim").append(text, ""))
