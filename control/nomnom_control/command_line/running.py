"""``nomnom setup``, ``up``, ``down``, ``destroy`` and ``status``."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from nomnom_control.command_line.asking import confirm
from nomnom_control.command_line.exits import Exit
from nomnom_control.command_line.options import Json, Where, Yes, open_environment, open_pipeline

if TYPE_CHECKING:
    from nomnom_control.environment import Environment, Scaling

EXAMPLES = {
    "tpch": "O|123|456|F|123.45|2024-01-01|urgent|clerk1|1|comment",
    "ecommerce": "CU|1|ada@example.com|Ada|GB|2024-01-01T10:00:00Z|",
}
_Port = Annotated[int | None, Parameter(validator=Number(gte=1, lte=65535), show_default=False)]
_Whole = Annotated[int | None, Parameter(validator=Number(gte=0), show_default=False)]


async def setup(*, wait: Annotated[float, Parameter(validator=Number(gte=0))] = 30.0) -> None:
    """Make streams and tables, or bring them forward; safe to repeat. NATS_URL, DATABASE_URL, NOMNOM_SCHEMA say where.

    Parameters
    ----------
    wait
        Seconds to wait for the servers.
    """
    from nomnom.settings import Settings
    from nomnom.setup import set_up
    from nomnom_control.command_line.output import tell

    for line in await set_up(Settings.from_environment(), wait):
        tell(line)


async def up(
    *,
    schema: Annotated[str | None, Parameter(show_default=False)] = None,
    port: _Port = None,
    dashboard_port: _Port = None,
    page_port: _Port = None,
    nats_port: _Port = None,
    monitor_port: _Port = None,
    postgres_port: _Port = None,
    minimum: Annotated[_Whole, Parameter(name="--min")] = None,
    maximum: Annotated[_Whole, Parameter(name="--max")] = None,
    threshold: _Whole = None,
    cooldown: Annotated[float | None, Parameter(validator=Number(gte=0), show_default=False)] = None,
    detach: Annotated[bool, Parameter(name=("--detach", "-d"), negative="")] = False,
    check: Annotated[bool, Parameter(negative="")] = False,
    where: Where | None = None,
) -> None:
    """Run the whole pipeline on this machine, until Ctrl-C or nomnom down. What is chosen here holds for later runs.

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
    from nomnom_control.command_line.output import say, show_progress, show_step

    ports = {
        "api": port, "dashboard": dashboard_port, "page": page_port,
        "nats": nats_port, "nats_monitor": monitor_port, "postgres": postgres_port,
    }  # fmt: skip
    rule = {"minimum": minimum, "maximum": maximum, "threshold": threshold, "cooldown": cooldown}
    if detach:
        given = {"schema": schema, **ports, **rule}
        chosen = {name: str(value) for name, value in given.items() if value is not None}
        await show_progress(open_environment(where).with_options(chosen).start())
        await _welcome(where, check=check)
        return
    from nomnom.settings import Settings
    from nomnom.telemetry import configure_logging
    from nomnom_control.local.instance import Instance
    from nomnom_control.local.supervisor import Supervisor

    configure_logging("supervisor", Settings(log_level="error"))
    supervisor = Supervisor(
        Instance((where or Where()).dir),
        schema,
        {name: value for name, value in ports.items() if value is not None},
        {name: value for name, value in rule.items() if value is not None},
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, supervisor.interrupt)

    async def ready() -> None:
        await _welcome(where, check=check)
        say("Ctrl-C stops it (a second one at once); the data stay.", "dim")
        await _live(open_environment(where))

    await supervisor.run(show_step, ready)


