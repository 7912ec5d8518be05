"""What can be done to dead letters, as changes with the commands that do the same."""

from __future__ import annotations

import re
import shlex
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from nomnom.errors import NomnomError
from nomnom_control.environments import Progress, Step
from nomnom_control.errors import ControlError
from nomnom_tui.app.changes import Change
from nomnom_tui.app.session import Session

if TYPE_CHECKING:
    from nomnom.inspection.dead_letters import Filter, Group
    from nomnom_control.session.dead_letters import Edit, Selection

_NAMED = 8
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Chosen:
    """Letters that a change is about: some sequences, or all that match a filter; and how many they are."""

    selection: Selection
    count: int

    @property
    def title(self) -> str:
        """What they are, in words."""
        if self.count == 1 and isinstance(self.selection, Sequence):
            return f"letter {self.selection[0]:,}"
        return f"{self.count:,} letter{'' if self.count == 1 else 's'}"

    @property
    def options(self) -> str:
        """The command line's options that choose the same letters."""
        if isinstance(self.selection, Sequence):
            named = " ".join(f"--seq {each}" for each in self.selection[:_NAMED])
            return named + (" …" if len(self.selection) > _NAMED else "")
        words = self.selection.describe()
        return shlex.quote(words) if words else "--all"

    @property
    def which(self) -> str:
        """Which they are, for a question."""
        if isinstance(self.selection, Sequence):
            return self.title
        words = self.selection.describe()
        return f"all {self.count:,} letters that match {words}" if words else f"all {self.count:,} letters"


def replay_change(session: Session, chosen: Chosen, edit: Edit | None = None, rate: float | None = None) -> Change:
    """Send letters to the workers again."""
    options = chosen.options + edit_options(edit)
    if rate is not None:
        options += f" --rate {rate:g}"
    command = session.command(f"dlq replay {options}")
    if chosen.count == 1:
        return Change(
            f"Replay {chosen.title}",
            command,
            act=lambda: _replay_one(session, chosen, edit),
            told="Sent to the workers",
        )
    return Change(
        f"Replay {chosen.title}",
        command,
        begin=lambda: _replay(session, chosen, edit, rate),
        plan=(
            f"{chosen.which} go back into the stream" + (f", {rate:g} a second at most" if rate else ""),
            "each that a worker accepts is gone from here; each that fails again comes back",
            "what no worker has taken yet can be undone from the audit",
        ),
    )


def edit_options(edit: Edit | None) -> str:
    """The command line's options that make the same edit."""
    if edit is None:
        return ""
    if edit.payload is not None:
        return " --edit"
    return "".join(f" --set {shlex.quote(f'{name}={value}')}" for name, value in edit.fields.items())


def delete_change(session: Session, chosen: Chosen) -> Change:
    """Remove letters for good."""

    async def act() -> None:
        pipeline = await session.pipeline()
        await pipeline.dead_letters.delete(chosen.selection, expected_count=chosen.count)

    return Change(
        f"Delete {chosen.title}",
        session.command(f"dlq delete {chosen.options}"),
        act=act,
        loses=(f"{chosen.which}: messages that were never processed; the audit keeps what they were",),
        typed=None if chosen.count == 1 else str(chosen.count),
        timeout=120,
    )


def undo_change(session: Session, *, run: str, message_id: str | None = None) -> Change:
    """Take a replay back that no worker has taken yet: of one message, or of its whole run."""

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
            raise ControlError(f"{undone:,} of {len(found):,} taken back; the others: {reason}")

    option = f"--run {run}" if message_id is None else f"--message {message_id}"
    what = "the run's replays" if message_id is None else "the message's last replay"
    return Change(
        f"Undo {what}",
        session.command(f"dlq undo {option}"),
        act=act,
        plan=("what no worker has taken yet becomes a dead letter again; the consumer stands still meanwhile",),
        timeout=120,
    )


async def _replay_one(session: Session, chosen: Chosen, edit: Edit | None) -> None:
    pipeline = await session.pipeline()
    run = await pipeline.dead_letters.replay(chosen.selection, edit)
    await run.finish()
    if run.failures:
        raise ControlError(run.failures[0].detail)


async def _replay(session: Session, chosen: Chosen, edit: Edit | None, rate: float | None) -> AsyncIterator[Progress]:
    pipeline = await session.pipeline()
    step = "replay"
    yield Progress(step, Step.STARTED, "reading what matches")
    run = await pipeline.dead_letters.replay(chosen.selection, edit, rate=rate)
    async for now in run:
        yield Progress(step, Step.STARTED, f"{now.done:,} of {run.total:,}   {now.rate:,.0f}/s")
    for each in run.failures[:_SHOWN]:
        yield Progress(step, Step.OUTPUT, f"letter {each.sequence:,}: {each.detail}")
    done = run.progress
    counts = ", ".join(f"{number:,} {result.value}" for result, number in done.counts.items() if number)
    state = Step.FAILED if run.failures else Step.DONE
    yield Progress(step, state, counts or "there was nothing to replay", done.seconds)


def fields_problem(text: str) -> str | None:
    """What is wrong with ``FIELD=VALUE …``, or None."""
    try:
        parse_fields(text)
    except ControlError as error:
        return str(error)
    return None


def parse_fields(text: str) -> Edit:
    """The edit that ``FIELD=VALUE …`` asks for, quoted as in a shell; raises ControlError."""
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
        raise ControlError("expected FIELD=VALUE, or several of them")
    return Edit(fields=fields)


def narrow(words: str, group: Group) -> str:
    """The filter of these words, made narrower by a group that was found under it."""
    base = parse_filter(words)
    if group.by.value == "reason":
        return replace(base, reasons=(group.key,)).describe()
    if group.by.value == "entity":
        return replace(base, entities=(group.key,)).describe()

    def pattern(text: str) -> str:
        return text if base.regex else re.escape(text)

    shape = group.filter.error
    error = f"^(?=.*{pattern(base.error)}){shape.removeprefix('^')}" if base.error else shape
    return replace(base, error=error, payload=pattern(base.payload), regex=True).describe()


def filter_problem(words: str) -> str | None:
    """What is wrong with a filter, or None."""
    try:
        parse_filter(words)
    except NomnomError as error:
        return str(error)
    return None


def parse_filter(words: str) -> Filter:
    """The filter of these words; raises FilterError."""
    from nomnom.inspection.dead_letters import Filter

    return Filter.parse(words)
