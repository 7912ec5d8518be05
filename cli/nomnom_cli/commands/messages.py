"""``nomnom post``, ``message`` and ``messages``."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from nomnom.presentation import figures
from nomnom.presentation.terms import Term
from nomnom_cli.exit_codes import Exit
from nomnom_cli.options import Flag, Json, Target, open_pipeline
from nomnom_cli.prompts import UsageError

if TYPE_CHECKING:
    from nomnom.envelope import Status
    from nomnom.inspection.history import Operation
    from nomnom_control.session.messages import State
    from nomnom_control.session.pipeline import Pipeline


async def post(
    text: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    wait: Flag = False,
    timeout: Annotated[float, Parameter(validator=Number(gt=0))] = 60.0,
    key: Annotated[str | None, Parameter(show_default=False)] = None,
    json: Json = False,
    target: Target | None = None,
) -> Exit:
    """Post one message: a record, or a parent record with its children.

    Parameters
    ----------
    text
        The message, or - for standard input. `\\n` starts a new line.
    wait
        Wait until it is completed or a dead letter; the exit code is 1 if it is not completed.
    timeout
        Maximum seconds to wait.
    key
        Idempotency key: repeating it does not create a second message.
    """
    from nomnom_cli.output import as_json, print_result

    content = await asyncio.to_thread(sys.stdin.buffer.read) if text == "-" else text.replace("\\n", "\n").encode()
    async with open_pipeline(target) as pipeline:
        posted = await pipeline.messages.post(content, idempotency_key=key)
        if wait:
            return await _follow(pipeline, posted.message_id, timeout, json=json)
        if json:
            as_json(posted)
        else:
            print_result(f"{posted.message_id} {posted.status.value}" + (" (duplicate)" if posted.duplicate else ""))
    return Exit.OK


async def message(
    message_id: str,
    /,
    *,
    follow: Annotated[Flag, Parameter(name=("--follow", "-f"))] = False,
    timeout: Annotated[float | None, Parameter(validator=Number(gt=0), show_default=False)] = None,
    json: Json = False,
    target: Target | None = None,
) -> Exit:
    """Show the status of a message, and what operators did to it.

    Parameters
    ----------
    message_id
        The message ID.
    follow
        Follow it until it is completed or a dead letter; the exit code is 1 if it is not completed.
    timeout
        Maximum seconds to follow it. Default: no limit.
    """
    import msgspec

    from nomnom.connections.errors import RequestError
    from nomnom_cli.output import as_json, print_note

    async with open_pipeline(target) as pipeline:
        if follow:
            return await _follow(pipeline, message_id, timeout, json=json)
        state = await pipeline.messages.state(message_id)
        history: list[Operation] | None = None
        try:
            history = await pipeline.audit.history(state.message_id, state.removed_at)
        except RequestError as error:
            print_note(f"the audit log cannot be read: {error}")
        if json:
            operations = None if history is None else [asdict(each) for each in history]
            as_json({**msgspec.structs.asdict(state), "history": operations})
        else:
            _describe(state, history or [])
    return Exit.OK


async def _follow(pipeline: Pipeline, message_id: str, timeout: float | None, *, json: bool) -> Exit:
    from nomnom.envelope import Status
    from nomnom_cli.output import as_json_line, print_note, print_result, status

    last: State | None = None
    async for state in pipeline.messages.follow(message_id, timeout=timeout):
        last = state
        if json:
            as_json_line(state)
            continue
        line = status(state.status)
        line.append(f"  {state.message_id}", "dim")
        line.append(f"  attempt {state.retry_count}" if state.status is Status.FAILED else "", "dim")
        line.append(f"  {state.error}" if state.error else "", "")
        print_result(line)
    if last is not None and last.status is Status.COMPLETED:
        return Exit.OK
    if last is not None and not last.final and not json:
        print_note(f"still {last.status.value} after {timeout:g} s" if timeout else "stopped before it was final")
    return Exit.FAILED


def _describe(state: State, history: Sequence[Operation]) -> None:
    from nomnom.presentation.marks import STATUSES, SUPERSEDED
    from nomnom_cli.output import Cell, print_labelled, print_result, status

    lines: dict[str, Cell] = {
        Term.MESSAGE: state.message_id,
        Term.ENTITY: state.entity or figures.NONE,
        Term.STATUS: status(state.status),
        Term.RECEIVED: figures.when(state.received_at),
        STATUSES[state.status].label if state.removed_at else Term.PROCESSED: figures.when(state.processed_at),
        Term.FAILED_ATTEMPTS: f"{state.retry_count:,}" if state.retry_count else "",
        Term.ERROR: state.error or "",
        SUPERSEDED.label: SUPERSEDED.meaning if state.superseded else "",
    }
    print_labelled(lines)
    for each in history:
        print_result(f"{figures.when(each.at)}  {each}")


async def messages(
    *,
    status: Annotated[str | None, Parameter(show_default=False)] = None,
    entity: Annotated[str | None, Parameter(show_default=False)] = None,
    limit: Annotated[int, Parameter(name=("--limit", "-n"), validator=Number(gte=1, lte=10_000))] = 20,
    after: Annotated[str | None, Parameter(show_default=False)] = None,
    json: Json = False,
    target: Target | None = None,
) -> None:
    """List messages that workers have processed, newest first.

    Parameters
    ----------
    status
        processing, completed, failed, dlq, deleted, purged or expired.
    entity
        An entity's name or tag.
    limit
        Maximum number of results.
    after
        Continue after this message ID.
    """
    from nomnom_cli import output

    wanted = _status(status)
    async with open_pipeline(target) as pipeline:
        name = pipeline.schema.entity(entity).name if entity else None
        start = None
        if after is not None:
            await pipeline.messages.state(after)
            start = await pipeline.statuses.find(after)
        found = await pipeline.statuses.recent(wanted, entity=name, after=start, limit=limit)
    if json:
        output.as_json([asdict(each) for each in found])
        return
    columns = (
        output.Column(Term.MESSAGE.upper()),
        output.Column(Term.ENTITY.upper()),
        output.Column(Term.STATUS.upper()),
        output.Column(Term.RECEIVED.upper(), right=True),
        output.Column(Term.LATENCY.upper(), right=True),
        output.Column("", grows=True),
    )
    from nomnom.presentation.marks import SUPERSEDED

    rows = [
        (
            each.message_id,
            each.entity,
            output.status(each.status),
            figures.ago(each.received_at),
            figures.duration((each.processed_at - each.received_at).total_seconds()) if each.processed_at else "",
            each.error or (SUPERSEDED.label if each.superseded else ""),
        )
        for each in found
    ]
    output.show_table(columns, rows, "no messages; pending ones are in the stream: nomnom stream messages")
    if len(found) == limit:
        output.print_note(f"next page: --after {found[-1].message_id}", "dim")


def _status(text: str | None) -> Status | None:
    from nomnom.envelope import Status

    if text is None:
        return None
    known = [each.value for each in Status if each is not Status.ACCEPTED]
    if text not in known:
        raise UsageError(f"unknown status {text!r}; available: {', '.join(known)}")
    return Status(text)
