"""The entries of the audit log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from nomnom.envelope import new_message_id


class Action(StrEnum):
    """The kinds of operations in the audit log."""

    REPLAY = "replay"
    UNDO = "undo"
    DELETE = "delete"
    PURGE = "purge"
    EXPIRE = "expire"
    """Done by the housekeeper."""
    PAUSE = "pause"
    RESUME = "resume"


@dataclass(frozen=True, slots=True)
class Entry:
    """One operation. ``run`` groups the entries of one command; ``detail`` is JSON.

    ``unconfirmed`` is the result to record if the session ended before the actual result was known.
    """

    action: Action
    result: str
    entity: str = ""
    message_id: str | None = None
    sequence: int | None = None
    undoes: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict[str, Any])
    run: str = field(default_factory=new_message_id)
    event: str = field(default_factory=new_message_id)
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    actor: str = ""
    unconfirmed: str = "unconfirmed"


@dataclass(frozen=True, slots=True)
class Record(Entry):
    """An entry of the audit log with its number."""

    id: int = 0
