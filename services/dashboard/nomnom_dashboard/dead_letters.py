"""Dead letters as the query API returns them."""

from __future__ import annotations

from nomnom.inspection import dead_letters
from nomnom.inspection.cursors import write_cursor
from nomnom.inspection.dead_letters import DeadLetterIndex, Filter, GroupBy, window
from nomnom_dashboard.answers import DeadLetter, DeadLetterGroup, DeadLetterList

_ERROR_SHOWN = 500


async def list_dead_letters(index: DeadLetterIndex, wanted: Filter, before: int | None, limit: int) -> DeadLetterList:
    """The newest dead letters that match, below a sequence, and the groups of all that match."""
    matching = await index.select(wanted)
    groups = [_group(index, each) for each in await index.groups(GroupBy.KIND, matching)]
    page, older, _ = window(matching, None, before, limit, newest_first=True)
    shown = [shown_dead_letter(each) for one in reversed(page) if (each := index.get(one)) is not None]
    following = write_cursor(page[0]) if page and older else None
    return DeadLetterList(shown, following, index.state.messages, len(matching), groups, index.older)


def shown_dead_letter(dead_letter: dead_letters.DeadLetter) -> DeadLetter:
    """A dead letter without its payload; null is what a malformed one does not say of itself."""
    malformed = bool(dead_letter.envelope_problem)
    return DeadLetter(
        sequence=dead_letter.sequence,
        message_id=None if malformed else dead_letter.message_id,
        entity=dead_letter.entity,
        reason=dead_letter.reason,
        error=dead_letter.error[:_ERROR_SHOWN],
        attempts=dead_letter.attempts or None,
        replays=dead_letter.replays,
        received_at=None if malformed else dead_letter.received_at,
        failed_at=dead_letter.failed_at,
        stored_at=dead_letter.stored_at,
        size=dead_letter.size,
    )


def _group(index: DeadLetterIndex, group: dead_letters.Group) -> DeadLetterGroup:
    (reason,), (entity,) = group.filter.reasons, group.filter.entities
    newest = index.get(group.example)
    return DeadLetterGroup(reason, entity, group.count, group.newest, newest.error[:_ERROR_SHOWN] if newest else "")
