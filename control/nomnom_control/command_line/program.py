"""The commands."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

import nomnom
from nomnom_control.command_line import Exit, Stop
from nomnom_control.command_line.dead_letters import dlq
from nomnom_control.command_line.inspection import consumer, stream
from nomnom_control.command_line.output import (
    confirm,
    console,
    problems,
    show_json,
    show_json_line,
    show_progress,
    show_step,
    show_table,
)
from nomnom_control.command_line.target import Directory, Json, Yes, environment, pairs, pipeline
from nomnom_control.environment import WORKER, LogLine, ScalingRule

app = App(
    name="nomnom",
    version=nomnom.__version__,
    help=(
        "Takes pipe-delimited records over HTTP, keeps them in NATS JetStream, writes them to PostgreSQL.\n\n"
        "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 partly done, 4 nothing runs or answers, 5 not confirmed, "
        "130 interrupted."
    ),
    exit_on_error=False,
    print_error=False,
)
app.command(dlq)
app.command(stream)
app.command(consumer)
app.register_install_completion_command(name="--install-completion")
_EXAMPLE = "O|123|456|F|123.45|2024-01-01|urgent|clerk1|1|comment"


@app.command
async def setup(*, wait: float = 30.0) -> None:
    """Make streams and tables, or bring them forward: NATS_URL, DATABASE_URL, NOMNOM_SCHEMA say where and what."""
    from nomnom.settings import Settings
    from nomnom.setup import set_up

    for line in await set_up(Settings.from_environment(), wait):
        console.print(line)


@app.command
async def up(
    *,
    dir: Directory = None,  # noqa: A002
    schema: str | None = None,
    port: int | None = None,
    detach: bool = False,
    check: bool = False,
) -> None:
    """Run the whole pipeline on this machine, until Ctrl-C or 'nomnom down'.

    ``--port`` is the api's; ``--check`` posts one example order at the start and waits until it is completed.
    """
    from nomnom.settings import Settings
    from nomnom.telemetry import configure_logging
    from nomnom_control.local.instance import Instance
    from nomnom_control.local.supervisor import Supervisor

    here = environment(dir)
    if detach:
        await show_progress(here.with_options({"schema": schema} if schema else {}).start())
        await _welcome(dir, check=check)
        return
    supervisor = Supervisor(Instance(dir), schema, {"api": port} if port else None)
    configure_logging("supervisor", Settings(log_level="error"))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, supervisor.interrupt)

    async def ready() -> None:
        await _welcome(dir, check=check)
        console.print("Ctrl-C stops it; the data stay.", style="dim")

    await supervisor.run(show_step, ready)


async def _welcome(folder: Path | None, *, check: bool) -> None:
    here = environment(folder)
    where = await here.endpoints()
    console.print(f"\nnomnom is up: [bold]{where.api}[/]  (documentation: {where.api}/docs)")
    console.print(f"data and logs: {here.location}")
    example = f"curl -H 'Content-Type: text/plain' -d '{_EXAMPLE}' {where.api}/api/ingest/message"
    console.print(f"\n{example}\n", soft_wrap=True)  # to be copied whole
    if check:
        async with pipeline(folder) as opened:
            posted = await opened.messages.post(_EXAMPLE)
            async for state in opened.messages.follow(posted.message_id, timeout=60):
                console.print(f"example order {posted.message_id}: {state.status}")


@app.command
async def down(*, dir: Directory = None) -> None:  # noqa: A002
    """Stop the pipeline in order; the data stay."""
    await show_progress(environment(dir).stop())


@app.command
async def destroy(*, dir: Directory = None, yes: Yes = False) -> None:  # noqa: A002
    """Stop the pipeline and remove its data."""
    here = environment(dir)
    confirm(here.losses(), yes)
    await show_progress(here.destroy())


@app.command
async def status(*, dir: Directory = None, json: Json = False) -> None:  # noqa: A002
    """All components, the backlog and the dead letters."""
    here = environment(dir)
    found = await here.components()
    running = any(each.desired for each in found)
    if json:
        scaling = await here.scaling() if running else None
        show_json({"environment": here.location, "components": found, "scaling": scaling})
    else:
        rows = [(each.name, each.health, f"{each.ready}/{each.desired}", each.detail) for each in found]
        show_table(("COMPONENT", "HEALTH", "READY", "DETAIL"), rows, "no components")
        if running:
            async with pipeline(dir) as opened:
                seen = await opened.overview()
            scaling = await here.scaling()
            console.print(f"\nlag {_number(seen.lag)}   dead letters {_number(seen.dead_letters)}   {scaling.decision}")
    if not running:
        raise Stop(Exit.NOT_RUNNING)


def _number(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"


@app.command
async def scale(
    replicas: int | None = None,
    *,
    auto: bool = False,
    min: int | None = None,  # noqa: A002
    max: int | None = None,  # noqa: A002
    threshold: int | None = None,
    cooldown: float | None = None,
    dir: Directory = None,  # noqa: A002
    json: Json = False,
) -> None:
    """Show the workers' scaling; hold REPLICAS by hand, let the rule decide again with --auto, or change the rule."""
    here = environment(dir)
    if replicas is not None:
        await here.scale(WORKER, replicas)
    if auto:
        await here.resume_autoscaling()
    if any(each is not None for each in (min, max, threshold, cooldown)):
        rule = (await here.scaling()).rule
        await here.set_scaling_rule(
            ScalingRule(
                rule.minimum if min is None else min,
                rule.maximum if max is None else max,
                rule.threshold if threshold is None else threshold,
                rule.cooldown if cooldown is None else cooldown,
                rule.polling,
            )
        )
    now = await here.scaling()
    if json:
        show_json(now)
        return
    rule = now.rule
    console.print(f"workers {now.ready} ready of {now.actual}, {now.desired} desired; lag {_number(now.lag)}")
    console.print(f"rule: lag / {rule.threshold:,} from {rule.minimum} to {rule.maximum}, cooldown {rule.cooldown:g} s")
    console.print(("[bold]PAUSED[/] " if now.paused else "") + now.decision)


