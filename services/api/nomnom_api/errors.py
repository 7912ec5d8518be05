"""The api's errors. Each knows the HTTP status and the problem type (RFC 9457) that it becomes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec

from nomnom.errors import NomnomError
from nomnom.problems import ProblemDetails

PROBLEM_TYPE = "urn:nomnom:problem:"


class ApiError(NomnomError):
    """The api failed: a defect.

    The base of all others. ``code`` and ``title`` are the same for all of a class.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "The api failed"
    retry_after: ClassVar[int | None] = None
    """Seconds after which asking again may help."""

    @property
    def headers(self) -> Sequence[tuple[bytes, bytes]]:
        """Headers of the answer beside its content's."""
        return [(b"retry-after", str(self.retry_after).encode())] if self.retry_after is not None else []

    def problem(self, instance: str | None = None) -> bytes:
        """The body of the answer."""
        return msgspec.json.encode(
            ProblemDetails(
                type=PROBLEM_TYPE + self.code,
                title=self.title,
                status=self.status,
                detail=str(self),
                instance=instance,
            )
        )


class InvalidBodyError(ApiError):
    """A body that cannot be a message."""

    status, code, title = 400, "invalid_body", "The body is not a message"


class InvalidKeyError(ApiError):
    """An Idempotency-Key that cannot be used."""

    status, code, title = 400, "invalid_idempotency_key", "The Idempotency-Key cannot be used"


class InvalidParameterError(ApiError):
    """A parameter of the path or the query that cannot be used."""

    status, code, title = 400, "invalid_parameter", "A parameter cannot be used"


class UnauthorizedError(ApiError):
    """No token, or a wrong one."""

    status, code, title = 401, "unauthorized", "A token is needed"

    def __init__(self, detail: str, challenge: bytes) -> None:
        super().__init__(detail)
        self.challenge = challenge

    @property
    def headers(self) -> Sequence[tuple[bytes, bytes]]:
        return [(b"www-authenticate", self.challenge)]


class NotFoundError(ApiError):
    """A path, or a message, that does not exist."""

    status, code, title = 404, "not_found", "There is no such thing"


class MethodNotAllowedError(ApiError):
    """A path that does not take this method."""

    status, code, title = 405, "method_not_allowed", "The method is not for this path"

    def __init__(self, detail: str, allowed: Sequence[str]) -> None:
        super().__init__(detail)
        self.allowed = allowed

    @property
    def headers(self) -> Sequence[tuple[bytes, bytes]]:
        return [(b"allow", ", ".join(self.allowed).encode())]


class ReadTimeoutError(ApiError):
    """A body whose next part did not come in time."""

    status, code, title = 408, "read_timeout", "The body did not come in time"

    @property
    def headers(self) -> Sequence[tuple[bytes, bytes]]:
        # The rest of the body may still come: nothing after it on this connection can be understood.
        return [(b"connection", b"close")]


class TooLargeError(ApiError):
    """A message or a batch over its limit."""

    status, code, title = 413, "too_large", "The content is too large"


class MediaTypeError(ApiError):
    """A body that is not plain UTF-8 text."""

    status, code, title = 415, "unsupported_media_type", "The body is not text/plain"


class ClientGoneError(ApiError):
    """A client that closed the connection before its body was complete: nobody reads this answer (499 is nginx's)."""

    status, code, title = 499, "client_gone", "The client closed the connection"


class BusyError(ApiError):
    """More at a time than the api takes. Nothing was stored."""

    status, code, title, retry_after = 503, "busy", "The api is busy", 1


class UnavailableError(ApiError):
    """What is needed for an answer is away. Nothing was stored."""

    status, code, title, retry_after = 503, "unavailable", "A part of the pipeline is away", 2


class StreamFullError(ApiError):
    """The stream takes no more until workers have made room. Nothing was stored."""

    status, code, title, retry_after = 503, "stream_full", "The stream is full", 5


class UnconfirmedError(ApiError):
    """No ack came: the message may be stored, or not. Repeat it with the same Idempotency-Key."""

    status, code, title, retry_after = 503, "unconfirmed", "JetStream did not confirm", 2


class NotSentError(ApiError):
    """Lines of a batch after one that was not confirmed. They were not stored."""

    status, code, title, retry_after = 503, "not_sent", "The rest of the batch was not sent", 2


class TooManyProblemsError(ApiError):
    """A batch with so many faulty lines that it is no batch of records."""

    status, code, title = 400, "too_many_problems", "Too many lines cannot be taken"


class StoppingError(ApiError):
    """The api is on its way down. Nothing was stored."""

    status, code, title, retry_after = 503, "stopping", "The api is stopping", 1


ERRORS: tuple[type[ApiError], ...] = (
    InvalidBodyError,
    InvalidKeyError,
    InvalidParameterError,
    UnauthorizedError,
    NotFoundError,
    MethodNotAllowedError,
    ReadTimeoutError,
    TooLargeError,
    MediaTypeError,
    ApiError,
    BusyError,
    UnavailableError,
    StreamFullError,
    UnconfirmedError,
    NotSentError,
    TooManyProblemsError,
    StoppingError,
)
"""Every problem that a client can be answered with."""
