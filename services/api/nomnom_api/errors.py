"""The API's errors, each with its HTTP status and problem type (RFC 9457)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec

from nomnom.errors import NomnomError
from nomnom.problems import ProblemDetails

PROBLEM_TYPE = "urn:nomnom:problem:"


class ApiError(NomnomError):
    """Internal error; see the API's log.

    The base class of all others. ``code`` and ``title`` are fixed for each class.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"
    retry_after: ClassVar[int | None] = None
    """Seconds after which a retry may succeed."""

    @property
    def headers(self) -> Sequence[tuple[bytes, bytes]]:
        """Additional response headers."""
        return [(b"retry-after", str(self.retry_after).encode())] if self.retry_after is not None else []

    def problem(self, instance: str | None = None) -> bytes:
        """The response body: problem details as JSON."""
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
    """The body is empty or not valid UTF-8."""

    status, code, title = 400, "invalid_body", "Invalid body"


class InvalidKeyError(ApiError):
    """The Idempotency-Key is empty, too long or not printable ASCII."""

    status, code, title = 400, "invalid_idempotency_key", "Invalid Idempotency-Key"


class InvalidParameterError(ApiError):
    """A path or query parameter is invalid."""

    status, code, title = 400, "invalid_parameter", "Invalid parameter"


class UnauthorizedError(ApiError):
    """The token is missing or invalid."""

    status, code, title = 401, "unauthorized", "Unauthorized"

    def __init__(self, detail: str, challenge: bytes) -> None:
        super().__init__(detail)
        self.challenge = challenge

    @property
    def headers(self) -> Sequence[tuple[bytes, bytes]]:
        return [(b"www-authenticate", self.challenge)]


class NotFoundError(ApiError):
    """The path or the message does not exist."""

    status, code, title = 404, "not_found", "Not found"


class MethodNotAllowedError(ApiError):
    """The path does not support the method."""

    status, code, title = 405, "method_not_allowed", "Method not allowed"

    def __init__(self, detail: str, allowed: Sequence[str]) -> None:
        super().__init__(detail)
        self.allowed = allowed

    @property
    def headers(self) -> Sequence[tuple[bytes, bytes]]:
        return [(b"allow", ", ".join(self.allowed).encode())]


class ReadTimeoutError(ApiError):
    """The body was not received in time."""

    status, code, title = 408, "read_timeout", "Request timeout"

    @property
    def headers(self) -> Sequence[tuple[bytes, bytes]]:
        # The rest of the body may still arrive, so the connection cannot be reused.
        return [(b"connection", b"close")]


class TooLargeError(ApiError):
    """The message or the batch exceeds its size limit."""

    status, code, title = 413, "too_large", "Content too large"


class MediaTypeError(ApiError):
    """The body is not declared as plain UTF-8 text."""

    status, code, title = 415, "unsupported_media_type", "Unsupported media type"


class KeyConflictError(ApiError):
    """The Idempotency-Key was used before, for another content. Nothing was stored."""

    status, code, title = 422, "key_conflict", "Idempotency-Key conflict"


class ClientGoneError(ApiError):
    """The client closed the connection before the body was complete; nobody receives this response (nginx's 499)."""

    status, code, title = 499, "client_gone", "Client closed request"


class BusyError(ApiError):
    """Too many concurrent requests or messages in flight. Nothing was stored."""

    status, code, title, retry_after = 503, "busy", "Busy", 1


class UnavailableError(ApiError):
    """A dependency is unavailable. Nothing was stored."""

    status, code, title, retry_after = 503, "unavailable", "Dependency unavailable", 2


class StreamFullError(ApiError):
    """The stream is full until workers have processed messages. Nothing was stored."""

    status, code, title, retry_after = 503, "stream_full", "Stream full", 5


class UnconfirmedError(ApiError):
    """No ack received: the message may or may not be stored. Retry with the same Idempotency-Key."""

    status, code, title, retry_after = 503, "unconfirmed", "Not confirmed by JetStream", 2


class NotSentError(ApiError):
    """Lines of a batch after an unconfirmed one. They were not stored."""

    status, code, title, retry_after = 503, "not_sent", "Rest of the batch not sent", 2


class TooManyProblemsError(ApiError):
    """The batch has too many invalid lines."""

    status, code, title = 400, "too_many_problems", "Too many invalid lines"


class StoppingError(ApiError):
    """The API is shutting down. Nothing was stored."""

    status, code, title, retry_after = 503, "stopping", "API shutting down", 1


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
    KeyConflictError,
    ApiError,
    BusyError,
    UnavailableError,
    StreamFullError,
    UnconfirmedError,
    NotSentError,
    TooManyProblemsError,
    StoppingError,
)
"""All errors that a client can receive."""