@app.command
async def restart(component: str, *, dir: Directory = None) -> None:  # noqa: A002
    """Restart the api or the workers, one after another."""
    await show_progress(environment(dir).restart(component))


@app.command
async def config(component: str, *settings: str, dir: Directory = None) -> None:  # noqa: A002
    """Roll out changed settings: nomnom config worker BATCH_SIZE=1000."""
    changed = pairs(settings)
    cause = f"set {', '.join(changed)}"
    await show_progress(environment(dir).configure(component, changed, cause))


@app.command
async def history(component: str, *, dir: Directory = None, json: Json = False) -> None:  # noqa: A002
    """The revisions of a component's settings, newest first."""
    found = await environment(dir).history(component)
    if json:
        show_json(found)
        return
    rows = [(each.number, f"{each.at.astimezone():%F %T}", "now" if each.current else "", each.cause) for each in found]
    show_table(("REVISION", "AT", "", "CAUSE"), rows, f"no revisions of {component}")


@app.command
async def rollback(component: str, revision: int | None = None, *, dir: Directory = None) -> None:  # noqa: A002
    """Roll out an earlier revision's settings; the one before by default."""
    await show_progress(environment(dir).rollback(component, revision))


@app.command
async def logs(
    *components: str,
    follow: Annotated[bool, Parameter(alias="-f")] = False,
    tail: int = 100,
    level: str | None = None,
    dir: Directory = None,  # noqa: A002
    json: Json = False,
) -> None:
    """What the components wrote, merged; -f goes on through restarts."""
    async for each in environment(dir).logs(components, follow=follow, tail=tail):
        if level is not None and each.level != level:
            continue
        if json:
            show_json_line(each)
        else:
            _show_line(each)


