"""``nomnom stream`` and ``nomnom consumer``: what JetStream holds."""

from __future__ import annotations

from cyclopts import App

from nomnom_control.command_line.output import confirm, console, show_json, show_table
from nomnom_control.command_line.target import Directory, Json, Yes, pipeline
from nomnom_control.jetstream.consumers import ConsumerReport
from nomnom_control.jetstream.streams import StreamReport

stream = App(name="stream", help="Streams and the messages in them.")
consumer = App(name="consumer", help="The workers' consumer.")


@stream.command(name="ls")
async def list_streams(*, dir: Directory = None, json: Json = False) -> None:  # noqa: A002
    """All streams."""
    async with pipeline(dir) as opened:
        _report(await opened.jetstream.streams(), json=json)


@stream.command(name="info")
async def show_stream(name: str = "MESSAGES", *, dir: Directory = None, json: Json = False) -> None:  # noqa: A002
    """Everything about one stream."""
    async with pipeline(dir) as opened:
        _facts(await opened.jetstream.stream(name), json=json)


@stream.command(name="purge")
async def purge_stream(name: str, *, dir: Directory = None, yes: Yes = False) -> None:  # noqa: A002
    """Remove every message of a stream."""
    async with pipeline(dir) as opened:
        held = (await opened.jetstream.stream(name)).state.messages
        confirm([f"{held:,} messages of {name}"], yes)
        console.print(f"{await opened.jetstream.purge(name, confirm=name):,} messages removed")


@consumer.command(name="ls")
async def list_consumers(name: str = "MESSAGES", *, dir: Directory = None, json: Json = False) -> None:  # noqa: A002
    """The consumers of a stream."""
    async with pipeline(dir) as opened:
        _report(await opened.jetstream.consumers(name), json=json)


@consumer.command(name="info")
async def show_consumer(*, dir: Directory = None, json: Json = False) -> None:  # noqa: A002
    """Everything about the workers' consumer."""
    async with pipeline(dir) as opened:
        _facts(await opened.jetstream.consumer(opened.streams.stream, opened.streams.consumer), json=json)


@consumer.command
async def pause(*, dir: Directory = None) -> None:  # noqa: A002
    """Let the workers take no further message."""
    async with pipeline(dir) as opened:
        await opened.jetstream.pause(opened.streams.stream, opened.streams.consumer)
    console.print("paused: 'nomnom consumer resume' lets the workers go on")


@consumer.command
async def resume(*, dir: Directory = None) -> None:  # noqa: A002
    """Let the workers go on."""
    async with pipeline(dir) as opened:
        await opened.jetstream.resume(opened.streams.stream, opened.streams.consumer)
    console.print("resumed")


def _report(found: list[StreamReport] | list[ConsumerReport], *, json: bool) -> None:
    rows = [each.row() for each in found]
    if json:
        show_json(rows)
        return
    columns = list(rows[0]) if rows else []
    show_table([each.upper() for each in columns], [list(each.values()) for each in rows], "none: run 'nomnom setup'")


def _facts(report: StreamReport | ConsumerReport, *, json: bool) -> None:
    facts = report.facts()
    if json:
        show_json({f"{each.group}: {each.label}" if each.group else each.label: each.value for each in facts})
        return
    show_table(("", "", ""), [(each.group, each.label, each.value) for each in facts], "nothing")