async def _welcome(where: Where | None, *, check: bool) -> None:
    from nomnom_control.command_line.output import status, tell

    here = open_environment(where)
    ends, schema = await here.endpoints(), await here.schema()
    example = EXAMPLES.get(schema.name)
    tell("")
    tell(f"nomnom is up    {ends.api}/docs", "bold")
    tell(f"dashboard       {ends.dashboard}")
    tell(f"data and logs   {here.location}")
    if example is None:
        return
    tell("")
    tell(f"  curl -H 'Content-Type: text/plain' -d '{example}' {ends.api}/api/ingest/message")
    tell("")
    if check:
        async with open_pipeline(where) as pipeline:
            posted = await pipeline.messages.post(example)
            async for state in pipeline.messages.follow(posted.message_id, timeout=60):
                tell(status(state.status.value).append(f"  example record {posted.message_id}", ""))


async def _live(here: Environment) -> None:
    """One line of figures that changes in place, where a person watches."""
    from rich.live import Live
    from rich.text import Text

    from nomnom_control.command_line.output import errors, interactive
    from nomnom_control.errors import ControlError

    if not interactive():
        return
    with Live(Text(""), console=errors(), auto_refresh=False, transient=True) as live:
        while True:
            try:
                now = await here.scaling()
            except ControlError as error:
                live.update(Text(str(error), "yellow"), refresh=True)
            else:
                live.update(Text(_figures(now), "dim"), refresh=True)
            await asyncio.sleep(1)


def _figures(now: Scaling) -> str:
    from nomnom_control.rendering import count

    paused = "PAUSED   " if now.paused else ""
    return f"{paused}lag {count(now.lag)}   workers {now.ready} of {now.desired}   {now.decision}"


async def down(*, where: Where | None = None) -> None:
    """Stop the pipeline in order; the data stay."""
    from nomnom_control.command_line.output import show_progress

    await show_progress(open_environment(where).stop())


async def destroy(*, yes: Yes = False, where: Where | None = None) -> None:
    """Stop the pipeline and remove its data."""
    from nomnom_control.command_line.output import show_progress

    here = open_environment(where)
    confirm("Remove it?", here.losses(), yes=yes)
    await show_progress(here.destroy())


async def status(*, json: Json = False, where: Where | None = None) -> Exit:
    """All components, the backlog and the dead letters; the exit code is 4 where nothing runs."""
    from nomnom_control.command_line.output import as_json, say
    from nomnom_control.errors import ControlError
    from nomnom_control.local.instance import Instance

    here = open_environment(where)
    components = await here.components()
    running = any(each.desired for each in components)
    scaling = await here.scaling() if running else None
    overview = None
    trouble = ""
    if running:
        try:
            async with open_pipeline(where) as pipeline:
                overview = await pipeline.overview()
        except ControlError as error:
            trouble = str(error)
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
        known = Instance(Path(here.location)).load().ports
        kept = "; its data are there" if known else ""
        say(f"nothing runs in {here.location}{kept}: nomnom up starts it")
        return Exit.NOT_RUNNING
    _show_status(components, scaling, overview)
    if trouble:
        say(trouble, "red")
    return Exit.OK


def _show_status(components: object, scaling: Scaling | None, overview: object) -> None:
    from nomnom_control.command_line.output import Column, health, show_table, styled, tell
    from nomnom_control.environment import Component
    from nomnom_control.overview import Overview
    from nomnom_control.rendering import count

    assert isinstance(components, list)
    columns = (Column("COMPONENT"), Column("HEALTH"), Column("READY", right=True), Column("VERSION"))
    rows: list[tuple[str, ...]] = []
    for each in components:
        assert isinstance(each, Component)
        rows.append((each.name, health(each.health), f"{each.ready}/{each.desired}", each.version, each.detail))  # type: ignore[arg-type]
    show_table((*columns, Column("", grows=True)), rows, "no components")
    tell("")
    figures = {"lag": "", "dead letters": ""}
    if isinstance(overview, Overview):
        figures = {"lag": count(overview.lag), "dead letters": count(overview.dead_letters)}
    if scaling is not None:
        figures["scaling"] = ("PAUSED, " if scaling.paused else "") + scaling.decision
    for label, text in figures.items():
        if text:
            tell(styled(label.ljust(14), "dim").append(text, ""))
