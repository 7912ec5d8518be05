"""Changes to dead letters, with the equivalent commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nomnom.errors import NomnomError
from nomnom.presentation import figures
from nomnom_control.environments import Progress, Step
from nomnom_control.errors import ControlError
from nomnom_tui.app.changes import Change
from nomnom_tui.app.session import Session

if TYPE_CHECKING:
    from nomnom.inspection.dead_letters import Filter, Group
    from nomnom_control.session.dead_letters import Edit, Selection

_MAX_NAMED = 8
_MAX_FAILURES = 20


@dataclass(frozen=True, slots=True)
class Targets:
    """Dead letters to change: given sequences or all that match a filter, and their number."""

    selection: Selection
    count: int

    @property
    def title(self) -> str:
        """Short description, such as ``3 dead letters``."""
        if self.count == 1 and isinstance(self.selection, Sequence):
            return f"dead letter {self.selection[0]:,}"
        return figures.counted(self.count, "dead letter")

    @property
    def options(self) -> str:
        """The command-line options that select the same dead letters."""
        if isinstance(self.selection, Sequence):
            named = " ".join(f"--seq {each}" for each in self.selection[:_MAX_NAMED])
            return named + (" …" if len(self.selection) > _MAX_NAMED else "")
        words = self.selection.describe()
        return shlex.quote(words) if words else "--all"

    @property
    def description(self) -> str:
        """Description for a confirmation."""
        if isinstance(self.selection, Sequence):
            return self.title
        words, counted = self.selection.describe(), figures.counted(self.count, "dead letter")
        return f"all {counted} matching {words}" if words else f"all {counted}"


def replay_change(session: Session, targets: Targets, edit: Edit | None = None, rate: float | None = None) -> Change:
    """Return the change that republishes dead letters for the workers, at most ``rate`` per second."""
    options = targets.options + edit_options(edit)
    if rate is not None:
        options += f" --rate {rate:g}"
    command = session.command(f"dlq replay {options}")
    if targets.count == 1:
        return Change(
            f"Replay {targets.title}",
            command,
            act=lambda: _replay_one(session, targets, edit),
            success="Replayed",
        )
    return Change(
        f"Replay {targets.title}",
        command,
        begin=lambda: _replay(session, targets, edit, rate),
        plan=(
            f"{targets.description} return to the stream" + (f", at most {rate:g}/s" if rate else ""),
            "messages that are processed leave the dead letters; messages that fail again come back",
            "unprocessed replays can be undone from the audit log",
        ),
    )


def edit_options(edit: Edit | None) -> str:
    """Return the command-line options that make the same edit."""
    if edit is None:
        return ""
    if edit.payload is not None:
        return " --edit"
    return "".join(f" --set {shlex.quote(f'{name}={value}')}" for name, value in edit.fields.items())


def delete_change(session: Session, targets: Targets) -> Change:
    """Return the change that deletes dead letters permanently."""

    async def act() -> None:
        pipeline = await session.pipeline()
        await pipeline.dead_letters.delete(targets.selection, expected_count=targets.count)

    return Change(
        f"Delete {targets.title}",
        session.command(f"dlq delete {targets.options}"),
        act=act,
        losses=(f"{targets.description}, never processed (kept in the audit log only)",),
        confirm_text=None if targets.count == 1 else str(targets.count),
        timeout=120,
    )


def undo_change(session: Session, *, run: str, message_id: str | None = None) -> Change:
    """Return the change that undoes unprocessed replays: of one message, or of a whole run."""

    async def act() -> None:
        from nomnom_control.session.dead_letters import UndoResult

        pipeline = await session.pipeline()
        if message_id is not None:
            found = await pipeline.dead_letters.undo(message_id=message_id)
        else:
            found = await pipeline.dead_letters.undo(run=run)
        undone = sum(each.result is UndoResult.UNDONE for each in found)
        if undone < len(found):
            reason = next(each.detail or each.result.value for each in found if each.result is not UndoResult.UNDONE)
            raise ControlError(f"{undone:,} of {len(found):,} undone; the rest: {reason}")

    option = f"--run {run}" if message_id is None else f"--message {message_id}"
    what = "the replays of this run" if message_id is None else "the last replay of this message"
    return Change(
        f"Undo {what}",
        session.command(f"dlq undo {option}"),
        act=act,
        plan=("unprocessed messages become dead letters again; the consumer is paused meanwhile",),
        timeout=120,
    )


async def _replay_one(session: Session, targets: Targets, edit: Edit | None) -> None:
    pipeline = await session.pipeline()
    run = await pipeline.dead_letters.replay(targets.selection, edit)
    await run.finish()
    if run.failures:
        raise ControlError(run.failures[0].detail)


async def _replay(session: Session, targets: Targets, edit: Edit | None, rate: float | None) -> AsyncIterator[Progress]:
    pipeline = await session.pipeline()
    step = "replay"
    yield Progress(step, Step.STARTED, "reading matching dead letters")
    run = await pipeline.dead_letters.replay(targets.selection, edit, rate=rate)
    async for progress in run:
        yield Progress(step, Step.STARTED, f"{progress.done:,} of {run.total:,}   {figures.rate(progress.rate)}")
    for each in run.failures[:_MAX_FAILURES]:
        yield Progress(step, Step.OUTPUT, f"dead letter {each.sequence:,}: {each.detail}")
    done = run.progress
    counts = ", ".join(f"{number:,} {result.value}" for result, number in done.counts.items() if number)
    state = Step.FAILED if run.failures else Step.DONE
    yield Progress(step, state, counts or "nothing to replay", done.seconds)


def fields_problem(text: str) -> str | None:
    """Return what is wrong with ``FIELD=VALUE …``, or None if it is valid."""
    try:
        parse_fields(text)
    except ControlError as error:
        return str(error)
    return None


def parse_fields(text: str) -> Edit:
    """Parse ``FIELD=VALUE …``, quoted as in a shell, into an edit; raises ControlError."""
    from nomnom_control.session.dead_letters import Edit

    try:
        words = shlex.split(text)
    except ValueError as problem:
        raise ControlError(str(problem)) from problem
    fields: dict[str, str] = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign or not name:
            raise ControlError(f"expected FIELD=VALUE, found {word!r}")
        fields[name] = value
    if not fields:
        raise ControlError("expected one or more FIELD=VALUE")
    return Edit(fields=fields)


def narrow(words: str, group: Group) -> str:
    """Narrow the filter ``words`` to one of the groups found with it; returns the new filter's words."""
    base = parse_filter(words)
    found = group.filter
    if not found.regex:
        return replace(base, reasons=found.reasons or base.reasons, entities=found.entities or base.entities).describe()

    def pattern(text: str) -> str:
        return text if base.regex else re.escape(text)

    shape = found.error
    error = f"^(?=.*{pattern(base.error)}){shape.removeprefix('^')}" if base.error else shape
    return replace(base, error=error, payload=pattern(base.payload), regex=True).describe()


def filter_problem(words: str) -> str | None:
    """Return what is wrong with a filter, or None if it is valid."""
    try:
        parse_filter(words)
    except NomnomError as error:
        return str(error)
    return None


def parse_filter(words: str) -> Filter:
    """Parse a filter; raises FilterError."""
    from nomnom.inspection.dead_letters import Filter

    return Filter.parse(words)
