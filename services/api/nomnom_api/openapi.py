"""The OpenAPI 3.1 document, generated from the API's response types, errors and settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from nomnom.http.openapi import RETRY_AFTER, component_schemas, openapi_document, problem_response, reference
from nomnom.schema import Schema
from nomnom.settings import ApiSettings
from nomnom_api.answers import (
    Alive,
    BatchIds,
    BatchSummary,
    MessageState,
    PartialBatch,
    Readiness,
    Receipt,
    Validation,
)
from nomnom_api.errors import (
    ApiError,
    BusyError,
    InvalidBodyError,
    InvalidKeyError,
    InvalidParameterError,
    KeyConflictError,
    MediaTypeError,
    NotFoundError,
    ReadTimeoutError,
    StoppingError,
    StreamFullError,
    TooLargeError,
    TooManyProblemsError,
    UnauthorizedError,
    UnavailableError,
    UnconfirmedError,
)

if TYPE_CHECKING:
    from nomnom_api.operations import Operation

_JSON, _PLAIN = "application/json", "text/plain"
_TYPES = (Receipt, BatchIds, BatchSummary, PartialBatch, Validation, MessageState, Alive, Readiness)
_ID = "018f3a5c-7b1e-7c40-9d52-5a3f0c9e8b11"
_OTHER_ID = "018f3a5c-7b1f-7a02-8c11-0e4b6f7d2a90"
_TIMESTAMP = "2024-05-02T09:14:33.120457Z"
_ORDER = "O|123|456|F|123.45|2024-01-01|urgent|clerk1|1|comment"
_INTRODUCTION = """Posts pipe-delimited records to a nomnom pipeline.

A message is one record, or a parent and its children, one per line: `TAG|field|…`, UTF-8. It is accepted (202) once
JetStream has stored it and acknowledged it. Records are not validated on acceptance: invalid ones become dead letters.
Every error is a problem details object (RFC 9457) whose `type` ends with a code and whose `detail` says what to do;
responses with status 503 have a `Retry-After` header.

