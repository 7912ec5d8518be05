"""The OpenAPI 3.1 document, generated from the operations and their parameter and response types."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from nomnom.http.openapi import RETRY_AFTER, component_schemas, openapi_document, problem_response, reference
from nomnom_dashboard.answers import Snapshot
from nomnom_dashboard.operations import Operation

_PROBLEMS = {
    400: "A parameter is invalid; the detail says what is allowed.",
    401: "The token or password is missing or invalid.",
    404: "The requested object does not exist.",
    503: "PostgreSQL or NATS is unavailable or timed out. Retry after the time in Retry-After.",
}
_INTRODUCTION = """The current state and the history of a nomnom pipeline. Read-only.

Lists are paginated: pass `next` as `cursor` to get the next page. Small row counts are exact, large ones are estimates.
Every error is a problem details object (RFC 9457) whose `detail` says what to do."""


def document(operations: Iterable[Operation]) -> dict[str, Any]:
    """The OpenAPI document of these operations."""
    listed = list(operations)
    queries = dict.fromkeys(each.query for each in listed)
    schemas = component_schemas([*(each.answer for each in listed if each.answer is not None), Snapshot, *queries])
    parameters = {each.__name__: schemas.pop(each.__name__) for each in queries}
    return openapi_document(
        "nomnom query API",
        _INTRODUCTION,
        {each.path: {"get": _operation(each, parameters[each.query.__name__])} for each in listed},
        schemas,
        security=[{}, {"token": []}, {"login": []}],
        security_schemes={
            "token": {"type": "http", "scheme": "bearer"},
            "login": {"type": "http", "scheme": "basic"},
        },
    )


def _operation(each: Operation, query: Mapping[str, Any]) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": schema}
        for name, schema in each.path_parameters.items()
    ] + [_parameter(name, schema) for name, schema in query.get("properties", {}).items()]
    described: dict[str, Any] = {
        "operationId": each.name,
        "summary": each.summary,
        "tags": [each.tag],
        "responses": _responses(each),
    }
    if parameters:
        described["parameters"] = parameters
    if each.open:
        described["security"] = [{}]
    return described


def _parameter(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    # A missing parameter is None in its type; a query string has no null.
    options = [each for each in schema.get("anyOf", []) if each != {"type": "null"}]
    plain = {key: value for key, value in schema.items() if key not in ("anyOf", "default")}
    default = schema.get("default")
    plain |= options[0] if options else {}
    if "enum" in plain:
        plain["enum"] = [each for each in plain["enum"] if each is not None]
    if default not in (None, []):
        plain["default"] = default
    parameter: dict[str, Any] = {"name": name, "in": "query", "required": False, "schema": plain}
    if description := plain.pop("description", None):
        parameter["description"] = description
    return parameter


def _responses(each: Operation) -> dict[str, Any]:
    body = reference(each.answer) if each.answer else {"type": "string"}
    responses: dict[str, Any] = {
        str(status): {"description": description, "content": {each.media_type: {"schema": body}}}
        for status, description in each.answers.items()
    }
    problems = {
        str(status): problem_response(_PROBLEMS[status], headers=RETRY_AFTER if status == 503 else None)
        for status in each.problems
    }
    return responses | problems
