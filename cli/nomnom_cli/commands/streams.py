"""``nomnom stream`` and ``nomnom consumer``: JetStream inspected without consuming."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from cyclopts import Parameter
from cyclopts.validators import Number

from nomnom.presentation import figures
from nomnom_cli.options import Flag, Json, Target, Yes, open_pipeline
from nomnom_cli.prompts import UsageError, confirm

if TYPE_CHECKING:
    from nomnom.inspection.jetstream import ConsumerReport, StoredMessage
    from nomnom_control.session.pipeline import Pipeline

_Stream: TypeAlias = Annotated[str | None, Parameter(help="Stream name. Default: the stream of accepted messages.")]
_Of: TypeAlias = Annotated[
    str | None,
    Parameter(name="--stream", help="Stream name. Default: the stream of accepted messages.", show_default=False),
]
_Consumer: TypeAlias = Annotated[str | None, Parameter(help="Consumer name. Default: the workers' consumer.")]
_SHOWN_PAYLOAD = 200


async def list_streams(*, json: Json = False, target: Target | None = None) -> None:
    """List streams and their sizes."""
    from nomnom_control.session.jetstream.streams import stream_row

    async with open_pipeline(target) as pipeline:
        found = await pipeline.jetstream.streams()
    _show_reports(
        [stream_row(each) for each in found], found, json=json, nothing="no streams; `nomnom setup` creates them"
    )


async def stream_info(stream: _Stream = None, /, *, json: Json = False, target: Target | None = None) -> None:
    """Show the configuration and state of a stream."""
    from nomnom_cli.output import as_json, print_properties
    from nomnom_control.session.jetstream.streams import stream_properties

    async with open_pipeline(target) as pipeline:
        found = await pipeline.jetstream.stream(stream or pipeline.streams.stream)
    if json:
        as_json(found)
    else:
        print_properties(stream_properties(found))


async def stream_messages(
    stream: _Stream = None,
    /,
    *,
    after: Annotated[int | None, Parameter(show_default=False)] = None,
    before: Annotated[int | None, Parameter(show_default=False)] = None,
    newest: Flag = False,
    limit: Annotated[int, Parameter(name=("--limit", "-n"), validator=Number(gte=1, lte=10_000))] = 20,
    json: Json = False,
    target: Target | None = None,
) -> None:
    """List the messages of a stream by sequence, oldest first (read-only).

    Parameters
    ----------
    after
        Only messages with a greater sequence.
    before
        Only messages with a smaller sequence.
    newest
        Newest first.
    limit
        Maximum number of results.
    """
    from nomnom_cli.output import Column, as_json, print_note, show_table

    async with open_pipeline(target) as pipeline:
        name = stream or pipeline.streams.stream
        page = await pipeline.jetstream.messages(name, after=after, before=before, limit=limit, newest_first=newest)
    if json:
        as_json({"messages": [_described(each) for each in page.messages], "more": page.more, "state": page.state})
        return
    columns = (
        Column("SEQUENCE", right=True),
        Column("STORED", right=True),
        Column("SIZE", right=True),
        Column("SUBJECT"),
        Column("PAYLOAD", grows=True),
    )
    rows = [
        (
            f"{each.sequence:,}",
            figures.ago(each.stored_at),
            figures.size(each.size),
            _subject(each),
            _text(each)[:_SHOWN_PAYLOAD],
        )
        for each in page.messages
    ]
    show_table(columns, rows, f"{name} is empty")
    if page.more and page.messages:
        backwards = newest or (before is not None and after is None)
        edge = min(each.sequence for each in page.messages) if backwards else page.messages[-1].sequence
        print_note(
            f"next page: {'--before' if backwards else '--after'} {edge}" + (" --newest" if newest else ""), "dim"
        )


async def peek(sequence: int, /, *, stream: _Of = None, json: Json = False, target: Target | None = None) -> None:
    """Show the headers and payload of one message (read-only).

    Parameters
    ----------
    sequence
        Its sequence in the stream.
    """
    from nomnom_cli.output import as_json, print_labelled, print_result
    from nomnom_control.errors import ControlError

    async with open_pipeline(target) as pipeline:
        name = stream or pipeline.streams.stream
        found = await pipeline.jetstream.peek(name, sequence)
    if found is None:
        raise ControlError(f"{name} has no message with sequence {sequence:,} (never existed, or removed)")
    if json:
        as_json(_described(found))
        return
    print_labelled({"subject": found.subject, "stored": figures.when(found.stored_at), **found.headers})
    print_result("")
    print_result(_text(found))


async def purge(stream: str, /, *, yes: Yes = False, json: Json = False, target: Target | None = None) -> None:
    """Delete all messages of a stream permanently; unprocessed messages are lost and get the status purged.

    Parameters
    ----------
    stream
        Stream name.
    """
    from nomnom_cli.output import as_json, count_progress, print_result

    async with open_pipeline(target) as pipeline:
        state = (await pipeline.jetstream.stream(stream)).state
        confirm(f"Purge {stream}?", [f"{state.messages:,} messages of {stream} will be lost"], yes=yes, typed=stream)
        with count_progress("recording statuses", quiet=json) as progress:
            purged = await pipeline.jetstream.purge(stream, confirm=stream, last=state.last_seq, progress=progress)
    if json:
        as_json({"stream": stream, "purged": purged})
    else:
        print_result(f"{purged:,} messages deleted from {stream}")


async def list_consumers(stream: _Stream = None, /, *, json: Json = False, target: Target | None = None) -> None:
    """List the consumers of a stream: delivered and pending messages."""
    from nomnom_control.session.jetstream.consumers import consumer_row

    async with open_pipeline(target) as pipeline:
        name = stream or pipeline.streams.stream
        found = await pipeline.jetstream.consumers(name)
    _show_reports([consumer_row(each) for each in found], found, json=json, nothing=f"{name} has no consumers")


async def consumer_info(
    consumer: _Consumer = None, /, *, stream: _Of = None, json: Json = False, target: Target | None = None
) -> None:
    """Show the configuration and state of a consumer."""
    from nomnom_cli.output import print_properties
    from nomnom_control.session.jetstream.consumers import consumer_properties

    async with open_pipeline(target) as pipeline:
        found = await pipeline.jetstream.consumer(*_named(pipeline, stream, consumer))
    if json:
        _consumer_as_json(found)
    else:
        print_properties(consumer_properties(found))


async def pause(
    consumer: _Consumer = None,
    /,
    *,
    seconds: Annotated[float | None, Parameter(name="--for", validator=Number(gt=0), show_default=False)] = None,
    stream: _Of = None,
    json: Json = False,
    target: Target | None = None,
) -> None:
    """Pause deliveries to the workers until `nomnom consumer resume`; messages are still accepted.

    Parameters
    ----------
    seconds
        Resume automatically after this many seconds.
    """
    from nomnom_cli.output import print_result

    async with open_pipeline(target) as pipeline:
        until = None if seconds is None else datetime.now(UTC) + timedelta(seconds=seconds)
        found = await pipeline.jetstream.pause(*_named(pipeline, stream, consumer), until)
    if json:
        _consumer_as_json(found)
    elif seconds is None:
        print_result(f"{found.name} is paused; resume it with `nomnom consumer resume {found.name}`")
    else:
        print_result(f"{found.name} is paused until {figures.moment(found.paused_until, zone=True)}")


async def resume(
    consumer: _Consumer = None, /, *, stream: _Of = None, json: Json = False, target: Target | None = None
) -> None:
    """Resume deliveries to the workers."""
    from nomnom_cli.output import print_result

    async with open_pipeline(target) as pipeline:
        found = await pipeline.jetstream.resume(*_named(pipeline, stream, consumer))
    if json:
        _consumer_as_json(found)
    else:
        print_result(f"{found.name} is resumed; lag {found.lag:,}")


def _named(pipeline: Pipeline, stream: str | None, consumer: str | None) -> tuple[str, str]:
    if stream is not None and consumer is None:
        raise UsageError(f"name the consumer of stream {stream}")
    return stream or pipeline.streams.stream, consumer or pipeline.streams.consumer


def _consumer_as_json(found: ConsumerReport) -> None:
    import msgspec

    from nomnom_cli.output import as_json

    as_json({**msgspec.structs.asdict(found), "lag": found.lag})


def _show_reports(rows: Sequence[dict[str, str]], found: Sequence[object], *, json: bool, nothing: str) -> None:
    from nomnom_cli.output import Column, as_json, show_table

    if json:
        as_json(list(found))
        return
    names = list(rows[0]) if rows else []
    numeric = {name for name in names if all(row[name][:1].isdigit() for row in rows)}
    columns = [Column(name.upper(), right=name in numeric) for name in names]
    show_table(columns, [[row[name] for name in names] for row in rows], nothing, unfolds=True)


def _described(message: StoredMessage) -> dict[str, Any]:
    return {
        "stream": message.stream,
        "sequence": message.sequence,
        "subject": message.subject,
        "stored_at": message.stored_at,
        "headers": dict(message.headers),
        "size": message.size,
        "messages": message.messages,
        "payload": message.readable,
    }


def _text(message: StoredMessage) -> str:
    return message.readable.decode("utf-8", errors="replace")


def _subject(message: StoredMessage) -> str:
    # What follows the entity takes half a line.
    return ".".join(message.subject.split(".")[:3]) + ".…"