def _show_line(line: LogLine) -> None:
    at = f"{line.at.astimezone():%T.%f}"[:-3] if line.at else " " * 12
    extra = " ".join(f"{k}={v}" for k, v in line.fields.items() if k not in ("logger", "component"))
    style = {"error": "red", "warning": "yellow", "debug": "dim"}.get(line.level)
    console.print(f"{at} {line.component:<8} {line.level:<7} {line.text} {extra}".rstrip(), style=style, markup=False)


@app.command
async def post(
    text: Annotated[str, Parameter(allow_leading_hyphen=True)],
    *,
    wait: bool = False,
    dir: Directory = None,  # noqa: A002
    json: Json = False,
) -> None:
    """Post one message ('-': from standard input); --wait follows it until it is completed or a dead letter."""
    content = sys.stdin.buffer.read() if text == "-" else text.replace("\\n", "\n")
    async with pipeline(dir) as opened:
        posted = await opened.messages.post(content)
        if not wait:
            show_json(posted) if json else console.print(f"{posted.message_id} {posted.status}")
            return
        await _follow(opened.messages.follow(posted.message_id, timeout=120), json=json)


@app.command
async def message(id: str, *, follow: bool = False, dir: Directory = None, json: Json = False) -> None:  # noqa: A002
    """Where a message is."""
    async with pipeline(dir) as opened:
        if follow:
            await _follow(opened.messages.follow(id, timeout=None), json=json)
            return
        state = await opened.messages.state(id)
        show_json(state) if json else console.print(f"{state.message_id} {state.status} {state.error or ''}".rstrip())


async def _follow(states: AsyncIterator[object], *, json: bool) -> None:
    last = None
    async for last in states:
        status, error = getattr(last, "status", ""), getattr(last, "error", None)
        show_json_line(last) if json else console.print(f"{status} {error or ''}".rstrip(), markup=False)
    if getattr(last, "status", None) != "completed":
        raise Stop(Exit.FAILED)


@app.command
async def ingest(
    *files: Annotated[str, Parameter(allow_leading_hyphen=True)],
    entity: str | None = None,
    restart: bool = False,
    dir: Directory = None,  # noqa: A002
    json: Json = False,
) -> None:
    """Send files of messages, one a line ('-': standard input), to the api; goes on where an earlier run stopped.

    ``--entity`` puts that entity's tag before each line, as a TPC-H .tbl file needs it.
    """
    from nomnom_control.sending import Sending

    here = environment(dir)
    tag = (await here.schema()).entity(entity).tag if entity else None
    where = await here.endpoints()
    work = Sending(where.api, where.api_token, Path(here.location) / "ingestion")
    refused = 0
    for name in files:
        steps = work.send_stream(sys.stdin.buffer, tag) if name == "-" else work.send(Path(name), tag, restart=restart)
        last = None
        with _bar(name, shown=sys.stderr.isatty() and not json) as advance:
            async for last in steps:
                advance(last.offset, last.size)
        if last is None:
            problems.print(f"{name}: all of it has been sent already; --restart sends it again", markup=False)
            continue
        refused += len(last.refused)
        for each in last.refused[:20]:
            problems.print(f"{name}:{each.line}: {each.detail}", markup=False)
        show_json(last) if json else console.print(
            f"{name}: {last.accepted:,} accepted, {len(last.refused):,} refused, {last.lines:,} lines"
            + (" (resumed)" if last.resumed else ""),
            markup=False,
        )
    if refused:
        raise Stop(Exit.PARTLY)


@contextmanager
def _bar(name: str, *, shown: bool) -> Generator[Callable[[int, int | None], None], None, None]:
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = ("[progress.description]{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=problems, disable=not shown) as progress:
        task = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@app.command
def schema(name: str = "tpch", *, json: Json = False) -> None:
    """Check a schema file, or one that comes with nomnom, and show its entities."""
    from nomnom.schema import load_schema

    loaded = load_schema(name)
    if json:
        show_json(loaded.describe())
        return
    rows = [(each.tag, each.name, len(each.fields), ", ".join(each.key)) for each in loaded]
    show_table(("TAG", "ENTITY", "FIELDS", "KEY"), rows, "no entities")
