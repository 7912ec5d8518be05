"""Where a page of rows ended, as text that a client sends back unread."""

from __future__ import annotations

import base64
import binascii
from typing import TypeVar

import msgspec

from nomnom_dashboard.errors import InvalidQueryError

T = TypeVar("T")
PATTERN = r"^[A-Za-z0-9_-]{2,2000}$"


def write_cursor(position: object) -> str:
    """The position as URL-safe text."""
    return base64.urlsafe_b64encode(msgspec.json.encode(position)).rstrip(b"=").decode()


def read_cursor(text: str, kind: type[T]) -> T:
    """The position that the text holds; raises InvalidQueryError where it is not one of this listing's."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        return msgspec.json.decode(data, type=kind)
    except (binascii.Error, ValueError, msgspec.DecodeError) as error:
        raise InvalidQueryError("cursor: expected `next` of an earlier page with the same sort order") from error
