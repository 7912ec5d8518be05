"""Problem details (RFC 9457): the body of every error response of a service."""

from __future__ import annotations

from http import HTTPStatus

import msgspec

MEDIA_TYPE = b"application/problem+json"


class ProblemDetails(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Problem details (RFC 9457). ``title`` is the phrase of the status; ``detail`` says what failed and what to do."""

    title: str
    status: int
    detail: str
    type: str = "about:blank"
    instance: str | None = None
    allowed: list[str] | None = None
    """The allowed values, if a value was rejected because it is not one of them."""


def problem_details(
    status: int, detail: str, instance: str | None = None, allowed: list[str] | None = None
) -> ProblemDetails:
    """The problem details of an HTTP status, with its standard phrase as the title."""
    return ProblemDetails(
        title=HTTPStatus(status).phrase, status=status, detail=detail, instance=instance, allowed=allowed
    )
