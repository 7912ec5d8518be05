"""The OpenAPI 3.1 document, made from the types that the api answers with, its errors and its settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from nomnom import __version__
from nomnom.problems import MEDIA_TYPE, ProblemDetails
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

_REF = "#/components/schemas/{name}"
_JSON, _PLAIN, _PROBLEM = "application/json", "text/plain", MEDIA_TYPE.decode()
_ID = "018f3a5c-7b1e-7c40-9d52-5a3f0c9e8b11"
_OTHER_ID = "018f3a5c-7b1f-7a02-8c11-0e4b6f7d2a90"
_MOMENT = "2024-05-02T09:14:33.120457Z"
_ORDER = "O|123|456|F|123.45|2024-01-01|urgent|clerk1|1|comment"
_INTRODUCTION = """Posts pipe-delimited records into a nomnom pipeline.

A message is one record, or a parent and its children, a line each: `TAG|field|…`, UTF-8. It is accepted (202) once
JetStream has acknowledged it; a faulty one is accepted too, and becomes a dead letter. Every error is a problem
(RFC 9457) whose `type` ends in a code and whose `detail` says what to do; with 503, `Retry-After` says when to try
again.

An `Idempotency-Key` makes a request safe to repeat: a key names one message (or batch) of a caller, and what was posted
first under it stays. Without a `Content-Type`, a body is taken as `text/plain; charset=utf-8`."""


def document(settings: ApiSettings, schema: Schema) -> dict[str, Any]:
    """The document of an api with these settings and this schema."""
    types = [Receipt, BatchIds, BatchSummary, PartialBatch, Validation, MessageState, Alive, Readiness, ProblemDetails]
    (_, components) = msgspec.json.schema_components(types, ref_template=_REF)
    schemas = {name: _described(name, each) for name, each in components.items()}
    security = [{"token": []}] if settings.tokens else [{}]
    tags = ", ".join(f"{each.tag} ({each.name})" for each in schema)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "nomnom ingest API",
            "version": __version__,
            "description": f"{_INTRODUCTION}\n\nTags here: {tags}.",
        },
        "tags": [
            {"name": "ingest", "description": "Messages in, and what became of them."},
            {"name": "operation", "description": "For probes, scrapers and people. No token is needed."},
        ],
        "security": security,
        "paths": {
            "/api/ingest/message": {"post": _message(settings)},
            "/api/ingest/batch": {"post": _batch(settings)},
            "/api/ingest/validate": {"post": _validate(settings)},
            "/api/ingest/status/{message_id}": {"get": _status()},
            **_operation(),
        },
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "One of NOMNOM_API_TOKENS. Where none are set, none is needed.",
                }
            },
        },
    }


def _message(settings: ApiSettings) -> dict[str, Any]:
    accepted = _answer(
        "JetStream has the message.", Receipt, {"accepted": _receipt(), "repeated": _receipt(again=True)}
    )
    return {
        "operationId": "postMessage",
        "summary": "Post one message",
        "description": "Its first line's tag says what it is. What it says is judged by a worker, not here.",
        "tags": ["ingest"],
        "parameters": [_key("The message's id follows from it and from who posts: a repeat is the same message.")],
        "requestBody": _body(
            f"A message of at most {settings.nomnom_api_max_body:,} bytes.",
            {"record": _ORDER, "parent and child": f"{_ORDER}\n{_child()}"},
        ),
        "responses": {
            "202": accepted,
            **_problems(InvalidBodyError, InvalidKeyError, *_POSTING),
        },
    }


def _batch(settings: ApiSettings) -> dict[str, Any]:
    examples: dict[str, Any] = {
        "ids": {"count": 2, "ids": [_ID, _OTHER_ID]},
        "summary (ids=none)": {"count": 2, "first_id": _ID, "last_id": _OTHER_ID},
    }
    faulty = {"line": 2, "last_line": 2, "status": 400, "code": "invalid_body", "detail": "the line is not UTF-8"}
    rest = {
        "line": 4,
        "last_line": None,
        "status": 503,
        "code": "stream_full",
        "detail": "stream MESSAGES is full (maximum bytes exceeded): try again when there is room",
    }
    return {
        "operationId": "postBatch",
        "summary": "Post many messages, one a line",
        "description": (
            "The body is read as it is published: its size is limited, memory is not a limit. Blank lines are "
            "skipped, CRLF and LF end lines, the last needs no end. When something keeps all further lines from being "
            "accepted the batch ends there. Where no line was accepted, and all for one reason, the answer is that "
            "problem."
        ),
        "tags": ["ingest"],
        "parameters": [
            _key("Each line's id follows from it, from its number and from who posts."),
            {
                "name": "ids",
                "in": "query",
                "description": "Whether the answer lists the id of each line.",
                "schema": {"type": "string", "enum": ["all", "none"], "default": "all"},
            },
        ],
        "requestBody": _body(
            f"At most {settings.nomnom_api_batch_max_body:,} bytes, at most {settings.nomnom_api_max_body:,} a line.",
            {"two orders": f"{_ORDER}\nO|124|456|O|10.00|2024-01-02|5-LOW|clerk2|0|another\n"},
        ),
        "responses": {
            "202": _answer("JetStream has all lines.", [BatchIds, BatchSummary], examples),
            "207": _answer(
                "JetStream has some lines; each other is in a problem.",
                PartialBatch,
                {
                    "partial": {
                        "count": 2,
                        "problems": [faulty, rest],
                        "accepted": [{"line": 1, "id": _ID}, {"line": 3, "id": _OTHER_ID}],
                    }
                },
                {"Retry-After": _RETRY_AFTER},
            ),
            **_problems(
                InvalidBodyError, InvalidKeyError, InvalidParameterError, TooManyProblemsError, *_POSTING, StoppingError
            ),
        },
    }


def _validate(settings: ApiSettings) -> dict[str, Any]:
    problem = {"line": 1, "field": "o_orderkey", "position": 1, "expected": "a whole number", "found": "'x'"}
    subject = "messages.ingest.orders.{message_id}"
    return {
        "operationId": "validateMessage",
        "summary": "See what would happen to a message",
        "description": "Nothing is published.",
        "tags": ["ingest"],
        "requestBody": _body(f"A message of at most {settings.nomnom_api_max_body:,} bytes.", {"record": _ORDER}),
        "responses": {
            "200": _answer(
                "What its records are, or what is wrong with it.",
                Validation,
                {
                    "faulty": {
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


def _status() -> dict[str, Any]:
    state = {
        "message_id": _ID,
        "status": "completed",
        "entity": "orders",
        "received_at": _MOMENT,
        "processed_at": "2024-05-02T09:14:33.168002Z",
        "retry_count": 0,
        "error": None,
        "superseded": False,
        "note": None,
    }
    return {
        "operationId": "getStatus",
        "summary": "Where a message is",
        "description": (
            "`accepted`: in the stream; `processing`: with a worker; `completed`: in its table (`superseded`: "
            "something received later had been there); `failed`: will be tried again; `dlq`: waits for a person."
        ),
        "tags": ["ingest"],
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
            "200": _answer("The message's state.", MessageState, {"completed": state}),
            **_problems(InvalidParameterError, UnauthorizedError, NotFoundError, UnavailableError),
        },
    }


def _operation() -> dict[str, Any]:
    ready = {
        "status": "degraded",
        "jetstream": {"ok": True, "detail": "stream MESSAGES answers"},
        "database": {"ok": False, "detail": "PostgreSQL at postgresql://postgres@db:5432/nomnom is away: no answer"},
    }
    text = {"schema": {"type": "string"}}
    plain: dict[str, tuple[str, str, dict[str, Any]]] = {
        "/health": (
            "getHealth",
            "Whether the process runs",
            {"200": _answer("It does.", Alive, {"alive": {"status": "alive"}})},
        ),
        "/ready": (
            "getReady",
            "Whether messages can be taken",
            {
                "200": _answer("They can; `degraded`: but statuses cannot be told.", Readiness, {"degraded": ready}),
                "503": _answer("They cannot; the body says why.", Readiness, {}),
            },
        ),
        "/metrics": (
            "getMetrics",
            "Prometheus metrics",
            {"200": {"description": "The metrics, in Prometheus' text format.", "content": {_PLAIN: text}}},
        ),
        "/openapi.json": (
            "getDocument",
            "This document",
            {"200": {"description": "OpenAPI 3.1.", "content": {_JSON: {"schema": {"type": "object"}}}}},
        ),
        "/docs": (
            "getPage",
            "This document as a page",
            {"200": {"description": "The page; it needs no other server.", "content": {"text/html": text}}},
        ),
    }
    return {
        path: {
            "get": {
                "operationId": name,
                "summary": summary,
                "tags": ["operation"],
                "security": [{}],
                "responses": responses,
            }
        }
        for path, (name, summary, responses) in plain.items()
    }


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
_RETRY_AFTER = {"description": "Seconds.", "schema": {"type": "integer"}}
_HEADERS: dict[int, dict[str, Any]] = {
    401: {"WWW-Authenticate": {"schema": {"type": "string"}}},
    503: {"Retry-After": _RETRY_AFTER},
}


def _receipt(*, again: bool = False) -> dict[str, Any]:
    receipt: dict[str, Any] = {"message_id": _ID, "status": "accepted", "timestamp": _MOMENT}
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
    refs = [{"$ref": _REF.format(name=each.__name__)} for each in (kinds if isinstance(kinds, list) else [kinds])]
    content: dict[str, Any] = {"schema": refs[0] if len(refs) == 1 else {"oneOf": refs}}
    if examples:
        content["examples"] = {name: {"value": value} for name, value in examples.items()}
    answer: dict[str, Any] = {"description": description, "content": {_JSON: content}}
    return {**answer, "headers": dict(headers)} if headers else answer


def _problems(*errors: type[ApiError]) -> dict[str, Any]:
    """The answers for these errors and for a defect, by status, with an example each."""
    answers: dict[str, Any] = {}
    every = (*errors, ApiError)
    for status in sorted({each.status for each in every}):
        same = [each for each in every if each.status == status]
        answers[str(status)] = {
            "description": " ".join(f"`{each.code}`: {_sentence(each)}" for each in same),
            "content": {
                _PROBLEM: {
                    "schema": {"$ref": _REF.format(name="ProblemDetails")},
                    "examples": {each.code: {"value": _example(each)} for each in same},
                }
            },
        }
        if status in _HEADERS:
            answers[str(status)]["headers"] = _HEADERS[status]
    return answers


def _sentence(error: type[ApiError]) -> str:
    return (error.__doc__ or error.title).partition("\n")[0]


def _example(error: type[ApiError]) -> dict[str, Any]:
    detail = f"{error.title[0].lower()}{error.title[1:]}: what to do about it"
    sample = UnauthorizedError(detail, b"") if issubclass(error, UnauthorizedError) else error(detail)
    decoded: dict[str, Any] = msgspec.json.decode(sample.problem("/api/ingest/message"))
    return decoded


def _described(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """What the encoder always writes is always there; omitted is only what says that it may be."""
    optional = {"Receipt": {"duplicate"}, "PartialBatch": {"accepted", "duplicates"}}.get(name, {"duplicates"})
    if name == "ProblemDetails" or "properties" not in schema:
        return schema
    return {**schema, "required": [each for each in schema["properties"] if each not in optional]}
