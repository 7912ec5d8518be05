"""The place where a page ends, as text that a client sends back without reading it."""

from __future__ import annotations

import base64
import binascii
from typing import TypeVar

import msgspec

from nomnom.connections.errors import RequestError

T = TypeVar("T")
PATTERN = r"^[A-Za-z0-9_-]{2,2000}$"


class InvalidQuery(RequestError):  # noqa: N818
    """A parameter of a query that cannot be used; the text, and ``allowed``, say what can."""

    def __init__(self, problem: str, allowed: list[str] | None = None) -> None:
        self.allowed = allowed
        super().__init__(problem)


class CursorError(InvalidQuery):
    """A cursor that does not belong to this listing."""

    def __init__(self, problem: str = "expected `next` of an earlier page with the same sort order") -> None:
        super().__init__(f"cursor: {problem}")


def write_cursor(position: object) -> str:
    """The position as URL-safe text."""
    return base64.urlsafe_b64encode(msgspec.json.encode(position)).rstrip(b"=").decode()


def read_cursor(text: str, kind: type[T]) -> T:
    """The position that the text holds; raises CursorError."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        return msgspec.json.decode(data, type=kind)
    except (binascii.Error, ValueError, msgspec.DecodeError) as error:
        raise CursorError from error
