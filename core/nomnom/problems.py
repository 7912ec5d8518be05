"""RFC 9457 problem details: the body of every error that a service answers with."""

from __future__ import annotations

from http import HTTPStatus

import msgspec

MEDIA_TYPE = b"application/problem+json"


class ProblemDetails(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What went wrong: ``title`` is the same for every problem of a status, ``detail`` says what to do about this."""

    title: str
    status: int
    detail: str
    type: str = "about:blank"
    instance: str | None = None
    allowed: list[str] | None = None
    """Where a value was refused because it is none of a list: the list."""


def problem_details(
    status: int, detail: str, instance: str | None = None, allowed: list[str] | None = None
) -> ProblemDetails:
    """The problem of an HTTP status, titled by the status's own phrase."""
    return ProblemDetails(
        title=HTTPStatus(status).phrase, status=status, detail=detail, instance=instance, allowed=allowed
    )