An `Idempotency-Key` makes a request safe to retry: a key stands for one content of a caller, that of one message or of
one batch, which is compared in segments of up to 1,000 lines, and another one is rejected with 422 (`key_conflict`).
Without a `Content-Type`, the body is treated as `text/plain; charset=utf-8`."""


def document(operations: Iterable[Operation], settings: ApiSettings, schema: Schema) -> dict[str, Any]:
    """The OpenAPI document of these operations on an API with these settings and this schema."""
    paths: dict[str, dict[str, Any]] = {}
    for each in operations:
        if each.description is not None:
            described = each.description(settings)
            open_to_all: dict[str, Any] = {"security": [{}]} if each.open else {}
            tag = "operation" if each.open else "ingest"
            paths.setdefault(each.path, {})[each.method.lower()] = {**described, "tags": [tag], **open_to_all}
    tags = ", ".join(f"{each.tag} ({each.name})" for each in schema)
    return openapi_document(
        "nomnom ingest API",
        f"{_INTRODUCTION}\n\nRecord tags of this deployment: {tags}.",
        paths,
        component_schemas(_TYPES),
        tags=[
            {"name": "ingest", "description": "Post messages and query their status."},
            {"name": "operation", "description": "Health checks, metrics and documentation. No token required."},
        ],
        security=[{"token": []}] if settings.tokens else [{}],
        security_schemes={
            "token": {
                "type": "http",
                "scheme": "bearer",
                "description": "One of NOMNOM_API_TOKENS. Not required if none are set.",
            }
        },
    )


def describe_message(settings: ApiSettings) -> dict[str, Any]:
    """Describe POST /api/ingest/message."""
    accepted = _answer(
        "JetStream has stored the message.", Receipt, {"accepted": _receipt(), "repeated": _receipt(again=True)}
    )
    return {
        "operationId": "postMessage",
        "summary": "Post one message",
        "description": "The tag of the first line determines the entity. Records are validated later, by workers.",
        "parameters": [_key("The message ID is derived from the key and the caller, so a retry is the same message.")],
        "requestBody": _body(
            f"A message of at most {settings.nomnom_api_max_body:,} bytes.",
            {"record": _ORDER, "parent and child": f"{_ORDER}\n{_child()}"},
        ),
        "responses": {
            "202": accepted,
            **_problems(InvalidBodyError, InvalidKeyError, KeyConflictError, *_POSTING),
        },
    }


def describe_batch(settings: ApiSettings) -> dict[str, Any]:
    """Describe POST /api/ingest/batch."""
    examples: dict[str, Any] = {
        "ids": {"count": 2, "ids": [_ID, _OTHER_ID]},
        "summary (ids=none)": {"count": 2, "first_id": _ID, "last_id": _OTHER_ID},
    }
    invalid = {
        "line": 2,
        "last_line": 2,
        "status": 400,
        "code": "invalid_body",
        "detail": "the line is not valid UTF-8",
    }
    rest = {
        "line": 4,
        "last_line": None,
        "status": 503,
        "code": "stream_full",
        "detail": "stream MESSAGES is full (maximum bytes exceeded); retry later",
    }
    return {
        "operationId": "postBatch",
        "summary": "Post many messages, one per line",
        "description": (
            "Lines are published while the body is read, so large batches need little memory. Blank lines are "
            "skipped; lines end with LF or CRLF, which is optional for the last one. If an error prevents all further "
            "lines from being accepted, the batch ends there. If no line was accepted, all for the same reason, the "
            "response is that problem."
        ),
        "parameters": [
            _key("The message IDs of the lines are derived from the key, the line numbers and the caller."),
            {
                "name": "ids",
                "in": "query",
                "description": "Whether the response lists the message ID of each line.",
                "schema": {"type": "string", "enum": ["all", "none"], "default": "all"},
            },
        ],
        "requestBody": _body(
            f"At most {settings.nomnom_api_batch_max_body:,} bytes; {settings.nomnom_api_max_body:,} bytes per line.",
            {"two orders": f"{_ORDER}\nO|124|456|O|10.00|2024-01-02|5-LOW|clerk2|0|another\n"},
        ),
        "responses": {
            "202": _answer("JetStream has stored all lines.", [BatchIds, BatchSummary], examples),
            "207": _answer(
                "JetStream has stored some lines; the others are listed as problems.",
                PartialBatch,
                {
                    "partial": {
                        "count": 2,
                        "problems": [invalid, rest],
                        "accepted": [{"line": 1, "id": _ID}, {"line": 3, "id": _OTHER_ID}],
                    }
                },
                RETRY_AFTER,
            ),
            **_problems(
                InvalidBodyError,
                InvalidKeyError,
                InvalidParameterError,
                KeyConflictError,
                TooManyProblemsError,
                *_POSTING,
                StoppingError,
            ),
        },
    }


def describe_validation(settings: ApiSettings) -> dict[str, Any]:
    """Describe POST /api/ingest/validate."""
    problem = {"line": 1, "field": "o_orderkey", "position": 1, "expected": "a whole number", "found": "'x'"}
    subject = "messages.ingest.orders.{message_id}"
    return {
        "operationId": "validateMessage",
        "summary": "Validate a message",
        "description": "Parses the message without publishing it.",
        "requestBody": _body(f"A message of at most {settings.nomnom_api_max_body:,} bytes.", {"record": _ORDER}),
        "responses": {
            "200": _answer(
                "The parsed records, or the problems found.",
                Validation,
                {
                    "invalid": {
                        "valid": False,
                        "entity": "orders",
                        "subject": subject,
                        "records": [],
                        "problems": [problem],
                    }
                },
            ),
            **_problems(
                InvalidBodyError, UnauthorizedError, ReadTimeoutError, TooLargeError, MediaTypeError, BusyError
            ),
        },
    }


def describe_status(_: ApiSettings) -> dict[str, Any]:
    """Describe GET /api/ingest/status/{message_id}."""
    state = {
        "message_id": _ID,
        "status": "completed",
        "entity": "orders",
        "received_at": _TIMESTAMP,
        "processed_at": "2024-05-02T09:14:33.168002Z",
        "retry_count": 0,
        "error": None,
        "superseded": False,
        "note": None,
    }
    return {
        "operationId": "getStatus",
        "summary": "Get the status of a message",
        "description": (
            "`accepted`: pending in the stream; `processing`: delivered to a worker; `completed`: written to its table "
            "(`superseded`: a message accepted later had already written its rows); `failed`: will be retried; `dlq`: "
            "a dead letter, awaiting review; `deleted`: its dead letter was deleted; `purged`: removed from its stream "
            "by a purge; `expired`: its dead letter was archived."
        ),
        "parameters": [
            {
                "name": "message_id",
                "in": "path",
                "required": True,
                "schema": {"type": "string", "format": "uuid"},
                "example": _ID,
            }
        ],
        "responses": {
            "200": _answer("The status of the message.", MessageState, {"completed": state}),
            **_problems(InvalidParameterError, UnauthorizedError, NotFoundError, UnavailableError),
        },
    }


def describe_liveness(_: ApiSettings) -> dict[str, Any]:
    """Describe GET /health."""
    return {
        "operationId": "getHealth",
        "summary": "Liveness",
        "responses": {"200": _answer("The process is running.", Alive, {"alive": {"status": "alive"}})},
    }


def describe_readiness(_: ApiSettings) -> dict[str, Any]:
    """Describe GET /ready."""
    degraded = {
        "status": "degraded",
        "jetstream": {"ok": True, "detail": "stream MESSAGES is available"},
        "database": {
            "ok": False,
            "detail": "PostgreSQL at postgresql://postgres@db:5432/nomnom is unavailable",
        },
    }
    ready = "Messages are accepted; if `degraded`, without statuses."
    return {
        "operationId": "getReady",
        "summary": "Readiness: whether messages can be accepted",
        "responses": {
            "200": _answer(ready, Readiness, {"degraded": degraded}),
            "503": _answer("Messages cannot be accepted; the body says why.", Readiness, {}),
        },
    }


def describe_file(name: str, summary: str, content: str, media_type: str) -> Callable[[ApiSettings], dict[str, Any]]:
    """What describes a GET of a text of this media type."""
    kind = "object" if media_type == _JSON else "string"
    response = {"description": content, "content": {media_type: {"schema": {"type": kind}}}}
    described = {"operationId": name, "summary": summary, "responses": {"200": response}}
    return lambda _: described


_POSTING: tuple[type[ApiError], ...] = (
    UnauthorizedError,
    ReadTimeoutError,
    TooLargeError,
    MediaTypeError,
    BusyError,
    UnavailableError,
    StreamFullError,
    UnconfirmedError,
)
_HEADERS: dict[int, dict[str, Any]] = {
    401: {"WWW-Authenticate": {"schema": {"type": "string"}}},
    503: RETRY_AFTER,
}


def _receipt(*, again: bool = False) -> dict[str, Any]:
    receipt: dict[str, Any] = {"message_id": _ID, "status": "accepted", "timestamp": _TIMESTAMP}
    return receipt | {"duplicate": True} if again else receipt


def _child() -> str:
    return "OLI|1|789|1|100|123.45|0.05|0.07|N|O|2024-01-01|2024-01-02|2024-01-03|DELIVER|SHIP|test"


def _key(description: str) -> dict[str, Any]:
    return {
        "name": "Idempotency-Key",
        "in": "header",
        "description": description,
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
        "example": "order-123-first-attempt",
    }


def _body(description: str, examples: Mapping[str, str]) -> dict[str, Any]:
    given = {name: {"value": value} for name, value in examples.items()}
    content = {_PLAIN: {"schema": {"type": "string", "minLength": 1}, "examples": given}}
    return {"required": True, "description": description, "content": content}


def _answer(
    description: str,
    kinds: type | list[type],
    examples: Mapping[str, Any],
    headers: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    refs = [reference(each) for each in (kinds if isinstance(kinds, list) else [kinds])]
    content: dict[str, Any] = {"schema": refs[0] if len(refs) == 1 else {"oneOf": refs}}
    if examples:
        content["examples"] = {name: {"value": value} for name, value in examples.items()}
    answer: dict[str, Any] = {"description": description, "content": {_JSON: content}}
    return {**answer, "headers": dict(headers)} if headers else answer


def _problems(*errors: type[ApiError]) -> dict[str, Any]:
    """The responses for these errors and for an internal error, by status, each with an example."""
    answers: dict[str, Any] = {}
    every = (*errors, ApiError)
    for status in sorted({each.status for each in every}):
        same = [each for each in every if each.status == status]
        description = " ".join(f"`{each.code}`: {_sentence(each)}" for each in same)
        examples = {each.code: _example(each) for each in same}
        answers[str(status)] = problem_response(description, examples, _HEADERS.get(status))
    return answers


def _sentence(error: type[ApiError]) -> str:
    return (error.__doc__ or error.title).partition("\n")[0]


def _example(error: type[ApiError]) -> dict[str, Any]:
    detail = f"{error.title[0].lower()}{error.title[1:]}: what failed and what to do"
    sample = UnauthorizedError(detail, b"") if issubclass(error, UnauthorizedError) else error(detail)
    decoded: dict[str, Any] = msgspec.json.decode(sample.problem("/api/ingest/message"))
    return decoded
